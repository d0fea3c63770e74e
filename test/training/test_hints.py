# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0

from dataclasses import replace

from depthvlm_ros.training.hints import NAMED_COLOURS, NAMED_KINDS, Vocabulary
from depthvlm_ros.training.learner import Learner, PARTS
from depthvlm_ros.training.mixture import open_source
from depthvlm_ros.training.packing import IGNORED
from depthvlm_ros.training.samples import Encoder
from depthvlm_ros.training.stages import optimiser_of
from depthvlm_ros.training.start import build
import pytest
import torch


@pytest.fixture(scope='module')
def training(tiny_training):
    return replace(tiny_training, precision='float32', gaze_weight=1.0, learning_rate=1e-2,
                   vocab_size=640, vocab_rooms=150)


@pytest.fixture(scope='module')
def parts(training):
    model, tokenizer, prompt = build(training)
    model.model.language_model.set_attn_implementation('eager')
    return model, Encoder(model.config, tokenizer, prompt)


@pytest.fixture(scope='module')
def vocabulary(parts):
    return parts[1].vocabulary


def encode(parts, text):
    return parts[1].tokenizer(text, add_special_tokens=False)['input_ids']


def test_the_thing_named_last_holds_until_the_next(parts, vocabulary):
    text = 'The red box is at 2.37 m and the blue ball at 3.10 m'
    words = [parts[1].tokenizer.decode([i]) for i in encode(parts, text)]
    named = dict(zip(words, vocabulary.named_last(encode(parts, text))))
    red_box = NAMED_COLOURS.index('red'), NAMED_KINDS.index('box')
    blue_ball = NAMED_COLOURS.index('blue'), NAMED_KINDS.index('ball')
    assert named['The'] is None and named[' red'] is None
    assert named[' box'] == named[' is'] == named['7'] == red_box
    assert named[' blue'] is None and named[' ball'] == named['0'] == blue_ball


def test_a_shape_without_its_colour_names_nothing(parts, vocabulary):
    assert set(vocabulary.named_last(encode(parts, 'How far is the box?'))) == {None}
    door = vocabulary.named_last(encode(parts, 'How far is the door?'))
    assert door[-1] == (NAMED_COLOURS.index('brown'), NAMED_KINDS.index('door'))


def test_a_gaze_is_where_the_thing_is_seen(training, parts):
    encoder = parts[1]
    rooms = open_source(training.sources[0], '.', encoder, training)
    sample = next(s for s in map(rooms.sample, range(30)) if len(s.gaze.columns))
    ids = [*sample.row.prefix, *(i for talk, _ in sample.row.talks for i in talk)]
    for column, tokens in zip(sample.gaze.columns.tolist(), sample.gaze.tokens):
        colour, kind = sample.names[:, tokens][:, 0].tolist()
        assert (sample.names[:, tokens] == torch.tensor([[colour], [kind]])).all()
        said = encoder.tokenizer.decode(ids[len(sample.row.prefix):column + 1])
        label = 'door' if NAMED_KINDS[kind] == 'door' else (
            f'{NAMED_COLOURS[colour]} {NAMED_KINDS[kind]}')
        assert label in said


def test_digits_weigh_by_their_place(parts, vocabulary):
    ids = encode(parts, ' is 2.37 m')
    targets = torch.tensor([[*ids, IGNORED]])
    weights = vocabulary.weights(targets)[0].tolist()
    words = [parts[1].tokenizer.decode([i]) for i in ids]
    assert dict(zip(words, weights)) == {
        ' is': 1.0, ' ': 1.0, '2': 4.0, '.': 1.0, '3': 2.0, '7': 0.5, ' m': 1.0}
    assert weights[-1] == 0.0


def test_looking_and_reading_are_learnt(training, parts):
    model, encoder = parts
    rooms = open_source(training.sources[0], '.', encoder, training)
    samples = [s for s in map(rooms.sample, range(0, 60, 2)) if len(s.gaze.columns)][:1]
    batch = encoder.collate([(sample, []) for sample in samples])
    assert batch.counts[PARTS.index('gaze') - 1] == len(samples[0].gaze.columns)
    torch.manual_seed(0)
    learner = Learner(model, training).train()
    optimiser = optimiser_of(learner, training)
    seen = []
    for _ in range(40):
        means = learner.means(learner(batch), batch.counts)
        optimiser.zero_grad()
        means[PARTS.index('gaze')].backward()
        optimiser.step()
        seen.append(means[PARTS.index('gaze')].item())
    assert seen[-1] < 0.4 * seen[0]


def test_attention_that_does_not_say_where_it_looks_is_refused(training):
    model, tokenizer, prompt = build(training)
    encoder = Encoder(model.config, tokenizer, prompt)
    rooms = open_source(training.sources[0], '.', encoder, training)
    sample = next(s for s in map(rooms.sample, range(30)) if len(s.gaze.columns))
    with pytest.raises(ValueError, match="says not where it looks, wanted 'eager' attention"):
        Learner(model, training)(encoder.collate([(sample, [])]))


def test_a_tokenizer_without_the_words_names_nothing():
    def tokenizer(text, **_):
        return {'input_ids': list(text.encode())}
    assert set(Vocabulary(tokenizer).named_last(list(b'How far is the red box?'))) == {None}
