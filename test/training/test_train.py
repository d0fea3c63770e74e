# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0

from dataclasses import replace

from depthvlm_ros.model import Predictor
from depthvlm_ros.training.config import TrainingConfig
from depthvlm_ros.training.rooms import NAMED_COLOURS, NAMED_KINDS, RoomBatches
from depthvlm_ros.training.train import (
    build,
    losses,
    Naming,
    optimiser_of,
    prefix_positions,
    rate_at,
    run,
    STATE,
)
import pytest
import torch


@pytest.fixture(scope='module')
def built(tiny_training):
    return build(tiny_training, rooms=20)


@pytest.fixture(scope='module')
def batches(tiny_training, built):
    model, tokenizer, prompt = built
    return RoomBatches(tiny_training, model.config, tokenizer, prompt,
                       prefix_positions(model.config))


def test_a_batch_belongs_together(batches, built, tiny_training):
    batch = batches[3]
    size = tuple(int(n) * 16 for n in batch.grid_thw[0, 1:])
    tokens = size[0] * size[1] // 32 ** 2
    assert batch.depth_m.shape == (2, *size)
    assert (batch.depth_m > 0).all()
    assert batch.colours.shape == batch.kinds.shape == (2, tokens)
    assert (batch.packed.input_ids == built[0].config.image_token_id).sum() == 2 * tokens
    assert batch.kinds.max() < len(NAMED_KINDS) and batch.colours.max() < len(NAMED_COLOURS)


def test_a_steps_batch_is_always_the_same(batches):
    one, other = batches[2], batches[2]
    assert torch.equal(one.pixel_values, other.pixel_values)
    assert torch.equal(one.packed.input_ids, other.packed.input_ids)
    assert not torch.equal(one.depth_m.mean(), batches[1].depth_m.mean())


def test_the_rate_rises_stays_and_falls():
    training = TrainingConfig(model={}, steps=100, warm_up=10, decay=0.2)
    rates = [rate_at(step, training) for step in range(100)]
    assert rates[0] == 0.1 and rates[10:80] == [1.0] * 70
    assert rates[90] == pytest.approx(0.5) and rates[99] == pytest.approx(0.05)


@pytest.mark.slow
def test_one_batch_can_be_learnt_by_heart(batches, built, tiny_training):
    training = replace(tiny_training, learning_rate=5e-3)
    model, tokenizer, prompt = build(training, rooms=20)
    naming = Naming(32)
    optimiser = optimiser_of((model, naming), training)
    batch = batches[0]
    first = None
    for _ in range(60):
        parts = losses(model, naming, batch, training, torch.device('cpu'))
        optimiser.zero_grad()
        parts['total'].backward()
        optimiser.step()
        first = first or parts
    assert parts['language'] < 0.5 * first['language']
    assert parts['depth'] < 0.7 * first['depth']


@pytest.mark.slow
def test_a_stopped_run_goes_on_exactly(tiny_training, tmp_path):
    options = {'workers': 0, 'save_every': 100}
    run(tiny_training, tmp_path / 'whole', **options)
    run(tiny_training, tmp_path / 'parts', stop_at=2, **options)
    assert torch.load(tmp_path / 'parts' / STATE)['step'] == 2
    run(tiny_training, tmp_path / 'parts', **options)
    whole, parts = (torch.load(tmp_path / n / STATE) for n in ('whole', 'parts'))
    assert whole['step'] == parts['step'] == 4
    for key, value in whole['model'].items():
        assert torch.equal(value, parts['model'][key]), key
    predictor = Predictor.from_pretrained(tmp_path / 'parts', device='cpu')
    assert predictor.config.canonical_fx == 64.0


def test_an_unknown_key_is_refused(tmp_path):
    path = tmp_path / 'x.yaml'
    path.write_text('model: {}\nstep: 3\n')
    with pytest.raises(ValueError, match=r"x.yaml: does not know \['step'\]"):
        TrainingConfig.load(path)
    with pytest.raises(ValueError, match=r"config 'none': no such file, wanted a .yaml or one of"):
        TrainingConfig.load('none')
    with pytest.raises(ValueError, match='steps is 0, wanted >= 1'):
        TrainingConfig(model={}, steps=0)
