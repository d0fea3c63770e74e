# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0

import csv
from dataclasses import replace

from depthvlm_ros.training import attention
from depthvlm_ros.training.learner import Learner, PARTS
from depthvlm_ros.training.mixture import open_source
from depthvlm_ros.training.samples import Encoder
from depthvlm_ros.training.settling import settle
from depthvlm_ros.training.start import build
from depthvlm_ros.training.train import run
import pytest
import torch

pytest.importorskip('accelerate', reason='training needs requirements-training.txt')


@pytest.fixture(scope='module')
def training(tiny_training):
    return replace(tiny_training, precision='float32', naming_weight=0.5, gaze_weight=1.0)


@pytest.fixture
def parts(training):
    model, tokenizer, prompt = build(replace(training, vocab_size=640, vocab_rooms=150))
    model.model.language_model.set_attn_implementation(attention.NAME)
    encoder = Encoder(model.config, tokenizer, prompt)
    rooms = open_source(training.sources[0], '.', encoder, training)
    return Learner(model, training).train(), encoder, rooms


def batches(encoder, rooms, count):
    return [encoder.collate([(rooms.sample(2 * i + k), []) for k in range(2)])
            for i in range(count)]


def losses(learner, shown):
    with torch.no_grad():
        sums = sum(learner(batch) for batch in shown)
    return dict(zip(PARTS, learner.means(sums, sum(b.counts for b in shown)).tolist()))


def test_the_hints_come_to_fit_a_model_that_stays_as_it_is(parts):
    learner, encoder, rooms = parts
    shown = batches(encoder, rooms, 8)
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    had = losses(learner, shown)
    settle(learner, shown)
    after, got = learner.state_dict(), losses(learner, shown)
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved == {name for name, _ in learner.named_parameters() if name.startswith('hints.')}
    assert got['naming'] < 0.6 * had['naming'] and got['gaze'] < 0.95 * had['gaze']
    assert all(got[part] == had[part] for part in ('depth', 'log_l1', 'language'))
    assert [name for name, p in learner.named_parameters() if p.grad is not None] == []


def naming(folder):
    with open(folder / 'log.csv', newline='') as file:
        return [float(row['naming']) for row in csv.DictReader(file)]


def test_a_run_from_a_checkpoint_settles_its_hints_once(training, tiny_checkpoint, tmp_path):
    training = replace(training, start=str(tiny_checkpoint), model={}, saved_dtype='float32')
    settled = replace(training, hint_images=5)
    for name, one in (('drawn', training), ('settled', settled), ('stopped', settled)):
        run(one, tmp_path / name, workers=0, device='cpu', stop_at=1 if name == 'stopped' else 2)
    run(settled, tmp_path / 'stopped', workers=0, device='cpu', stop_at=2)
    assert naming(tmp_path / 'settled')[0] < 0.6 * naming(tmp_path / 'drawn')[0]
    assert naming(tmp_path / 'stopped')[-1] == naming(tmp_path / 'settled')[-1]
