# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0

from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.model import Predictor
from depthvlm_ros.synthetic import Scene
from depthvlm_ros.training import grow
from depthvlm_ros.training.config import TrainingConfig
from depthvlm_ros.training.start import load_start
import numpy as np
import pytest


@pytest.fixture
def model(tiny_checkpoint):
    return load_start(TrainingConfig(start=str(tiny_checkpoint)))[0]


def test_a_deeper_model_computes_the_same_and_can_be_loaded(tiny_checkpoint, tmp_path):
    grow.main(['--start', str(tiny_checkpoint), '--out', str(tmp_path), '--vision-after', '0', '2',
               '--text', '1'])
    camera = Intrinsics.centred(96, 64, 60.0)
    rgb = Scene.random(0).render(camera).rgb
    before = Predictor.from_pretrained(tiny_checkpoint, device='cpu')
    after = Predictor.from_pretrained(tmp_path, device='cpu')
    assert after.config.vision_config.depth == before.config.vision_config.depth + 2
    assert (after.config.text_config.num_hidden_layers
            == before.config.text_config.num_hidden_layers + 1)
    views = [predictor.look(rgb, camera) for predictor in (before, after)]
    np.testing.assert_allclose(views[1].depth_m, views[0].depth_m, rtol=1e-5)
    said = [p.ask(v, 'How far?', 8).text for p, v in zip((before, after), views)]
    assert said[0] == said[1]


def test_the_new_blocks_can_learn(model):
    grown = grow.grow(model, [1], 1)
    block = grown.model.visual.blocks[2]
    assert not block.attn.proj.weight.any() and block.attn.qkv.weight.any()
    assert not grown.model.language_model.layers[-1].mlp.down_proj.weight.any()


@pytest.mark.parametrize(('after', 'layers'), [([9], 0), ([1, 1], 0), ([], -1)])
def test_what_cannot_be_put_in_is_refused(model, after, layers):
    with pytest.raises(ValueError, match='wanted different blocks of 0 to'):
        grow.grow(model, after, layers)
