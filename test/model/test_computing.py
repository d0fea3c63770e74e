# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Distances measured where the model points, with the embedded model and with its own words."""

from dataclasses import replace
import itertools
import math

from depthvlm_ros.benchmark.rooms import measure_rooms
from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.model import Predictor
from depthvlm_ros.model.computing import compared_things, stated_distances, things_of
from depthvlm_ros.synthetic import Scene
import numpy as np
import pytest

CAMERA = Intrinsics.centred(320, 240, 260.0)


@pytest.mark.parametrize(('question', 'things'), [
    ('How far is the door?', ['the door']),
    ('how far away is my cup', ['my cup']),
    ('How far is the red box from me?', ['the red box']),
    ('How far is the red box from the camera?', ['the red box']),
    ('What is the distance to the blue ball?', ['the blue ball']),
    ('What is the distance from here to a chair?', ['a chair']),
    ('How many metres away is the wall?', ['the wall']),
    ('How many meters away is the wall?', ['the wall']),
    ('How far apart are the red box and the door?', ['the red box', 'the door']),
    ('What is the distance between the red box and the door?', ['the red box', 'the door']),
    ('How far is the red box from the door?', ['the red box', 'the door']),
    ('What is the distance from the red box to the door?', ['the red box', 'the door']),
    ('What is the distance from the camera to the door?', ['the door']),
    ('How far is the door away from the wall?', ['the door', 'the wall']),
    ('  How far  is the\nred box in metres ?', ['the red box']),
    ('How far is the door!', ['the door']),
    ('What is the distance from the door to the camera?', ['the door']),
    ('How far is the robot from the door?', ['the door']),
    ('How far is the door from the camera lens?', []),
    ('How far is the camera?', []),
    ('How far is the lamp above the table?', []),
    ('How far is the door open?', []),
    ('How far is the door in feet?', []),
    ('How far apart are the door and the box in cm?', []),
    ('How far is the ' + 'very ' * 100 + 'old door?', []),
    ('how far is the' + ' ' * 1900 + ',', []),
    ('how far is the ' + 'a from ' * 270, []),
    ('how far apart are the ' + 'a and the ' * 190, []),
    ('Which is closer, the red box or the door?', []),
    ('How far is the red box from the door and the wall?', []),
    ('How far are the red box and the door?', []),
    ('How far is it?', []),
    ('Is the door open?', []),
    ('How far is the door? And is it open?', []),
    ('', []),
])
def test_which_questions_ask_for_a_distance(question, things):
    assert things_of(question) == things


@pytest.mark.parametrize(('question', 'things'), [
    ('Which is closer, the red box or the door?', ['the red box', 'the door']),
    ('which is nearer the red box or the door', ['the red box', 'the door']),
    ('What is closer to the camera, my cup or a chair?', ['my cup', 'a chair']),
    ('Which one is closer to me: the red box or the door?', ['the red box', 'the door']),
    ('Is the red box or the door closer?', ['the red box', 'the door']),
    ('Is the red box or the door nearer to the robot?', ['the red box', 'the door']),
    ('Is the red box or the door open?', []),
    ('Is the red box closer?', []),
    ('Is the red box closer or the door?', []),
    ('Is the red box closer than the door?', []),
    ('Which is closer, the box, the ball or the door?', []),
    ('Which is closer, the box or the ball or the door?', []),
    ('Which is closer to the door, the box or the ball?', []),
    ('Which is farther, the red box or the door?', []),
    ('which is closer, the ' + 'a or the ' * 190, []),
    ('', []),
])
def test_which_questions_compare(question, things):
    assert compared_things(question) == things


@pytest.mark.parametrize(('words', 'metres'), [
    ('The red box is at 2.31 m and the door at 3.10 m, so the red box is closer.', [2.31, 3.1]),
    ('The door is 3 metres away, the red box 2.5 m.', [2.5, 3.0]),
    ('The red box, at 2.31 m.', []),
    ('The red box and the door are at 0.00 m.', []),
    ('There is no door in the image.', []),
    ('The red box is closer than the door, which is at 3.10 m.', []),
    ('The red box is at .5 m, the door at 3 m.', [0.5, 3.0]),
    ('The red box is at -2 m, the door at 3 m.', []),
    ('The red box is 2-3 m away, the door at 3 m.', []),
    ('The red box moves at 5 m/s, the door is at 3 m.', []),
    ('The red box takes 5 m², the door is at 3 m.', []),
    ('', []),
])
def test_which_distances_are_stated(words, metres):
    assert stated_distances(words, ['the red box', 'the door']) == metres


def test_of_names_within_each_other_no_distance_is_taken():
    words = 'The red box is at 2 m, the box at 3 m.'
    assert not stated_distances(words, ['the red box', 'the box'])


@pytest.fixture(scope='module')
def nano():
    return Predictor.from_pretrained('nano', device='cpu')


