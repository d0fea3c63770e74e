# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0

import importlib.util
import json
import sys
from types import SimpleNamespace

from depthvlm_ros.benchmark import one_prefill, questions
from depthvlm_ros.model import Predictor
from depthvlm_ros.model.preprocessing import plan_resize
from depthvlm_ros.nodes import question_load
import numpy as np
import pytest

KEYS = {'ratio', 'identical', 'rate_ratio', 'p99_ratio'}


@pytest.fixture(scope='module')
def predictor(tiny_checkpoint):
    return Predictor.from_pretrained(tiny_checkpoint, device='cpu', dtype='float32')


def test_both_ways_give_the_same_answers(predictor):
    result = one_prefill.measure_one_prefill(predictor, questions=2, rounds=2, max_tokens=6)
    assert result['identical'] is True
    assert result['tokens'] > 0
    assert result['ratio'] > result['words_ratio'] > 0
    assert 0 < result['words_s'] < result['full_s']
    assert result['ratio'] == pytest.approx(result['full_s'] / result['ours_s'])


def test_metres_of_a_bounded_image_are_the_same_both_ways(predictor, monkeypatch):
    monkeypatch.setattr(predictor.config, 'canonical_words', True)
    monkeypatch.setattr(predictor, 'max_image_tokens', 2)
    monkeypatch.setattr(predictor.tokenizer, 'decode', lambda *_, **__: '2.00 m.')
    rgb, asked = one_prefill.room_questions(1)
    ((ours, _),), _ = one_prefill.ask_ours(predictor, rgb, asked, 2)
    ((full, _),), _ = one_prefill.ask_full(predictor, rgb, asked, 2)
    scale = predictor.plan(one_prefill.CAMERA).depth_scale
    assert ours == full == f'{2 * scale:.2f} m.' != '2.00 m.'


def test_an_answer_that_differs_is_told(predictor, monkeypatch):
    generate = one_prefill.generate
    monkeypatch.setattr(one_prefill, 'generate', lambda *args: (
        generate(*args)[0] + '.', generate(*args)[1]))
    result = one_prefill.measure_one_prefill(predictor, questions=1, rounds=1, max_tokens=3)
    assert result['identical'] is False


def test_a_full_pass_sees_the_depth_that_a_look_sees(predictor):
    rgb, (question,) = one_prefill.room_questions(1)
    depth_m = one_prefill.depth_pass(predictor, rgb, question)
    assert depth_m.ndim == 2
    scale = plan_resize(one_prefill.CAMERA, predictor.config, 0).depth_scale
    looked_m = predictor.look(rgb, one_prefill.CAMERA).depth_m
    assert np.median(depth_m) * scale == pytest.approx(np.median(looked_m), rel=0.01)


def test_a_full_pass_encodes_the_image_twice_a_question_and_ours_once_in_all(predictor):
    rgb, asked = one_prefill.room_questions(3)
    passes = []
    hook = predictor.model.model.visual.register_forward_hook(lambda *_: passes.append(1))
    one_prefill.ask_ours(predictor, rgb, asked, 2)
    assert len(passes) == 1
    one_prefill.ask_full(predictor, rgb, asked, 2)
    hook.remove()
    assert len(passes) == 1 + 2 * 3


def test_the_questions_are_different_and_of_several_kinds():
    rgb, asked = one_prefill.room_questions(10)
    assert rgb.shape == (480, 640, 3)
    assert len(set(asked)) == 10
    assert len({question.split()[0] for question in asked}) > 3


def without_ros(monkeypatch):
    """Make rclpy look as if it were not installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name, *args: (
        None if name == 'rclpy' else find(name, *args)))


def test_a_model_that_is_not_there_is_said(capsys):
    assert questions.main(['--model', '/nowhere']) == 2
    assert '/nowhere' in capsys.readouterr().err


def test_without_ros_its_half_is_left_out_and_that_is_said(tiny_checkpoint, monkeypatch, capsys):
    without_ros(monkeypatch)
    assert questions.main(['--model', str(tiny_checkpoint), '--device', 'cpu', '--questions', '2',
                           '--rounds', '1']) == 0
    lines = capsys.readouterr().out.splitlines()
    result = json.loads(lines[-1])
    assert set(result) >= KEYS
    assert result['identical'] is True
    assert result['rate_ratio'] is result['p99_ratio'] is None
    assert any('no rclpy here' in line for line in lines[:-1])


@pytest.mark.ros
def test_a_stream_that_cannot_be_measured_is_told_and_fails(tmp_path):
    pytest.importorskip('rclpy')
    options = questions.parsed(['--model', str(tmp_path / 'nothing'), '--device', 'cpu'])
    with pytest.raises(questions.LoadError, match='ended with 1'):
        questions.measure_stream(options)


@pytest.mark.slow
@pytest.mark.ros
def test_the_last_line_is_json_with_every_figure(tiny_checkpoint, capfd):
    pytest.importorskip('rclpy')
    code = questions.main([
        '--model', str(tiny_checkpoint), '--device', 'cpu', '--questions', '2', '--rounds', '1',
        '--window', '2', '--stream-rounds', '1'])
    output, progress = capfd.readouterr()
    assert code == 0, progress
    result = json.loads(output.splitlines()[-1])
    assert set(result) >= KEYS
    assert result['identical'] is True
    for key in KEYS - {'identical'}:
        assert result[key] > 0
    assert result['image_hz'] > 0
    assert result['alone']['images'] > 0 and result['answering']['images'] > 0
    assert result['answers'] > 0 and result['answer_tokens'] > 0
    assert result['tokens_per_s'] >= 0
    assert 'round 1 of 1' in progress


def test_depth_that_comes_long_after_its_image_ends_the_waiting():
    published = []

    def watch(*_, **__):
        published.append(1)
        assert len(published) < 5, 'depth has come, and was not seen'
    rig = SimpleNamespace(watch=watch, has_depth=lambda: len(published) >= 2,
                          failed_transition='')
    question_load.Experiment(rig, SimpleNamespace(exit_code=None), 1.0)._wait_for_depth()
    assert len(published) == 2


@pytest.mark.parametrize('words', [
    ['--questions', '0'], ['--rounds', '0'], ['--stream-rounds', '-1'], ['--window', 'nan']])
def test_impossible_sizes_are_refused(words, capsys):
    with pytest.raises(SystemExit):
        questions.parsed(words)
    assert 'wanted' in capsys.readouterr().err


def test_a_process_that_does_not_listen_is_killed(monkeypatch):
    monkeypatch.setattr(questions, 'ENDING_S', 0.5)
    deaf = ('import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); '
            'print("deaf", flush=True); time.sleep(60)')
    child = questions.subprocess.Popen(
        [sys.executable, '-c', deaf], stdout=questions.subprocess.PIPE, text=True)
    assert child.stdout.readline() == 'deaf\n'
    questions.end(child)
    assert child.returncode == -questions.signal.SIGKILL
    child.stdout.close()
