# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0

import copy
import json

from depthvlm_ros.benchmark import memory
from depthvlm_ros.benchmark.published import build, published_config, random_predictor
from depthvlm_ros.model import checkpoint, DepthVLMConfig, Predictor
from depthvlm_ros.model.preprocessing import plan_resize
import numpy as np
import pytest
import torch
import torch.nn.functional as F

TINY = {
    'canonical_fx': 128.0, 'min_pixels': 4096, 'max_pixels': 65536, 'intermediate_multiple': 1,
    'depth_head_features': 8, 'depth_head_channels': [8, 8, 8, 8], 'tie_word_embeddings': True,
    'image_token_id': 534,      # the embedded tokenizer's
    'text_config': {
        'hidden_size': 32, 'intermediate_size': 64, 'num_hidden_layers': 3, 'vocab_size': 640,
        'num_attention_heads': 2, 'num_key_value_heads': 1, 'head_dim': 16,
        'rope_parameters': {'rope_type': 'default', 'rope_theta': 10000.0,
                            'mrope_section': [4, 2, 2], 'mrope_interleaved': True}},
    'vision_config': {
        'depth': 4, 'hidden_size': 32, 'intermediate_size': 64, 'num_heads': 2,
        'out_hidden_size': 32, 'num_position_embeddings': 64,
        'deepstack_visual_indexes': [0, 1, 2]}}
PARAMETERS_4B = 4_472_961_729       # the released checkpoint's


@pytest.fixture(scope='module')
def predictor(tiny_checkpoint):
    return Predictor.from_pretrained(tiny_checkpoint, device='cpu', dtype='float32')


@pytest.fixture(scope='module')
def meta_4b():
    return build(published_config('4b'), 'meta', torch.bfloat16)


def test_what_is_alive_is_counted_once_and_forgotten_with_its_last_view():
    known = torch.empty(1000)
    with memory.Alive([known]) as alive:
        a = torch.ones(100)
        view = a[10:]
        known.reshape(10, 100)
        assert alive.now == 400
        b = a + 1
        assert (alive.now, alive.most) == (800, 800)
        del a, b
        assert alive.now == 400
        assert alive.lap() == 800
        del view
        assert (alive.now, alive.most) == (0, 400)


def test_attention_keeps_no_scores():
    query, key = torch.empty(1, 2, 500, 8), torch.empty(1, 2, 500, 8)
    with memory.FusedAttention(), memory.Alive() as alive:
        out = F.scaled_dot_product_attention(query, key, value=key)
    assert out.shape == query.shape
    assert alive.most == query.nbytes


@pytest.mark.parametrize('tokens, grid', [(300, (15, 20)), (1344, (32, 42)), (1, (1, 1))])
def test_grids_of_so_many_tokens(tokens, grid):
    assert memory.grid_of(tokens) == grid


def test_weights_of_the_4b_are_those_released(meta_4b):
    needs = {kind: memory.need(meta_4b, kind, {'head': 0, 'vision': 0, 'language': 0}, 300)
             for kind in memory.WEIGHTS[1:]}
    assert needs['bfloat16']['weights'] * memory.GIB == 2 * PARAMETERS_4B
    assert needs['bfloat16']['fits'] == 16
    assert needs['int4']['weights'] < needs['int8']['weights'] < needs['bfloat16']['weights']
    assert needs['int8']['fits'] == needs['int4']['fits'] == 8


def test_what_fits_no_card_is_told(meta_4b):
    peaks = {'head': 0, 'vision': 30 * memory.GIB, 'language': 0}
    assert memory.need(meta_4b, 'bfloat16', peaks, 300)['fits'] is None


def test_the_cache_is_as_large_as_a_looks(predictor):
    camera = memory.MEASURED_CAMERA
    view = predictor.look(np.zeros((camera.height, camera.width, 3), np.uint8), camera)
    layers = view.cache.layers
    real = sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)
    assert memory.cache_bytes(predictor.config, layers[0].keys.shape[2], torch.float32) == real


@pytest.mark.parametrize('stage, fields', [
    ('vision', {'vision_config': {'intermediate_size': 16384}}),
    ('language', {'text_config': {'intermediate_size': 32768}}),
    ('head', {'depth_head_features': 64})])
def test_each_stages_peak_is_what_a_look_allocates(stage, fields):
    config = copy.deepcopy(TINY)
    for key, value in fields.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) else value
    config = DepthVLMConfig(**config)
    model = random_predictor(config, 'cpu', 'float32')
    camera = memory.MEASURED_CAMERA
    rgb = np.zeros((camera.height, camera.width, 3), np.uint8)
    model.look(rgb, camera)
    measured = memory.cpu_peak(lambda: model.look(rgb, camera))
    peaks = memory.stage_peaks(build(config, 'meta', torch.float32),
                               plan_resize(camera, config), camera)
    assert max(peaks, key=peaks.get) == stage
    assert measured == pytest.approx(peaks[stage], rel=0.15)


def test_the_last_line_is_json_with_every_figure(tiny_checkpoint, capsys):
    assert memory.main(['--models', str(tiny_checkpoint), '--tokens', '12', '9999', '--device',
                        'cpu', '--measure', str(tiny_checkpoint)]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    most = checkpoint.read_config(tiny_checkpoint).max_pixels // 1024
    assert [(row['dtype'], row['tokens']) for row in result['needs']] == [
        (kind, count) for kind in memory.WEIGHTS for count in (12, most - 1)]
    for row in result['needs']:
        assert row['total'] > row['weights'] > 0
    found, = result['measured']
    assert found['weights']['ratio'] == 1.0
    assert 0.8 < found['peak']['ratio'] < 1.2


def test_a_model_that_is_not_there_is_told(tmp_path, capsys):
    assert memory.main(['--models', str(tmp_path / 'nothing'), '--measure']) == 2
    assert 'no such folder' in capsys.readouterr().err


def test_no_tokens_are_refused(capsys):
    with pytest.raises(SystemExit):
        memory.parsed(['--tokens', '0'])
    assert 'wanted' in capsys.readouterr().err
