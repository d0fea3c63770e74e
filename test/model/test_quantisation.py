# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0

import copy
import sys

from depthvlm_ros.benchmark.published import build
from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.model import checkpoint, Predictor
from depthvlm_ros.model.quantisation import (
    GROUP,
    is_quantised,
    packed_bytes,
    QuantisationError,
    quantise,
    stored_bytes,
)
from depthvlm_ros.synthetic import Scene
import numpy as np
import pytest
import torch
from torch import nn

CAMERA = Intrinsics.centred(256, 192, 210.0)


@pytest.fixture(scope='module')
def config():
    return checkpoint.read_config(checkpoint.locate('nano'))


@pytest.fixture
def meta(config):
    return build(config, 'meta', torch.float32)


def test_a_model_is_built_in_what_is_asked_for_whatever_its_weights_are_stored_in(config):
    stored = copy.deepcopy(config)
    stored.dtype = stored.text_config.dtype = stored.vision_config.dtype = torch.float16
    built = build(stored, 'meta', torch.float32)
    assert {weight.dtype for weight in built.parameters()} == {torch.float32}
    assert stored.text_config.dtype == torch.float16


def quantised(model, kind):
    return {name: module for name, module in model.named_modules()
            if is_quantised(module, name, kind)}


def test_linear_layers_of_both_towers_and_no_others_are_quantised(meta):
    names = set(quantised(meta, 'int8'))
    assert 'model.language_model.layers.0.mlp.up_proj' in names
    assert 'model.visual.blocks.0.attn.qkv' in names
    others = {name for name, module in meta.named_modules()
              if isinstance(module, nn.Linear)} - names
    assert others == {'lm_head'}
    assert not any(name.startswith('depth_head') for name in names)


def test_int4_leaves_out_rows_that_its_groups_do_not_fill():
    odd = nn.Linear(GROUP + 16, 4)
    assert is_quantised(odd, 'model.visual.odd', 'int8')
    assert not is_quantised(odd, 'model.visual.odd', 'int4')


def test_packed_sizes_follow_from_the_layers(meta):
    whole = sum(weight.numel() for weight in meta.parameters()) * 4
    assert packed_bytes(meta) == stored_bytes(meta) == whole
    layers = quantised(meta, 'int8').values()
    weights, rows = (sum(x) for x in zip(*((m.weight.numel(), m.out_features) for m in layers)))
    assert packed_bytes(meta, 'int8') == whole - 3 * weights + 4 * rows
    # torchao fills rows up to 1024 and columns to 8 on a GPU.
    filled = sum(-(-m.in_features // 1024) * 1024 * -(-m.out_features // 8) * 8 for m in layers)
    assert packed_bytes(meta, 'int4') == whole - 4 * weights + filled // 2 + 8 * filled // GROUP


def test_another_kind_is_refused(meta):
    with pytest.raises(ValueError, match="'int3', wanted one of int8, int4"):
        quantise(meta, 'int3')


def test_without_torchao_it_is_said_what_to_install(meta, monkeypatch):
    monkeypatch.setitem(sys.modules, 'torchao', None)
    with pytest.raises(QuantisationError, match='pip install torchao'):
        quantise(meta, 'int8')


def test_int4_on_a_gpu_wants_bfloat16(meta):
    with pytest.raises(QuantisationError, match='bfloat16, the model is torch.float32'):
        quantise(meta, 'int4', 'cuda')


@pytest.mark.parametrize('kind, most', [('int8', 0.005), ('int4', 0.05)])
def test_depth_and_words_stay_and_the_weights_shrink(kind, most):
    pytest.importorskip('torchao')
    rgb = Scene.random(7).render(CAMERA).rgb
    predictor = Predictor.from_pretrained('nano', device='cpu')
    before_m = predictor.look(rgb, CAMERA).depth_m
    predictor = Predictor.from_pretrained('nano', device='cpu')
    head = {key: value.clone() for key, value in predictor.model.depth_head.state_dict().items()}
    expected = packed_bytes(predictor.model, 'int8')    # on a CPU int4 takes a byte too
    assert quantise(predictor.model, kind) is predictor.model
    after_m = predictor.look(rgb, CAMERA)
    assert 0 < np.abs(after_m.depth_m / before_m - 1).mean() < most
    assert ' m' in predictor.ask(after_m, 'What is at [500, 500]?', 24).text
    assert stored_bytes(predictor.model) == pytest.approx(expected, rel=0.05)
    assert all(torch.equal(value, head[key])
               for key, value in predictor.model.depth_head.state_dict().items())