@pytest.fixture(scope='module')
def view(nano):
    scene = Scene.random(3)
    # What is put into its mouth is in metres as they are.
    return replace(nano.look(scene.render(CAMERA).rgb, CAMERA), words_scale=1.0)


@pytest.fixture
def say(nano):
    """Return a function that puts words into the model's mouth, the next ones of each question."""
    handles = []

    def put(*answers):
        stop = min(nano.prompt.stops)
        ids = itertools.cycle([token for words in answers for token in (
            *nano.tokenizer(words, add_special_tokens=False)['input_ids'], stop)])

        def speak(module, inputs, logits):
            logits[:] = 0
            logits[:, next(ids)] = 1
            return logits
        handles.append(nano.model.lm_head.register_forward_hook(speak))
    yield put
    for handle in handles:
        handle.remove()


def place(x, y, label='x'):
    return f'[{{"point_2d": [{x}, {y}], "label": "{label}"}}]'


@pytest.mark.parametrize(('words', 'stated_m'), [
    ('The red box is 3.00 m away.', 3.0), ('The box is not far.', None),
    ('The red box, 0.10 m tall, is near.', None), ('The red box is 900 m away.', None),
    ('There is no red box in the image.', None)])
def test_one_distance_is_of_the_words_and_the_depth_at_the_point(nano, view, say, words, stated_m):
    say(place(500, 500), words)
    decoding = nano.begin(view, 'How far is the red box?', 128, True)
    while decoding.step():
        pass
    measured_m = decoding.answer().references[0].depth_m
    distance_m = math.sqrt(stated_m * measured_m) if stated_m else measured_m
    assert abs(distance_m - measured_m) > 0.02 or not stated_m
    assert decoding.text == f'The red box is {distance_m:.2f} m away. {place(500, 500)}'
    assert ('words' in decoding.computed) == bool(stated_m)
    assert 'the depth where' in decoding.computed
    assert decoding.ended == 'stop'


def test_the_depth_alone_is_there_while_the_words_are_not_and_no_more_are_heard_than_needed(
        nano, view, say):
    say(place(500, 500), 'The red box is 3.00 m away' + ', and more of it' * 9)
    decoding = nano.begin(view, 'How far is the red box?', 128, True)
    before = ''
    while decoding.step():
        assert decoding.text or not before
        before = decoding.text
    measured_m = decoding.answer().references[0].depth_m
    assert before == f'The red box is {measured_m:.2f} m away. {place(500, 500)}'
    assert decoding.text.startswith(f'The red box is {math.sqrt(3 * measured_m):.2f} m away. [')
    assert decoding._decodings[-1].text == 'The red box is 3.00 m'


@pytest.mark.parametrize('left', [0, 1, 3])
def test_words_that_no_tokens_are_left_for_do_not_count(nano, view, say, left):
    say(place(500, 500), 'The red box is 3.00 m away.')
    spoken = nano.begin(view, 'Point at it.')
    while spoken.step():
        pass
    decoding = nano.begin(view, 'How far is the red box?', spoken.tokens + left, True)
    say(place(500, 500), 'The red box is 3.00 m away.')
    while decoding.step():
        pass
    measured_m = decoding.answer().references[0].depth_m
    assert decoding.text == f'The red box is {measured_m:.2f} m away. {place(500, 500)}'
    assert decoding.computed == 'the depth where the model pointed'
    assert decoding.tokens <= decoding.max_tokens


def test_one_distance_is_the_depth_at_the_point(nano, view, say):
    say(place(500, 500))
    answer = nano.ask(view, 'How far is the red box?', compute_distances=True)
    u, v = 160, 120
    depth_m = float(np.median(view.depth_m[v - 2:v + 3, u - 2:u + 3]))
    assert answer.text == f'The red box is {depth_m:.2f} m away. {place(500, 500)}'
    assert answer.references[0].depth_m == pytest.approx(depth_m, rel=0.02)


def test_a_distance_between_two_is_that_of_their_points(nano, view, say):
    say(place(200, 600), place(800, 700))
    decoding = nano.begin(view, 'How far apart are the box and the ball?', 128, True)
    while decoding.step():
        pass
    one, other = decoding.answer().references
    distance_m = math.dist(one.point_m, other.point_m)
    assert decoding.text.startswith(f'They are {distance_m:.2f} m apart. [')
    assert decoding.computed
    assert decoding.ended == 'stop'
    assert decoding.tokens > 20


def test_depth_of_another_range_is_measured_in(nano, view, say):
    say(place(500, 500))
    decoding = nano.begin(view, 'How far is the box?', 128, True,
                          np.full_like(view.depth_m, 7.0))
    while decoding.step():
        pass
    assert decoding.text.startswith('The box is 7.00 m away.')


