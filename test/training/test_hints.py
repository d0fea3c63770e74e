# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0

from dataclasses import replace
import math

from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.synthetic import Scene
from depthvlm_ros.synthetic.vocabulary import LABELS, PLURALS
from depthvlm_ros.training import attention
from depthvlm_ros.training.gaze import Guide, NAMED_COLOURS, NAMED_KINDS, Vocabulary
from depthvlm_ros.training.hints import missed, places
from depthvlm_ros.training.learner import Learner, PARTS
from depthvlm_ros.training.mixture import open_source
from depthvlm_ros.training.packing import conversation_ids, IGNORED
from depthvlm_ros.training.rooms import named_depths, token_names, token_things
from depthvlm_ros.training.samples import COUNTED, Encoder
from depthvlm_ros.training.stages import optimisers_of
from depthvlm_ros.training.start import build
import numpy as np
import pytest
import torch


@pytest.fixture(scope='module')
def training(tiny_training):
    return replace(tiny_training, precision='float32', gaze_weight=1.0, learning_rate=1e-2,
                   vocab_size=640, vocab_rooms=150)


@pytest.fixture(scope='module')
def parts(training):
    model, tokenizer, prompt = build(training)
    model.model.language_model.set_attn_implementation(attention.NAME)
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
    sample = next(s for s in map(rooms.sample, range(30)) if s.gaze.read.any())
    ids = [*sample.row.prefix, *(i for talk, _ in sample.row.talks for i in talk)]
    gaze = sample.gaze
    for column, targets in zip(gaze.columns[gaze.read].tolist(), gaze.targets[gaze.read]):
        assert not targets[0]
        tokens = targets[1:]
        colour, kind = sample.names[:, tokens][:, 0].tolist()
        assert (sample.names[:, tokens] == torch.tensor([[colour], [kind]])).all()
        said = encoder.tokenizer.decode(ids[len(sample.row.prefix):column + 1])
        label = 'door' if NAMED_KINDS[kind] == 'door' else (
            f'{NAMED_COLOURS[colour]} {NAMED_KINDS[kind]}')
        assert label == max(LABELS, key=said.rfind)     # the last one


@pytest.fixture(scope='module')
def guided(parts):
    """Return a frame of a room, its guide, and how to lay out a talk: (ids, targets)."""
    encoder = parts[1]
    camera = Intrinsics.centred(320, 256, 256.0)
    frame = Scene.random(3, split='train').render(camera)
    names = torch.from_numpy(np.stack(token_names(frame, (320, 256), 32, 1, 1)))

    def talk(question, answer):
        return conversation_ids(encoder.tokenizer, encoder.prompt, [(question, answer)])
    return frame, Guide(encoder.vocabulary, frame, names, (8, 10)), talk


def test_small_things_have_a_token_of_their_own():
    camera = Intrinsics.centred(384, 288, 256.0)
    without = {(1, 1): 0, (4, 3): 0}
    for seed in range(20):
        frame = Scene.random(seed, split='train').render(camera)
        for points in without:
            named = set(zip(*(names.tolist() for names in token_names(
                frame, (384, 288), 32, *points))))
            without[points] += sum(
                (NAMED_COLOURS.index(thing.colour), NAMED_KINDS.index(thing.shape)) not in named
                for thing in frame.objects if thing.clear)
    assert without[4, 3] < 0.5 * without[1, 1]


def test_where_tokens_are_is_told_as_shares_across_and_down():
    cell = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    torch.testing.assert_close(places(cell), torch.tensor([
        [1.0, 1 / 6, 0.25], [2.0, 0.5, 0.25], [3.0, 5 / 6, 0.25],
        [4.0, 1 / 6, 0.75], [5.0, 0.5, 0.75], [6.0, 5 / 6, 0.75]]))


def test_the_depth_that_is_told_is_that_of_what_is_named():
    camera = Intrinsics.centred(384, 288, 256.0)
    size, differing = (384, 288), 0
    for seed in range(10):
        frame = Scene.random(seed, split='train').render(camera)
        things, _ = token_things(frame, size, 32)
        named_m = named_depths(frame, size, 32)
        for token, thing in enumerate(things):
            row, column = divmod(token, 12)
            window = slice(32 * row, 32 * row + 32), slice(32 * column, 32 * column + 32)
            of_it = frame.depth_m[window][frame.object_ids[window] == thing]
            if of_it.size:
                assert of_it.min() <= named_m[token] <= of_it.max()
            centre_m = frame.depth_m[32 * row + 16, 32 * column + 16]
            differing += thing >= 0 and abs(named_m[token] / centre_m - 1) > 0.1
    assert differing > 20, 'the centres would say the same'


