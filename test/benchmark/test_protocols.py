# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import json

from depthvlm_ros.benchmark import protocols
from depthvlm_ros.model import Predictor
from depthvlm_ros.synthetic.questions import pixel_at
import numpy as np
import pytest
import torch


@pytest.fixture(scope='module')
def predictor(tiny_checkpoint):
    return Predictor.from_pretrained(tiny_checkpoint, device='cpu', dtype='float32')


@pytest.fixture(scope='module')
def sampled():
    return protocols.sample_rooms(rooms=2, pixels=5)


def test_every_pixel_can_be_named(sampled):
    frame, _ = sampled[0]
    for u, v in [(0, 0), (255, 191), (17, 101), (128, 96)]:
        x, y = json.loads('[' + protocols.pixel_question(u, v, protocols.CAMERA).split('[')[1]
                          .split(']')[0] + ']')
        assert pixel_at(frame, x, y) == (u, v)


def test_the_pixels_are_shared_by_the_rooms_and_known_there(sampled):
    assert [len(places) for _, places in sampled] == [3, 2]
    for frame, places in sampled:
        assert all(np.isfinite(frame.depth_m[v, u]) for u, v in places)


def test_an_image_read_for_words_gives_the_words_of_a_look(predictor, sampled):
    rgb = sampled[0][0].rgb
    question = protocols.pixel_question(100, 100, protocols.CAMERA)
    read = protocols.read_image(predictor, rgb, protocols.CAMERA)
    looked = predictor.look(rgb, protocols.CAMERA)
    assert np.isnan(read.depth_m).all()
    assert (read.next_position, read.image_tokens) == (looked.next_position, looked.image_tokens)
    assert predictor.ask(read, question, 6).text == predictor.ask(looked, question, 6).text


def test_metres_are_read_as_a_look_gives_them(predictor, sampled, monkeypatch):
    monkeypatch.setattr(predictor.config, 'canonical_words', True)
    monkeypatch.setattr(predictor, 'max_image_tokens', 2)
    read, looked = (see(predictor, sampled[0][0].rgb, protocols.CAMERA)
                    for see in (protocols.read_image, Predictor.look))
    assert read.words_scale == looked.words_scale != 1


def test_the_image_is_encoded_anew_for_each_pixel_or_once_for_all(predictor, sampled, monkeypatch):
    monkeypatch.setattr(protocols, 'MOST_PIXEL_TOKENS', 2)
    passes = []
    hook = predictor.model.model.visual.register_forward_hook(lambda *_: passes.append(1))
    spent_s, depths_m = protocols.measure_pixels(predictor, sampled, shared_pass=False)
    assert len(passes) == 5
    protocols.measure_pixels(predictor, sampled, shared_pass=True)
    hook.remove()
    assert len(passes) == 5 + 2
    assert spent_s.shape == (5, 2) and len(depths_m) == 5


def test_a_model_that_stops_at_once_is_made_to_write_the_whole_grid(predictor, sampled):
    prompt = predictor.prompt
    everything = frozenset(range(predictor.config.text_config.vocab_size))
    predictor.prompt = dataclasses.replace(prompt, stops=everything)
    try:
        cells_s, text_s, grid = protocols.measure_grid(predictor, sampled[0][0], 4, 3)
    finally:
        predictor.prompt = prompt
    assert grid['cells'] == 12
    assert grid['ended_after'] == 0
    assert grid['text_tokens'] > 12     # a number with two decimals takes several
    assert (cells_s[0] > 0) and (cells_s <= text_s).all()


def test_the_grids_answer_holds_the_cells_centres():
    depth_m = np.arange(48.0).reshape(6, 8)
    assert protocols.grid_answer(depth_m, 4, 3) == (
        '9.00 11.00 13.00 15.00\n25.00 27.00 29.00 31.00\n41.00 43.00 45.00 47.00')


def test_true_words_are_right_and_silent_ones_counted(sampled):
    truth_m = [frame.depth_m for frame, _ in sampled]
    words_m = np.array([depth_m[v, u] for depth_m, (_, places) in zip(truth_m, sampled)
                        for u, v in places])
    words_m[0] = np.nan
    figures = protocols.accuracy(words_m, [2 * depth_m for depth_m in truth_m], sampled)
    assert figures['words'] == {'delta1': 1.0, 'abs_rel': 0.0, 'read': 0.8}
    assert figures['head'] == figures['head_dense'] == {'delta1': 0.0, 'abs_rel': 1.0}


def test_the_last_line_is_json_with_every_figure(tiny_checkpoint, capsys, monkeypatch):
    monkeypatch.setattr(protocols, 'MOST_PIXEL_TOKENS', 3)
    assert protocols.main(['--model', str(tiny_checkpoint), '--device', 'cpu', '--pixels', '3',
                           '--rooms', '1', '--grid', '4x3']) == 0
    lines = capsys.readouterr().out.splitlines()
    result = json.loads(lines[-1])
    assert result['pixels_scaled_to'] == 256 * 192
    for ratios in ('ratios', 'cpu_ratios'):
        assert result[ratios]['head'] == 1.0
        assert all(ratio > 0 for ratio in result[ratios].values())
    assert set(result['times_s']) == set(result['ratios']) == set(result['cpu_s'])
    assert result['threads'] == torch.get_num_threads()
    assert any('3 timed, scaled' in line for line in lines)
    assert any('does not know the grid' in line for line in lines)


def test_times_are_scaled_to_a_whole_image_and_held_against_one_pass(
        predictor, sampled, monkeypatch):
    whole = protocols.CAMERA.width * protocols.CAMERA.height
    depths_m, maps_m = np.ones(5), [frame.depth_m for frame, _ in sampled]
    monkeypatch.setattr(protocols, 'sample_rooms', lambda *_: sampled)
    monkeypatch.setattr(protocols, 'measure_pixels', lambda *_, shared_pass: (
        np.full((5, 2), [0.2, 0.4] if shared_pass else [2.0, 4.0]), depths_m))
    monkeypatch.setattr(protocols, 'measure_grid', lambda *_: ((3.0, 6.0), (5.0, 8.0), {}))
    monkeypatch.setattr(protocols, 'measure_head', lambda *_: (np.full((4, 2), [0.5, 0.8]),
                                                               maps_m))
    result = protocols.measure_protocols(predictor, 5, 2, 4, 3)
    assert result['times_s'] == pytest.approx({
        'pixel_questions': 2.0 * whole, 'pixel_questions_shared': 0.2 * whole,
        'grid_one_token_a_cell': 3.0, 'grid_as_text': 5.0, 'head': 0.5})
    assert result['ratios'] == pytest.approx({
        'pixel_questions': 4.0 * whole, 'pixel_questions_shared': 0.4 * whole,
        'grid_one_token_a_cell': 6.0, 'grid_as_text': 10.0, 'head': 1.0})
    assert result['cpu_ratios']['pixel_questions'] == pytest.approx(5.0 * whole)
    assert result['answers_identical'] is True


def test_a_model_that_is_not_there_is_told(tmp_path, capsys):
    assert protocols.main(['--model', str(tmp_path / 'nothing')]) == 2
    assert 'no such folder' in capsys.readouterr().err


@pytest.mark.parametrize('words', [
    ['--grid', '16'], ['--grid', '0x3'], ['--pixels', '0'], ['--pixels', '2', '--rooms', '3']])
def test_impossible_sizes_are_refused(words, capsys):
    with pytest.raises(SystemExit):
        protocols.parsed(words)
    assert 'wanted' in capsys.readouterr().err
