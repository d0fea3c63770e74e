# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0

import json

from depthvlm_ros.benchmark import ceilings, latency, published, released
from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.model import DepthVLM, Predictor
import numpy as np
import pytest
import torch

CAMERA = Intrinsics.centred(96, 72, 70.0)


@pytest.fixture(scope='module')
def predictor(tiny_checkpoint):
    return Predictor.from_pretrained(tiny_checkpoint, device='cpu')


@pytest.fixture(scope='module')
def rgb():
    return np.random.default_rng(0).integers(0, 256, (72, 96, 3), dtype=np.uint8)


def test_the_last_line_and_the_file_hold_every_figure(tiny_checkpoint, tmp_path, capsys):
    out = tmp_path / 'new' / 'latency.json'
    assert latency.main(['--model', str(tiny_checkpoint), '--device', 'cpu', '--repeats', '2',
                         '--sizes', '256x192', '256x192@200', '--questions', '1',
                         '--max-tokens', '4', '--out', str(out)]) == 0
    output = capsys.readouterr().out
    result = json.loads(output.splitlines()[-1])
    assert result == json.loads(out.read_text())
    assert {'commit', 'torch', 'transformers', 'device', 'dtype'} <= result.keys()
    assert result['ceilings']['flops'] > 0 and result['ceilings']['bytes_s'] > 0
    assert list(result['sizes']) == ['256x192', '256x192@200']
    for figures in result['sizes'].values():
        for way in ('released', 'ours'):
            assert 0 < figures[way]['p50_s'] <= figures[way]['p99_s']
            assert figures[way]['flops'] > 0 and figures[way]['images_s'] > 0
            assert figures[way]['peak_bytes'] is None       # there is no device to ask
        assert figures['ratio'] == pytest.approx(
            figures['ours']['p50_s'] / figures['released']['p50_s'])
        assert figures['depth_difference']['as_released'] < 1e-5
        assert figures['questions']['identical'] is True
    assert 'depth apart by' in output


def test_both_ways_see_the_same_depth(predictor, rgb):
    theirs = released.released_look(predictor, rgb, CAMERA)
    ours = latency.look_ours(predictor, rgb, CAMERA)
    assert latency.difference(ours, theirs) < 1e-6


def test_the_released_way_runs_the_output_layer_over_every_token(predictor, rgb):
    rows = []
    hook = predictor.model.lm_head.register_forward_hook(
        lambda _, args, out: rows.append(out.shape[1]))
    released.released_look(predictor, rgb, CAMERA)
    hook.remove()
    view = predictor.look(rgb, CAMERA)
    assert len(rows) == 1 and rows[0] > view.image_tokens


def test_the_float32_tail_explains_a_difference_in_bfloat16(tiny_checkpoint, rgb):
    predictor = Predictor.from_pretrained(tiny_checkpoint, device='cpu', dtype='bfloat16')
    ours = predictor.look(rgb, CAMERA).depth_m
    apart = [latency.difference(ours, released.released_look(predictor, rgb, CAMERA, tail))
             for tail in (False, True)]
    assert apart[1] < apart[0] < 0.05


def test_operations_are_counted_and_the_released_way_has_more(predictor, rgb):
    square = torch.ones(8, 8)
    assert ceilings.count_flops(lambda: square @ square) == 2 * 8**3
    query, key = torch.zeros(1, 4, 352, 64), torch.zeros(1, 2, 352, 64)
    assert ceilings.count_flops(lambda: torch.nn.functional.scaled_dot_product_attention(
        query, key, key, enable_gqa=True)) == 4 * 4 * 352**2 * 64
    counted = {way: ceilings.count_flops(lambda way=way: latency.LOOKS[way](
        predictor, rgb, CAMERA)) for way in ('released', 'ours')}
    assert counted['released'] > counted['ours'] > 0


def test_bytes_are_those_of_the_weights_and_the_cache(predictor):
    model = predictor.model
    none, some = (ceilings.bytes_of(model, tokens) for tokens in (0, 10))
    assert none['look'] < sum(weight.nbytes for weight in model.parameters())
    text = model.config.text_config
    assert some['token'] - none['token'] == (
        10 * 2 * 4 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim)


@pytest.mark.parametrize('size, parameters', [('4b', 4_472_961_729), ('8b', 8_806_598_065)])
def test_the_published_shapes_have_the_published_number_of_parameters(size, parameters):
    with torch.device('meta'):
        model = DepthVLM(published.published_config(size))
    assert sum(weight.numel() for weight in model.parameters()) == parameters


def test_random_weights_are_the_same_each_time_and_see_something(predictor, rgb):
    one, two = (published.random_predictor(
        predictor.config.__class__(**{**predictor.config.to_dict(), 'image_token_id': 534,
                                      'text_config': {**predictor.config.text_config.to_dict(),
                                                      'vocab_size': 640}}),
        'cpu', 'float32').look(rgb, CAMERA).depth_m for _ in range(2))
    assert np.isfinite(one).all() and one.std() > 0
    np.testing.assert_array_equal(one, two)


def test_a_model_that_is_not_there_is_said(capsys):
    assert latency.main(['--model', '/nowhere']) == 2
    assert '/nowhere' in capsys.readouterr().err


def test_an_unknown_size_is_refused():
    with pytest.raises(ValueError, match="size is '5b', wanted one of 4b, 8b"):
        published.published_config('5b')


@pytest.mark.parametrize('words', [['--repeats', '0'], ['--questions', '-1'], ['--sizes', '1x1']])
def test_impossible_requests_are_refused(words, capsys):
    with pytest.raises(SystemExit):
        latency.parsed(words)
    assert capsys.readouterr().err