def test_what_is_not_there_is_sought_at_the_opening_token(guided):
    frame, guide, talk = guided
    label = next(label for label in LABELS if label not in {t.label for t in frame.objects})
    question = f'How far is the {label}?'
    gaze = guide.gaze(20, [talk(question, f'There is no {label} in the image.')],
                      [(question, 'absent')])
    assert len(gaze.columns) and gaze.targets[:, 0].all() and not gaze.targets[:, 1:].any()
    assert not gaze.read.any() and not gaze.even.any()


def test_what_is_counted_is_looked_at_evenly(guided):
    frame, guide, talk = guided
    shape = frame.objects[0].shape
    alike = [thing for thing in frame.objects if thing.shape == shape]
    question = f'How many {PLURALS[shape]} are there?'
    gaze = guide.gaze(20, [talk(question, f'There are {len(alike)} {PLURALS[shape]}.')],
                      [(question, 'count')])
    assert gaze.even.all() and gaze.targets[:, 0].all() and not gaze.read.any()
    tokens = {int(thing.pixel[1] // 32) * 10 + int(thing.pixel[0] // 32) for thing in alike}
    assert set(gaze.targets[0, 1:].nonzero().flatten().tolist()) == tokens


def test_a_place_is_looked_at_while_it_is_answered(guided):
    frame, guide, talk = guided
    question = 'What is at [500, 990]?'
    ids, targets = talk(question, 'The floor, 1.20 m away.')
    gaze = guide.gaze(20, [(ids, targets)], [(question, 'what')])
    assert gaze.columns.tolist() == [20 + i for i, t in enumerate(targets) if t != IGNORED]
    assert gaze.targets[:, 1 + 7 * 10 + 5].all() and int(gaze.targets.sum()) == len(gaze.columns)
    assert gaze.read.all()


def test_attention_misses_by_its_mass_or_one_by_one():
    looks = torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]])
    wanted = torch.tensor([[False, True, True], [True, True, False]])
    mass = missed(looks[:1], wanted[:1], torch.tensor([False]))
    each = missed(looks[1:], wanted[1:], torch.tensor([True]))
    assert mass.item() == pytest.approx(-math.log(0.5), abs=1e-3)
    assert each.item() == pytest.approx(-(math.log(0.5) + math.log(0.25)) / 2, abs=1e-3)


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
    assert batch.counts[COUNTED.index('gazes')] == len(samples[0].gaze.columns)
    torch.manual_seed(0)
    learner = Learner(model, training).train()
    (optimiser,) = optimisers_of(learner, training)
    seen = []
    for _ in range(40):
        means = learner.means(learner(batch), batch.counts)
        optimiser.zero_grad()
        means[PARTS.index('gaze')].backward()
        optimiser.step()
        seen.append(means[PARTS.index('gaze')].item())
    assert seen[-1] < 0.4 * seen[0]


def test_depth_without_names_has_no_part_in_naming(training, parts):
    model, encoder = parts
    rooms = open_source(training.sources[0], '.', encoder, training)
    room = rooms.sample(0)
    learner = Learner(model, training).eval()
    alone, beside = (encoder.collate([(sample, []) for sample in samples]) for samples in (
        [room], [room, replace(room, names=None, gaze=None)]))
    with torch.no_grad():
        one, two = (learner.means(learner(batch), batch.counts)[PARTS.index('naming')]
                    for batch in (alone, beside))
    assert one > 0
    torch.testing.assert_close(one, two, rtol=1e-4, atol=0)


def test_attention_that_cannot_be_watched_is_refused(training):
    model, tokenizer, prompt = build(training)
    encoder = Encoder(model.config, tokenizer, prompt)
    rooms = open_source(training.sources[0], '.', encoder, training)
    sample = next(s for s in map(rooms.sample, range(30)) if len(s.gaze.columns))
    with pytest.raises(ValueError, match='cannot be watched, wanted set_attn_implementation'
                       ):
        Learner(model, training)(encoder.collate([(sample, [])]))


def test_a_tokenizer_without_the_words_names_nothing():
    def tokenizer(text, **_):
        return {'input_ids': list(text.encode())}
    assert set(Vocabulary(tokenizer).named_last(list(b'How far is the red box?'))) == {None}
