# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0

import json

from depthvlm_ros.benchmark import rooms
from depthvlm_ros.model import Predictor
from depthvlm_ros.model.lengths import scaled
import numpy as np
import pytest


@pytest.fixture(scope='module')
def predictor(tiny_checkpoint):
    return Predictor.from_pretrained(tiny_checkpoint, device='cpu')


class Oracle:
    """Stands where the model does and knows the truth: every figure must then be perfect."""

    def __init__(self, monkeypatch):
        self.frame = None
        render = rooms.Scene.render

        def watch(scene, *args):
            self.frame = render(scene, *args)
            return self.frame
        monkeypatch.setattr(rooms.Scene, 'render', watch)

    def look(self, rgb, camera):
        self.depth_m = self.frame.depth_m * (camera.fx / self.frame.intrinsics.fx)
        return self

    def ask(self, view, question, max_tokens, compute_distances=False):
        self.text = next((a for seed in range(8) for q, a, _ in self.frame.questions(seed)
                          if q == question), '')
        return self


def test_the_truth_is_judged_perfect(monkeypatch):
    result = rooms.measure_rooms(Oracle(monkeypatch), 4, width_px=(80, 100))
    assert result['delta1'] == 1.0 and result['abs_rel'] == 0.0
    assert set(result['answers']) >= {'far', 'far_10', 'closer', 'point', 'absent', 'count'}
    assert all(value['right'] == 1.0 for value in result['answers'].values())


def test_a_distance_off_by_more_than_a_tenth_is_no_far_10(monkeypatch):
    oracle = Oracle(monkeypatch)
    ask = oracle.ask

    def say_too_far(*args):
        ask(*args)
        oracle.text = scaled(oracle.text, 1.15)
        return oracle
    oracle.ask = say_too_far
    answers = rooms.measure_rooms(oracle, 4, width_px=(80, 100))['answers']
    assert (answers['far']['right'], answers['far_10']['right']) == (1.0, 0.0)


def test_rooms_are_of_those_that_no_training_sees(monkeypatch):
    draw, drawn = rooms.Scene.random, []
    monkeypatch.setattr(rooms.Scene, 'random',
                        lambda *a, **k: drawn.append(draw(*a, **k)) or drawn[-1])
    rooms.measure_rooms(Oracle(monkeypatch), 2, width_px=(80, 100))
    rooms.measure_focal(Oracle(monkeypatch), 2, width=64, height=48)
    held_out, trained = ([draw(seed, split).room.size_m for seed in (0, 1)]
                         for split in ('held_out', 'train'))
    assert held_out != trained
    assert [scene.room.size_m for scene in drawn] == held_out * 2


def test_what_has_no_prediction_shows_in_the_coverage_alone(monkeypatch):
    oracle = Oracle(monkeypatch)
    seen = iter([np.nan, 1.0, 1.0, 1.0])
    look = oracle.look

    def look_away(rgb, camera):
        view = look(rgb, camera)
        view.depth_m = view.depth_m * next(seen)
        return view
    oracle.look = look_away
    result = rooms.measure_rooms(oracle, 4, width_px=(80, 100))
    assert (result['delta1'], result['coverage']) == (1.0, 0.75)


def test_a_wrong_focal_length_shows_as_its_factor(monkeypatch):
    result = rooms.measure_focal(Oracle(monkeypatch), 2, width=64, height=48)
    assert all(value == pytest.approx(1.0) for value in result['ratio'].values())
    assert (result['within_5_percent'], result['apart']) == (1.0, pytest.approx(0.0, abs=1e-6))
    assert result['wrong_fx'] == {'0.8': pytest.approx(0.8), '1.25': pytest.approx(1.25)}


def test_a_room_that_is_off_at_one_focal_length_does_not_agree(monkeypatch):
    factors = iter([1.0, 1.0, 1.04, 1.0, 1.0, 1.0, 1.0, 1.0, 0.9, 1.0, 1.0, 1.0])
    monkeypatch.setattr(rooms, 'ratio', lambda *_: next(factors))
    result = rooms.measure_focal(None, 2, width=64, height=48)
    assert result['within_5_percent'] == 0.5
    assert result['apart'] == pytest.approx((0.04 + 1 / 0.9 - 1) / 2)


def test_an_untrained_model_is_judged_poor(predictor):
    result = rooms.measure_rooms(predictor, 3, width_px=(80, 100), per_kind=1)
    assert result['delta1'] < 0.9
    assert result['answers']['far']['right'] < 0.5


def test_processes_share_out_the_rooms(tiny_checkpoint, predictor):
    shared = rooms.measure_in_processes(str(tiny_checkpoint), 2, range(7, 10))
    alone = rooms.summary(rooms.measure_room(predictor, seed) for seed in range(7, 10))
    assert shared['answers'] == alone['answers']
    assert shared['abs_rel'] == pytest.approx(alone['abs_rel'], rel=1e-5)


def test_the_last_line_is_json(tiny_checkpoint, capsys):
    rooms.main(['--model', str(tiny_checkpoint), '--rooms', '1', '--focal-rooms', '1'])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {'delta1', 'abs_rel', 'answers', 'focal', 'images_per_s', 'model',
            'commit', 'torch', 'device'} <= set(result)


def test_the_model_is_loaded_as_told(tiny_checkpoint, capsys):
    def run(*words):
        rooms.main(['--model', str(tiny_checkpoint), '--rooms', '1', '--focal-rooms', '1',
                    '--device', 'cpu', *words])
        return json.loads(capsys.readouterr().out.splitlines()[-1])
    coarsely = '--max-image-tokens', '6', '--dtype', 'bfloat16'
    plain, coarse, in_processes = run(), run(*coarsely), run(*coarsely, '--workers', '2')
    assert coarse['loading'] == {'dtype': 'bfloat16', 'quantise': '', 'max_image_tokens': 6}
    assert coarse['dtype'] == 'bfloat16' and plain['dtype'] == 'float32'
    assert in_processes['abs_rel'] == pytest.approx(coarse['abs_rel'], rel=1e-6)
    assert plain['abs_rel'] != pytest.approx(coarse['abs_rel'], rel=1e-5)   # untrained: little


def test_processes_on_the_cpu_and_a_gpu_do_not_go_together(capsys):
    with pytest.raises(SystemExit, match='2'):
        rooms.main(['--workers', '2', '--device', 'cuda', '--rooms', '1', '--focal-rooms', '1'])
    assert '--workers is 2, which is for the CPU, and --device cuda' in capsys.readouterr().err
