# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Questions about rooms: every kind is asked, and the answers follow from the geometry."""

import math
import re

from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.spatial import read_places
from depthvlm_ros.synthetic import draw_camera, Scene
from depthvlm_ros.synthetic.questions import name_at, pixel_at, point_1000, to_1000
from depthvlm_ros.synthetic.vocabulary import COLOURS, LABELS, PLURALS
from depthvlm_ros.synthetic.walk import PERIOD_S
from depthvlm_ros.synthetic.wording import DEPTH_ANSWER, DEPTH_QUESTION, KINDS, QUESTIONS
import numpy as np
import pytest

CAMERA = Intrinsics(200, 150, 180.0, 170.0, 95.0, 78.0)


@pytest.fixture(scope='module')
def asked():
    """Return (frame, question, answer, kind) of some rooms, canonical wording."""
    frames = [Scene.random(seed).render(CAMERA) for seed in range(25)]
    return [(frame, *pair) for seed, frame in enumerate(frames)
            for pair in frame.questions(seed, canonical=True)]


def of_kind(asked, kind):
    """Return the questions of a kind, at least a few."""
    chosen = [(frame, question, answer) for frame, question, answer, of in asked if of == kind]
    assert len(chosen) >= 15
    return chosen


def thing_of(frame, label):
    """Return a thing in view by its name."""
    return next(thing for thing in frame.objects if thing.label == label)


def test_every_kind_is_asked(asked):
    assert {kind for *_, kind in asked} == set(KINDS)


def test_the_same_seed_asks_the_same():
    frame = Scene.random(4).render(CAMERA)
    assert frame.questions(3) == frame.questions(3)
    assert frame.questions(3) != frame.questions(4)


def test_wordings_vary_and_the_first_is_canonical():
    frame = Scene.random(4).render(CAMERA)
    openings = {question for seed in range(30) for question, _, kind in frame.questions(seed)
                if kind == 'far'}
    clear = sum(thing.clear for thing in frame.objects)
    assert len(openings) == clear * len(QUESTIONS['far'])
    for question, _, kind in frame.questions(0, canonical=True):
        if kind == 'far':
            assert re.fullmatch(r'How far is the [a-z ]+\?', question)
    assert all(3 <= len(QUESTIONS[kind]) <= 5 for kind in QUESTIONS if kind != 'depth')


def test_either_of_two_things_comes_first():
    frame = Scene.random(4).render(CAMERA)
    asked = {question for seed in range(30) for question, _, kind in frame.questions(seed, True)
             if kind == 'closer'}
    pairs = {re.fullmatch(r'Which is closer, the (.+) or the (.+)\?', question).groups()
             for question in asked}
    assert pairs and pairs == {pair[::-1] for pair in pairs}


def test_far_answers_the_median_depth(asked):
    for frame, question, answer in of_kind(asked, 'far'):
        label = re.fullmatch(r'How far is the (.+)\?', question)[1]
        thing = thing_of(frame, label)
        assert thing.clear
        assert answer == f'The {label} is {thing.depth_m:.2f} m away.'


def test_closer_names_the_nearer_and_not_always_the_first(asked):
    first = 0
    chosen = of_kind(asked, 'closer')
    for frame, question, answer in chosen:
        a, b = re.fullmatch(r'Which is closer, the (.+) or the (.+)\?', question).groups()
        depth_a, depth_b = thing_of(frame, a).depth_m, thing_of(frame, b).depth_m
        assert max(depth_a, depth_b) >= 1.1 * min(depth_a, depth_b)
        assert answer == (f'The {a} is at {depth_a:.2f} m and the {b} at {depth_b:.2f} m, '
                          f'so the {a if depth_a < depth_b else b} is closer.')
        first += depth_a < depth_b
    assert 0.25 < first / len(chosen) < 0.75


def test_apart_answers_the_distance_of_points(asked):
    for frame, question, answer in of_kind(asked, 'apart'):
        a, b = re.fullmatch(r'How far apart are the (.+) and the (.+)\?', question).groups()
        gap_m = math.dist(thing_of(frame, a).point_m, thing_of(frame, b).point_m)
        assert answer == f'They are {gap_m:.2f} m apart.'


def test_points_lie_on_their_things(asked):
    for frame, question, answer in of_kind(asked, 'point'):
        label = re.fullmatch(r'Point at the (.+)\.', question)[1]
        [place] = read_places(answer)
        assert place.label == label
        u = round(place.point_1000[0] / 1000 * CAMERA.width - 0.5)
        v = round(place.point_1000[1] / 1000 * CAMERA.height - 0.5)
        assert frame.object_ids[v, u] == thing_of(frame, label).index