def test_which_is_closer_is_heard_both_ways(nano, view, say):
    seen = sorted((float(view.depth_m[v, u]), u, v) for u in (80, 240) for v in (60, 200))
    places = [place(round(u / 0.32), round(v / 0.24)) for _, u, v in (seen[-1], seen[0])]
    # In words the one pointed at far away is a little closer: the depth there decides.
    box_m = round(math.sqrt(seen[0][0] * seen[-1][0]), 2)
    ball_m = box_m + 0.02
    say(f'The box is at {box_m:.2f} m and the ball at {ball_m:.2f} m, so the box is closer.',
        *places)
    decoding = nano.begin(view, 'Which is closer, the box or the ball?', 128, True)
    before = ''
    while decoding.step():
        assert decoding.text or not before
        before = decoding.text
    assert before.endswith('so the box is closer.'), 'its words, while it points'
    measured = [reference.depth_m for reference in decoding.answer().references]
    means = [math.sqrt(a * b) for a, b in zip((box_m, ball_m), measured, strict=True)]
    assert decoding.text == (
        f'The box is at {means[0]:.2f} m and the ball at {means[1]:.2f} m, so the ball is closer. '
        + ' '.join(places))
    assert "the model's words and the depth" in decoding.computed
    assert decoding.ended == 'stop'


@pytest.mark.parametrize(('most', 'said'), [
    (128, ['The box is closer.']), (128, ['There is no ball in the image.']),
    (128, ['The box is at 2.00 m and the ball at 3.00 m, so the box is closer.', 'Nowhere.']),
    (128, ['The box is at 2.00 m and the ball at 3.00 m, so the box is closer.', place(1, 2),
           'There is no ball in the image.']),
    (128, ['The box is at 2.00 m and the ball at 900 m, so the box is closer.', place(500, 500),
           place(500, 500)]),
    (40, ['The box is at 2.00 m and the ball at 3.00 m, so the box is closer.', place(1, 2)]),
])
def test_where_both_ways_cannot_be_heard_its_words_stand(nano, view, say, most, said):
    say(*said)
    decoding = nano.begin(view, 'Which is closer, the box or the ball?', most, True)
    while decoding.step():
        pass
    assert (decoding.text, decoding.ended, decoding.computed) == (said[0], 'stop', '')
    assert decoding.tokens <= most


def test_words_of_a_comparison_that_are_cut_are_told_as_cut(nano, view, say):
    say('The box is at 2.00 m and the ball at 3.00 m, so the box is closer.')
    decoding = nano.begin(view, 'Which is closer, the box or the ball?', 5, True)
    while decoding.step():
        pass
    assert (decoding.tokens, decoding.ended, decoding.computed) == (5, 'length', '')


def test_what_is_not_there_is_said_in_the_models_words(nano, view, say):
    words = 'There is no red box in the image.'
    say(words, 'never asked')
    decoding = nano.begin(view, 'How far is the red box?', 128, True)
    while decoding.step():
        pass
    assert (decoding.text, decoding.ended, decoding.computed) == (words, 'stop', '')


@pytest.mark.parametrize('pointed', [
    'The red box.', place(1, 2) + place(3, 4), '[{"point_2d": [1, 20'])
def test_where_it_does_not_point_its_own_words_are_taken(nano, view, say, pointed):
    say(pointed, 'The red box is 2.00 m away.')
    decoding = nano.begin(view, 'How far is the red box?', 128, True)
    while decoding.step():
        pass
    assert decoding.text == 'The red box is 2.00 m away.'
    assert not decoding.computed


def test_a_place_without_depth_is_no_distance(nano, view, say):
    say(place(500, 500), 'Far.')
    decoding = nano.begin(view, 'How far is the box?', 128, True,
                          np.full_like(view.depth_m, np.nan))
    while decoding.step():
        pass
    assert decoding.text == 'Far.'


@pytest.mark.parametrize('most', [1, 5, 30])
def test_no_more_tokens_than_allowed(nano, view, say, most):
    say(place(200, 600), place(800, 700))
    decoding = nano.begin(view, 'How far apart are the box and the ball?', most, True)
    while decoding.step():
        pass
    assert decoding.tokens <= most
    assert decoding.ended == 'length'


def test_without_being_told_nothing_is_computed(nano, view, say):
    say('The box is 1.00 m away.')
    assert nano.ask(view, 'How far is the box?').text == 'The box is 1.00 m away.'


def test_it_measures_between_things_better_than_words_tell(nano):
    """As docs/experiments.md has it of many more rooms, where how far is as good in words."""
    words, computed = (
        measure_rooms(nano, 12, first_seed=5000, width_px=(240, 320), per_kind=2,
                      compute_distances=compute)['answers'] for compute in (False, True))
    assert computed['apart']['right'] > words['apart']['right']
    assert computed['apart']['right'] > 0.6
    assert computed['far']['right'] > 0.75 and computed['far_10']['right'] > 0.7
