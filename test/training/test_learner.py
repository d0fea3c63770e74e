# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0

from dataclasses import replace

from depthvlm_ros.training.learner import Learner, PARTS
from depthvlm_ros.training.losses import silog
from depthvlm_ros.training.mixture import open_source
from depthvlm_ros.training.packing import IGNORED
from depthvlm_ros.training.samples import Encoder, Sample
from depthvlm_ros.training.stages import optimisers_of
from depthvlm_ros.training.start import build
import pytest
from tokenizers import models, pre_tokenizers, Tokenizer
import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerFast

TEXT = [('How many legs has a spider?', 'A spider has 8 legs.')]


@pytest.fixture(scope='module')
def training(tiny_training):
    return replace(tiny_training, precision='float32')


@pytest.fixture(scope='module')
def parts(training):
    model, tokenizer, prompt = build(training)
    encoder = Encoder(model.config, tokenizer, prompt)
    rooms = open_source(training.sources[0], '.', encoder, training)
    return model, encoder, rooms


@pytest.fixture
def learner(parts, training):
    torch.manual_seed(0)
    return Learner(parts[0], training)


def mean_losses(learner, batch):
    return dict(zip(PARTS, learner.means(learner(batch), batch.counts)))


def test_the_losses_are_the_means_that_they_are_called(parts, learner):
    model, encoder, rooms = parts
    batch = encoder.collate([(rooms.sample(i), []) for i in range(2)])
    packed = batch.packed
    with torch.no_grad():
        got = mean_losses(learner, batch)
        out = model(packed.input_ids, attention_mask=packed.mask, position_ids=packed.positions,
                    pixel_values=batch.pixel_values, image_grid_thw=batch.grid_thw,
                    logits_to_keep=packed.input_ids.shape[1])
    language = F.cross_entropy(out.logits.flatten(0, 1), packed.targets.flatten(),
                               ignore_index=IGNORED)
    depth = sum(silog(p, t) for p, t in zip(out.depth_pred, batch.depth_m)) / 2
    torch.testing.assert_close(got['language'], language, rtol=1e-4, atol=0)
    torch.testing.assert_close(got['depth'], depth, rtol=1e-4, atol=0)
    total = learner.total(torch.stack([got[part] for part in PARTS]))
    torch.testing.assert_close(
        total, got['language'] + got['depth'] + 0.3 * got['log_l1'] + 0.2 * got['naming'])


def test_the_language_loss_weighs_tokens_as_the_batch_tells(parts, learner):
    model, _, rooms = parts
    encoder = Encoder(parts[1].config, parts[1].tokenizer, parts[1].prompt, weigh_digits=True)
    batch = encoder.collate([(rooms.sample(i), []) for i in range(2)])
    packed = batch.packed
    weights = batch.weights[packed.targets != IGNORED]
    assert len(weights.unique()) > 1
    with torch.no_grad():
        got = mean_losses(learner, batch)['language']
        logits = model(packed.input_ids, attention_mask=packed.mask,
                       position_ids=packed.positions, pixel_values=batch.pixel_values,
                       image_grid_thw=batch.grid_thw,
                       logits_to_keep=packed.input_ids.shape[1]).logits
    each = F.cross_entropy(logits.flatten(0, 1), packed.targets.flatten(),
                           ignore_index=IGNORED, reduction='none')
    each = each[packed.targets.flatten() != IGNORED]
    torch.testing.assert_close(got, (each * weights).sum() / weights.sum(), rtol=1e-4, atol=0)


def test_stage_1_learns_no_language(parts, training):
    model, encoder, _ = parts
    stage_1 = replace(training, stage=1, thaw_vision=False)
    sample = open_source(stage_1.sources[0], '.', encoder, stage_1).sample(0)
    assert sample.row.talks == []
    got = mean_losses(Learner(model, stage_1), encoder.collate([(sample, [])]))
    assert got['language'] == 0 and got['depth'] > 0


