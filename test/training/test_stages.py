# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0

from dataclasses import replace

from depthvlm_ros.training.config import TrainingConfig
from depthvlm_ros.training.mixture import open_source
from depthvlm_ros.training.samples import Encoder
from depthvlm_ros.training.stages import optimisers_of, rate_at
from depthvlm_ros.training.start import build
from depthvlm_ros.training.train import open_accelerator, prepare_learner, train_step
import pytest
import torch

accelerate = pytest.importorskip('accelerate', reason='training needs requirements-training.txt')

NEEDS_MUON = pytest.mark.skipif(not hasattr(torch.optim, 'Muon'),
                                reason='this torch has no Muon, which came with 2.9')

GROUPS = ('model.visual', 'model.language_model', 'lm_head', 'depth_head')


def a_step(training):
    """Return the model and all that train_step takes to make one step over rooms."""
    accelerator = open_accelerator('cpu')
    model, tokenizer, prompt = build(training)
    encoder = Encoder(model.config, tokenizer, prompt)
    rooms = open_source(training.sources[0], '.', encoder, training)
    batch = encoder.collate([(rooms.sample(i), []) for i in range(2)])
    learner = prepare_learner(model, training, accelerator)
    learner, *optimisers = accelerator.prepare(learner, *optimisers_of(learner, training))
    return model, (accelerator, learner, optimisers, [batch], training.clip)


def moved_by_a_step(training):
    """Return the names of all parameters, of those that a step moved, and of those it may."""
    model, step = a_step(training)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    train_step(*step)
    moved = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    may = {k for k, v in model.named_parameters(remove_duplicate=False) if v.requires_grad}
    return set(before), moved, may


@pytest.mark.parametrize(('stage', 'thaw', 'trained'), [
    (1, False, {'depth_head'}),
    (2, False, {'model.language_model', 'lm_head', 'depth_head'}),
    (2, True, set(GROUPS))])
def test_a_stage_moves_its_parameters_and_no_others(tiny_training, stage, thaw, trained):
    untied = {**tiny_training.model, 'tie_word_embeddings': False}
    names, moved, may = moved_by_a_step(replace(
        tiny_training, model=untied, stage=stage, thaw_vision=thaw, naming_weight=0.0,
        learning_rate=1e-2, weight_decay=0.1))
    assert {g for g in GROUPS if any(n.startswith(g) for n in moved)} == trained
    # All of a trained group moves but what no gradient reaches in two images.
    belonging = {n for n in names if n.startswith(tuple(trained))}
    assert len(moved) > 0.9 * len(belonging)
    assert moved <= belonging == may


def test_thawing_vision_in_stage_1_is_refused():
    with pytest.raises(ValueError, match='thaw_vision is true in stage 1, wanted stage 2'):
        TrainingConfig(stage=1, thaw_vision=True)


def test_a_trapezoid_rises_stays_and_falls():
    training = TrainingConfig(schedule='trapezoid', learning_rate=2.0, warm_up=10, decay=0.2)
    rates = [rate_at(step, 100, training) / 2 for step in range(100)]
    assert rates[0] == 0.1 and rates[10:80] == [1.0] * 70
    assert rates[90] == pytest.approx(0.5) and rates[99] == pytest.approx(0.05)


def test_a_cosine_warms_up_for_its_share_and_ends_at_zero():
    training = TrainingConfig(schedule='cosine', learning_rate=1.0, warm_up=0.04)
    rates = [rate_at(step, 100, training) for step in range(101)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert rates[52] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.0)
    assert all(a > b for a, b in zip(rates[4:], rates[5:]))


@NEEDS_MUON
def test_muon_takes_the_layers_matrices_and_adamw_the_rest(tiny_training):
    training = replace(tiny_training, optimiser='muon')
    model = build(training)[0]
    adamw, muon = optimisers_of(model, training)
    names = {id(p): name for name, p in model.named_parameters()}
    of = [{names[id(p)] for group in optimiser.param_groups for p in group['params']}
          for optimiser in (adamw, muon)]
    assert of[0] | of[1] == set(names.values()) and not of[0] & of[1]
    assert 'model.language_model.layers.0.self_attn.q_proj.weight' in of[1]
    assert 'model.visual.blocks.0.mlp.linear_fc1.weight' in of[1]
    for first_or_last in ('model.language_model.embed_tokens.weight', 'depth_head.norm.weight',
                          'model.visual.merger.linear_fc1.weight',
                          'model.visual.pos_embed.weight', 'model.visual.patch_embed.proj.weight'):
        assert first_or_last in of[0]


@pytest.mark.parametrize('optimiser', ['adamw', pytest.param('muon', marks=NEEDS_MUON)])
def test_what_an_optimiser_is_told_of_the_training(tiny_training, optimiser):
    training = replace(tiny_training, optimiser=optimiser, weight_decay=0.07, betas=(0.8, 0.95),
                       learning_rate=3e-3)
    for one in optimisers_of(build(training)[0], training):
        for group in one.param_groups:
            matrices = {p.ndim >= 2 for p in group['params']}
            assert matrices == {group['weight_decay'] == 0.07}
            assert group['weight_decay'] in (0.07, 0.0) and group['lr'] == 3e-3
            assert group.get('betas', training.betas) == training.betas


def test_gradients_are_clipped_to_the_norm_that_is_told(tiny_training):
    _, (*step, _) = a_step(tiny_training)
    optimiser, norms = step[2][0], []
    take = optimiser.step

    def look_first():
        norms.append(torch.nn.utils.get_total_norm(
            [p.grad for group in optimiser.param_groups for p in group['params']
             if p.grad is not None]))
        take()
    optimiser.step = look_first
    told = train_step(*step, 1e-3)[2]
    assert told > 1e-2 and float(norms[0]) == pytest.approx(1e-3, rel=1e-3)


def test_muon_is_refused_where_weights_are_sharded(tiny_training):
    training = replace(tiny_training, optimiser='muon')
    accelerator = open_accelerator('cpu')
    prepare_learner(build(training)[0], training, accelerator)
    accelerator.state.distributed_type = accelerate.DistributedType.FSDP
    try:
        with pytest.raises(ValueError, match="'muon' and FSDP shards the weights, wanted 'adamw'"):
            prepare_learner(build(training)[0], training, accelerator)
    finally:
        accelerator.state.distributed_type = accelerate.DistributedType.NO


def test_a_loss_that_is_not_finite_moves_nothing(tiny_training):
    model, step = a_step(replace(tiny_training, gaze_weight=1.0))
    with torch.no_grad():
        step[1].hints.reading.bias[0] = torch.nan   # whose gradient is finite
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(FloatingPointError, match='the losses are depth .*gaze nan, wanted finite'):
        train_step(*step)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