def test_points_lie_on_their_things_in_wide_images():
    rng = np.random.default_rng([75, 5])
    camera, scene = draw_camera(rng, (1024, 2048)), Scene.random(75)
    frame = scene.render(camera, scene.pose_at(rng.uniform(0, PERIOD_S)))
    hidden = next(thing for thing in frame.objects if thing.label == 'orange cylinder')

    def seen_at(point):
        u, v = pixel_at(frame, *point)
        return frame.object_ids[v, u]

    # Half hidden, its middle lies at its edge, and a thousandth is two pixels.
    assert seen_at(to_1000(frame, *hidden.pixel)) != hidden.index
    assert all(seen_at(point_1000(frame, thing)) == thing.index for thing in frame.objects)


def test_boxes_enclose_their_things(asked):
    for frame, question, answer in of_kind(asked, 'box'):
        label = re.fullmatch(r'Give the bounding box of the (.+)\.', question)[1]
        [place] = read_places(answer)
        rows, columns = np.nonzero(frame.object_ids == thing_of(frame, label).index)
        x_min, y_min, x_max, y_max = place.box_1000
        assert x_min / 1000 * CAMERA.width == pytest.approx(columns.min(), abs=0.2)
        assert y_min / 1000 * CAMERA.height == pytest.approx(rows.min(), abs=0.2)
        assert x_max / 1000 * CAMERA.width == pytest.approx(columns.max() + 1, abs=0.2)
        assert y_max / 1000 * CAMERA.height == pytest.approx(rows.max() + 1, abs=0.2)


def test_counts_are_of_things_in_clear_view(asked):
    singular = {plural: shape for shape, plural in PLURALS.items()}
    numbers = set()
    for frame, question, answer in of_kind(asked, 'count'):
        kind = re.fullmatch(r'How many (.+) are there\?', question)[1]
        if kind.endswith(' objects'):
            of = [thing for thing in frame.objects if thing.colour == kind.split()[0]]
            assert kind.split()[0] in COLOURS
            one = kind[:-1]
        else:
            of = [thing for thing in frame.objects if thing.shape == singular[kind]]
            one = singular[kind]
        assert all(thing.clear for thing in of)
        numbers.add(len(of))
        wanted = {0: f'There are no {kind}.', 1: f'There is 1 {one}.'}
        assert answer == wanted.get(len(of), f'There are {len(of)} {kind}.')
    assert {0, 1, 2} <= numbers


def test_side_compares_columns(asked):
    for frame, question, answer in of_kind(asked, 'side'):
        a, b = re.fullmatch(r'Is the (.+) left or right of the (.+)\?', question).groups()
        apart = thing_of(frame, a).pixel[0] - thing_of(frame, b).pixel[0]
        assert abs(apart) >= 0.05 * CAMERA.width
        assert answer == f'The {a} is {"left" if apart < 0 else "right"} of the {b}.'


def test_what_names_the_thing_and_its_depth(asked):
    names = set()
    for frame, question, answer in of_kind(asked, 'what'):
        x, y = map(int, re.fullmatch(r'What is at \[(\d+), (\d+)\]\?', question).groups())
        u, v = pixel_at(frame, x, y)
        assert answer == f'The {name_at(frame, u, v)}, {frame.depth_m[v, u]:.2f} m away.'
        names.add(name_at(frame, u, v))
        around = (slice(max(0, v - 2), v + 3), slice(max(0, u - 2), u + 3))
        assert len({name_at(frame, column, row) for row in range(*around[0].indices(150))
                    for column in range(*around[1].indices(200))}) == 1
    assert {'floor', 'wall'} <= names and names.intersection(LABELS)


def test_names_of_places_agree_with_the_geometry():
    frame = Scene.random(6).render(CAMERA)
    up = -frame.pose.rotation[2, 1]
    assert up > 0.8
    height = frame.pose.position_m[2]
    for v in range(0, 150, 7):
        for u in range(0, 200, 7):
            ray = np.array([(u - CAMERA.cx) / CAMERA.fx, (v - CAMERA.cy) / CAMERA.fy, 1.0])
            z = height + frame.depth_m[v, u] * (frame.pose.rotation[2] @ ray)
            if frame.object_ids[v, u] < 0:
                assert (name_at(frame, u, v) == 'floor') == (abs(z) < 1e-4)


def test_the_absent_are_nowhere_in_view(asked):
    for frame, question, answer in of_kind(asked, 'absent'):
        label = re.fullmatch(r'There is no (.+) in the image\.', answer)[1]
        assert label in LABELS and f'the {label}' in question
        assert label not in {thing.label for thing in frame.objects}


def test_what_is_hardly_in_view_is_neither_asked_about_nor_absent():
    hardly = 0
    for seed in range(40):
        frame = Scene.random(seed).render(CAMERA)
        for thing in frame.objects:
            if not thing.clear:
                hardly += 1
                assert thing.pixels < 0.0015 * 200 * 150 or thing.visible_fraction < 0.3
                for question, answer, _ in frame.questions(seed):
                    assert not re.search(rf'\b{thing.label}\b', question + answer)
    assert hardly > 5


def test_depth_is_asked_in_one_wording(asked):
    for _, question, answer in of_kind(asked, 'depth'):
        assert (question, answer) == (DEPTH_QUESTION, DEPTH_ANSWER)
