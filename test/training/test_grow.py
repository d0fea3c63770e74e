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
import torch


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
    tokens, _ = grown.encode_images(torch.randn(24, 1536), torch.tensor([[1, 4, 6]]))
    tokens.square().mean().backward()
    assert block.attn.proj.weight.grad.any() and block.mlp.linear_fc2.weight.grad.any()


def test_a_wider_tower_computes_nearly_the_same(tiny_checkpoint, tmp_path):
    grow.main(['--start', str(tiny_checkpoint), '--out', str(tmp_path), '--twice-as-wide', '160'])
    camera = Intrinsics.centred(96, 64, 60.0)
    rgb = Scene.random(0).render(camera).rgb
    before, after = (Predictor.from_pretrained(path, device='cpu')
                     for path in (tiny_checkpoint, tmp_path))
    vision, wide = before.config.vision_config, after.config.vision_config
    assert (wide.hidden_size, wide.intermediate_size) == (2 * vision.hidden_size, 160)
    assert wide.num_heads == vision.num_heads
    views = [predictor.look(rgb, camera) for predictor in (before, after)]
    np.testing.assert_allclose(views[1].depth_m, views[0].depth_m, rtol=0.05)


def test_without_noise_a_wider_tower_computes_the_same(model, monkeypatch):
    monkeypatch.setattr(grow, 'WRITTEN_NOISE', 0.0)
    monkeypatch.setattr(grow, 'READ_NOISE', 0.0)
    wide = grow.widen(model, 160)
    grid, patches = torch.tensor([[1, 4, 6]]), torch.randn(24, 1536)
    before, after = (m.encode_images(patches, grid) for m in (model, wide))
    torch.testing.assert_close(after[0], before[0], rtol=1e-4, atol=1e-4)
    for a, b in zip(after[1], before[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_all_of_a_wider_tower_can_learn_and_copies_part(model):
    wide = grow.widen(model, 160)
    tokens, features = wide.encode_images(torch.randn(24, 1536), torch.tensor([[1, 4, 6]]))
    (tokens.square().mean() + sum(feature.square().mean() for feature in features)).backward()
    hidden = model.config.vision_config.hidden_size
    proj = wide.model.visual.patch_embed.proj.weight.grad
    assert not torch.allclose(proj[:hidden], proj[hidden:], rtol=0.01)
    fc2 = wide.model.visual.blocks[0].mlp.linear_fc2.weight.grad
    assert fc2[:, model.config.vision_config.intermediate_size:].any()


def test_a_narrower_mlp_is_refused(model):
    with pytest.raises(ValueError, match='the MLP is to be 8 wide, wanted at least'):
        grow.widen(model, 8)


@pytest.mark.parametrize(('after', 'layers'), [([9], 0), ([1, 1], 0), ([], -1)])
def test_what_cannot_be_put_in_is_refused(model, after, layers):
    with pytest.raises(ValueError, match='wanted different blocks of 0 to'):
        grow.grow(model, after, layers)


def test_a_checkpoint_is_not_overwritten(tiny_checkpoint, tmp_path, capsys):
    (tmp_path / 'config.json').write_text('{}')
    with pytest.raises(SystemExit):
        grow.main(['--start', str(tiny_checkpoint), '--out', str(tmp_path), '--text', '1'])
    assert 'would be overwritten; wanted another folder' in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ['config.json']


def test_a_folder_that_cannot_be_written_is_said_in_a_line(tiny_checkpoint, tmp_path, capsys):
    (tmp_path / 'file').write_text('')
    with pytest.raises(SystemExit):
        grow.main(['--start', str(tiny_checkpoint), '--out', str(tmp_path / 'file/model'),
                   '--text', '1'])
    assert 'file/model' in capsys.readouterr().err.splitlines()[-1]
