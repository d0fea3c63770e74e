# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How rooms are drawn, and the walk of the camera."""

import math

from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.synthetic import Scene
from depthvlm_ros.synthetic.shapes import Ball
from depthvlm_ros.synthetic.vocabulary import COLOURS, LABELS, SHAPES
from depthvlm_ros.synthetic.walk import PERIOD_S
import numpy as np
import pytest

SEEDS = range(60)


def test_the_same_seed_gives_the_same_scene():
    one, two, other = Scene.random(8), Scene.random(8), Scene.random(9)
    assert (one.room, one.solids, one.walk) == (two.room, two.solids, two.walk)
    assert one.room != other.room


@pytest.mark.parametrize('seed, split', [(-1, 'train'), (0.5, 'train'), (1, 'test')])
def test_wrong_arguments_are_named(seed, split):
    with pytest.raises(ValueError, match='test' if split == 'test' else str(seed)):
        Scene.random(seed, split)


def test_training_and_held_out_rooms_cannot_meet():
    for seed in range(200):
        train, held_out = Scene.random(seed, 'train'), Scene.random(seed, 'held_out')
        assert round(train.room.size_m[0] * 1000) % 2 == 0
        assert round(held_out.room.size_m[0] * 1000) % 2 == 1
        assert train.solids != held_out.solids


def test_rooms_and_things_have_their_sizes():
    shapes, colours, counts, stacked = set(), set(), set(), 0
    for seed in SEEDS:
        scene = Scene.random(seed)
        assert all(3.0 <= edge <= 9.0 for edge in scene.room.size_m[:2])
        assert 2.4 <= scene.room.size_m[2] <= 3.2
        assert 0.5 <= scene.pose.position_m[2] <= 1.8
        names = [(solid.colour, solid.shape) for solid in scene.solids]
        assert len(set(names)) == len(names)
        counts.add(len(names))
        stacked += sum(solid.base_m[2] > 0 for solid in scene.solids)
        colours.update(colour for colour, _ in names)
        shapes.update(shape for _, shape in names)
    assert shapes == set(SHAPES) and colours == set(COLOURS)
    assert min(counts) == 2 and max(counts) == 7
    assert stacked > 3


def test_things_stand_in_the_room_and_do_not_meet():
    for seed in SEEDS:
        scene = Scene.random(seed)
        for index, one in enumerate(scene.solids):
            x, y, z = one.base_m
            assert one.reach_m < x < scene.room.size_m[0] - one.reach_m
            assert one.reach_m < y < scene.room.size_m[1] - one.reach_m
            if z > 0:
                below = [other for other in scene.solids
                         if other.base_m == (x, y, 0.0) and other.shape == 'box']
                assert len(below) == 1 and below[0].size_m[2] == z
            for other in scene.solids[:index]:
                apart = math.hypot(x - other.base_m[0], y - other.base_m[1])
                on_top = other.base_m[:2] == one.base_m[:2] and other.base_m[2] != z
                overhang = isinstance(one, Ball) and z > 0
                assert on_top or overhang or apart > one.reach_m + other.reach_m


def test_most_depths_are_within_reach_and_things_are_in_view():
    camera = Intrinsics.centred(96, 72, 86.0)
    depths, clear = [], []
    for seed in SEEDS:
        frame = Scene.random(seed).render(camera)
        depths.append(frame.depth_m.ravel())
        clear.append(sum(thing.clear for thing in frame.objects))
    low, high = np.percentile(np.concatenate(depths), [2, 98])
    assert low > 0.7 and high < 9.0
    assert np.mean(clear) > 3


def test_the_camera_looks_within_its_limits():
    for seed in SEEDS:
        rotation = Scene.random(seed).pose.rotation
        assert -25 <= math.degrees(math.asin(rotation[2, 2])) <= 10
        roll_deg = math.degrees(math.atan2(-rotation[2, 0], -rotation[2, 1]))
        assert abs(roll_deg) <= 6.001


def test_the_walk_is_closed_and_smooth():
    for seed in SEEDS:
        scene = Scene.random(seed)
        start = scene.pose.t_world_optical
        np.testing.assert_allclose(scene.pose_at(PERIOD_S).t_world_optical, start, atol=1e-9)
        np.testing.assert_allclose(scene.pose_at(-PERIOD_S).t_world_optical, start, atol=1e-9)
        before = start
        for t_s in np.linspace(0, PERIOD_S, 201)[1:]:
            now = scene.pose_at(float(t_s)).t_world_optical
            assert np.linalg.norm(now[:3, 3] - before[:3, 3]) < 0.06
            turned = (np.trace(now[:3, :3] @ before[:3, :3].T) - 1) / 2
            assert math.acos(min(1.0, turned)) < 0.1
            before = now


def test_the_walk_stays_in_free_space():
    farthest = 0.0
    for seed in SEEDS:
        scene = Scene.random(seed)
        for t_s in np.linspace(0, PERIOD_S, 80):
            x, y, z = scene.pose_at(float(t_s)).position_m
            assert 0.35 < x < scene.room.size_m[0] - 0.35
            assert 0.35 < y < scene.room.size_m[1] - 0.35
            assert 0.35 < z < scene.room.size_m[2] - 0.35
            for solid in scene.solids:
                assert math.hypot(x - solid.base_m[0], y - solid.base_m[1]) > solid.reach_m + 0.2
            farthest = max(farthest, math.dist((x, y), scene.pose.position_m[:2]))
    assert farthest > 0.8


def test_a_door_is_a_thing_of_its_own():
    camera = Intrinsics.centred(160, 120, 140.0)
    doors = 0
    for seed in SEEDS:
        scene = Scene.random(seed)
        frame = scene.render(camera)
        door = [thing for thing in frame.objects if thing.shape == 'door']
        assert len(door) <= (scene.room.door is not None)
        for thing in door:
            doors += 1
            assert thing.label == 'door' and thing.index == len(scene.solids)
            on_door = frame.object_ids == thing.index
            assert set(np.unique(frame.surfaces[on_door])) == {scene.room.door.plane}
    assert doors > 5
    assert len(LABELS) == len(set(LABELS)) == 33


def test_a_small_room_in_which_no_walk_is_found_is_drawn_again():
    scene = Scene.random(44395556)      # its first room is 3.003 by 3.009 m
    assert max(scene.room.size_m[:2]) > 3.1