@pytest.mark.slow
def test_one_batch_can_be_learnt_by_heart(training):
    training = replace(training, learning_rate=1e-2)
    model, tokenizer, prompt = build(training)
    encoder = Encoder(model.config, tokenizer, prompt)
    rooms = open_source(training.sources[0], '.', encoder, training)
    batch = encoder.collate([(rooms.sample(i), []) for i in range(2)])
    learner = Learner(model, training).train()
    (optimiser,) = optimisers_of(learner, training)
    first = None
    for _ in range(120):
        means = learner.means(learner(batch), batch.counts)
        optimiser.zero_grad()
        learner.total(means).backward()
        torch.nn.utils.clip_grad_norm_(learner.parameters(), training.clip)
        optimiser.step()
        first = means if first is None else first
    got, had = (dict(zip(PARTS, m.tolist())) for m in (means, first))
    assert got['language'] < 0.1 * had['language']
    assert got['depth'] < 0.5 * had['depth']


def test_text_beside_images_trains_and_does_not_shift_the_depth(parts, learner):
    model, encoder, rooms = parts
    text = Sample(encoder.text_row([TEXT]))
    rooms = [rooms.sample(i) for i in range(2)]
    without = encoder.collate([(sample, []) for sample in rooms])
    beside = encoder.collate([(sample, []) for sample in (rooms[0], text, rooms[1])])
    assert len(beside.packed.input_ids) == 3 and len(beside.depth_m) == 2
    got, wanted = mean_losses(learner, beside), mean_losses(learner, without)
    torch.testing.assert_close(got['depth'], wanted['depth'], rtol=1e-5, atol=0)
    learner.zero_grad()
    got['language'].backward()
    legs = encoder.tokenizer(' legs', add_special_tokens=False)['input_ids'][0]
    gradient = model.get_input_embeddings().weight.grad
    assert gradient[legs].abs().sum() > 0
    alone = encoder.collate([(text, [])])
    assert beside.counts[1] == without.counts[1] + alone.counts[1]
    sums = [learner(batch) for batch in (beside, without, alone)]
    torch.testing.assert_close(sums[0], sums[1] + sums[2], rtol=1e-4, atol=1e-3)


def test_text_alone_reaches_every_parameter_and_teaches_no_depth(parts, training):
    model, encoder, _ = parts
    learner = Learner(model, training)
    learner.zero_grad(set_to_none=True)
    batch = encoder.collate([(Sample(encoder.text_row([TEXT])), [])])
    means = learner.means(learner(batch), batch.counts)
    learner.total(means).backward()
    got = dict(zip(PARTS, means.tolist()))
    assert got['language'] > 0 and got['depth'] == got['log_l1'] == got['naming'] == 0
    # Processes that train together need a gradient, if only zero, from each of them.
    assert [n for n, p in learner.named_parameters() if p.grad is None] == []
    assert all((p.grad == 0).all() for p in model.depth_head.parameters())


def test_a_tokenizer_without_padding_is_no_hindrance(tiny_training, learner, parts):
    model, tokenizer, prompt = build(tiny_training)
    drawn = [(Sample(parts[1].text_row([TEXT] * n)), []) for n in (1, 2)]
    wanted = mean_losses(learner, Encoder(model.config, tokenizer, prompt).collate(drawn))
    tokenizer.pad_token = None
    got = mean_losses(learner, Encoder(model.config, tokenizer, prompt).collate(drawn))
    assert got == wanted


def test_digits_that_are_no_tokens_cannot_be_weighed(tiny_training):
    model, _, prompt = build(tiny_training)
    words = Tokenizer(models.WordLevel({'7': 0, '?': 1}, unk_token='?'))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words)
    Encoder(model.config, tokenizer, prompt)
    with pytest.raises(ValueError, match='every digit is a token'):
        Encoder(model.config, tokenizer, prompt, weigh_digits=True)


def test_a_blank_image_among_others_changes_nothing(parts, learner):
    _, encoder, rooms = parts
    room = rooms.sample(0)
    with_blank = learner(encoder.collate([(room, []), (encoder.blank(), [])]))
    torch.testing.assert_close(with_blank, learner(encoder.collate([(room, [])])),
                               rtol=1e-4, atol=1e-4)


def test_gradient_checkpointing_changes_nothing(training):
    gradients = []
    for on in (False, True):
        model, tokenizer, prompt = build(training)
        encoder = Encoder(model.config, tokenizer, prompt)
        batch = encoder.collate([(open_source(
            training.sources[0], '.', encoder, training).sample(0), [])])
        torch.manual_seed(0)
        learner = Learner(model, training).train()
        if on:
            model.gradient_checkpointing_enable({'use_reentrant': False})
        learner.total(learner.means(learner(batch), batch.counts)).backward()
        gradients.append({n: p.grad for n, p in learner.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-6)
