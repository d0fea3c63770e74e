# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The depth of rendered rooms against closed forms."""

from dataclasses import replace
import math

from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.synthetic import Pose, Scene
from depthvlm_ros.synthetic.room import pattern
from depthvlm_ros.synthetic.sensor import Sensor
from depthvlm_ros.synthetic.shapes import Ball, Box, Cone, Cylinder
import numpy as np
import pytest

pytestmark = pytest.mark.filterwarnings('error')

CAMERA = Intrinsics(160, 120, 150.0, 130.0, 70.3, 64.9)


def scene_with(*solids, size_m=(6.0, 5.0, 2.5)):
    """Return a room of a known size without a door, with given things in it."""
    drawn = Scene.random(3)
    return replace(drawn, solids=solids, room=replace(drawn.room, size_m=size_m, door=None))


def directions(intrinsics, pose):
    """Return the ray of every pixel in the world frame, 1 along the optical axis, float64."""
    u, v = np.meshgrid(np.arange(intrinsics.width), np.arange(intrinsics.height))
    rays = np.stack([(u - intrinsics.cx) / intrinsics.fx, (v - intrinsics.cy) / intrinsics.fy,
                     np.ones(u.shape)], axis=-1)
    return rays @ pose.rotation.T


def seen_points(frame):
    """Return the point that every pixel sees, world frame, float64."""
    rays = directions(frame.intrinsics, frame.pose)
    return frame.pose.position_m + frame.depth_m[..., None].astype(np.float64) * rays


def test_pose_looks_along_its_yaw_and_pitch():
    pose = Pose.looking((1.0, 2.0, 1.5), math.radians(90), math.radians(-30))
    np.testing.assert_allclose(pose.rotation[:, 2], [0, math.sqrt(0.75), -0.5], atol=1e-12)
    np.testing.assert_allclose(pose.rotation[:, 0], [1, 0, 0], atol=1e-12)
    assert np.linalg.det(pose.rotation) == pytest.approx(1)


def test_roll_turns_the_camera_clockwise():
    pose = Pose.looking((1, 1, 1), 0.0, 0.0, math.radians(10))
    assert pose.rotation[2, 0] == pytest.approx(-math.sin(math.radians(10)))


def test_pose_refuses_what_is_no_rotation():
    with pytest.raises(ValueError, match='wanted a rotation'):
        Pose(np.diag([1.0, 1.0, 2.0, 1.0]))
    with pytest.raises(ValueError, match=r'\(3, 3\)'):
        Pose(np.eye(3))


def test_empty_room_has_the_depth_of_its_planes():
    scene = scene_with()
    pose = Pose.looking((1.2, 3.1, 1.4), 0.4, -0.3, 0.1)
    frame = scene.render(CAMERA, pose)
    rays = directions(CAMERA, pose)
    depths = []
    for axis in range(3):
        for bound in (0.0, scene.room.size_m[axis]):
            with np.errstate(divide='ignore'):
                depth = (bound - pose.position_m[axis]) / rays[..., axis]
            depths.append(np.where(depth > 0, depth, np.inf))
    np.testing.assert_allclose(frame.depth_m, np.min(depths, axis=0), rtol=2e-6)
    assert (frame.object_ids == -1).all()
    assert (frame.surfaces == np.argmin(depths, axis=0)).mean() > 0.999
    assert frame.depth_m.dtype == np.float32 and frame.rgb.dtype == np.uint8


def test_ball_has_the_depth_of_the_closed_form():
    ball = Ball('red', (3.0, 2.5, 0.0), 0.3, 0.25)
    pose = Pose.looking((1.0, 2.3, 1.1), 0.1, -0.35)
    frame = scene_with(ball).render(CAMERA, pose)
    rays = directions(CAMERA, pose)
    offset = pose.position_m - (3.0, 2.5, 0.25)
    a = (rays ** 2).sum(-1)
    b = (rays * offset).sum(-1)
    inside = b ** 2 - a * (offset @ offset - 0.25 ** 2)
    clearly = np.abs(inside) > 1e-5
    seen = frame.object_ids == 0
    np.testing.assert_array_equal(seen[clearly], inside[clearly] > 0)
    assert seen.sum() > 300
    expected = (-b[seen] - np.sqrt(np.maximum(inside[seen], 0))) / a[seen]
    inner = clearly[seen]
    np.testing.assert_allclose(frame.depth_m[seen][inner], expected[inner], atol=1e-4)


@pytest.mark.parametrize('distance_m', [0.8, 4.0, 8.0])
def test_points_of_a_ball_lie_on_it(distance_m):
    ball = Ball('blue', (0.5 + distance_m, 4.0, 0.0), 0.0, 0.2)
    pose = Pose.looking((0.5, 4.1, 0.6), 0.0, -0.05, 0.02)
    frame = scene_with(ball, size_m=(9.0, 9.0, 3.0)).render(CAMERA, pose)
    points = seen_points(frame)[frame.object_ids == 0]
    assert len(points) > 20
    radius = np.linalg.norm(points - (0.5 + distance_m, 4.0, 0.2), axis=1)
    np.testing.assert_allclose(radius, 0.2, atol=1e-4)


def own_points(frame, solid):
    """Return the points seen of the only solid, in its frame with the origin in its underside."""
    points = seen_points(frame)[frame.object_ids == 0] - solid.base_m
    turn = np.array([[math.cos(solid.yaw_rad), -math.sin(solid.yaw_rad)],
                     [math.sin(solid.yaw_rad), math.cos(solid.yaw_rad)]])
    points[:, :2] = points[:, :2] @ turn
    return points


def test_points_of_a_box_lie_on_its_faces():
    box = Box('green', (3.0, 2.5, 0.0), 0.7, (0.5, 0.4, 0.3))
    frame = scene_with(box).render(CAMERA, Pose.looking((1.0, 2.3, 1.1), 0.1, -0.4))
    points = own_points(frame, box)
    over = np.abs(points - (0, 0, 0.15)) - np.array([0.25, 0.2, 0.15])
    assert len(points) > 300
    np.testing.assert_allclose(over.max(axis=1), 0, atol=1e-4)
    # Two sides and the top are in view.
    assert set(over.argmax(axis=1)) == {0, 1, 2}


def test_the_outline_of_a_box_is_that_of_the_closed_form():
    box = Box('green', (3.0, 2.5, 0.0), 0.0, (0.5, 0.4, 0.3))
    pose = Pose.looking((1.0, 2.5, 0.4), 0.0)
    frame = scene_with(box).render(CAMERA, pose)
    rays = directions(CAMERA, pose)
    offset = pose.position_m - (3.0, 2.5, 0.15)
    with np.errstate(divide='ignore'):
        ends = np.stack([(side * np.array([0.25, 0.2, 0.15]) - offset) / rays for side in (-1, 1)])
    enter, leave = ends.min(axis=0).max(axis=-1), ends.max(axis=0).min(axis=-1)
    assert np.count_nonzero((frame.object_ids == 0) != (enter <= leave)) <= 3
    assert frame.objects[0].visible_fraction == 1.0


def test_a_cylinder_ends_at_its_top_when_seen_from_below_it():
    cylinder = Cylinder('white', (3.0, 2.5, 0.0), 0.0, 0.2, 0.5)
    frame = scene_with(cylinder).render(CAMERA, Pose.looking((1.0, 2.3, 0.3), 0.1, 0.05))
    points = own_points(frame, cylinder)
    assert len(points) > 300
    assert 0.47 < points[:, 2].max() < 0.5 + 1e-4


def test_points_of_a_cylinder_lie_on_its_side_and_its_top():
    cylinder = Cylinder('white', (3.0, 2.5, 0.0), 0.0, 0.2, 0.5)
    frame = scene_with(cylinder).render(CAMERA, Pose.looking((1.0, 2.3, 1.1), 0.1, -0.4))
    points = own_points(frame, cylinder)
    radius = np.hypot(points[:, 0], points[:, 1])
    on_top = points[:, 2] > 0.5 - 1e-4
    assert 20 < on_top.sum() < len(points) - 100
    np.testing.assert_allclose(radius[~on_top], 0.2, atol=1e-4)
    assert points[:, 2].min() > -1e-4 and radius.max() < 0.2 + 1e-4


def test_points_of_a_cone_lie_on_its_side():
    cone = Cone('yellow', (3.0, 2.5, 0.0), 0.0, 0.2, 0.5)
    frame = scene_with(cone).render(CAMERA, Pose.looking((1.0, 2.3, 1.1), 0.1, -0.4))
    points = own_points(frame, cone)
    radius = np.hypot(points[:, 0], points[:, 1])
    assert len(points) > 200
    np.testing.assert_allclose(radius, 0.2 * (0.5 - points[:, 2]) / 0.5, atol=1e-4)
    assert points[:, 2].min() > -1e-4 and points[:, 2].max() > 0.45


def test_cone_is_seen_from_below_too():
    cone = Cone('yellow', (3.0, 2.5, 1.5), 0.0, 0.2, 0.5)
    frame = scene_with(cone).render(CAMERA, Pose.looking((2.4, 2.5, 0.3), 0.0, 1.1))
    points = own_points(frame, cone)
    assert len(points) > 300
    np.testing.assert_allclose(points[:, 2], 0.0, atol=1e-4)


def test_depth_belongs_to_the_ray_and_not_to_the_camera():
    scene = Scene.random(11)
    whole = scene.render(CAMERA)
    detail = scene.render(CAMERA.crop(40, 30, 64, 48))
    np.testing.assert_allclose(
        detail.depth_m, whole.depth_m[30:78, 40:104], rtol=1e-5)
    np.testing.assert_array_equal(detail.object_ids, whole.object_ids[30:78, 40:104])
    # Every third pixel of a finer image sees along the same ray.
    fine = scene.render(Intrinsics(
        480, 360, 3 * CAMERA.fx, 3 * CAMERA.fy, 3 * CAMERA.cx, 3 * CAMERA.cy))
    same = fine.object_ids[::3, ::3] == whole.object_ids
    assert same.mean() > 0.999
    np.testing.assert_allclose(
        fine.depth_m[::3, ::3][same], whole.depth_m[same], rtol=1e-5)


def test_nearer_things_hide_those_behind():
    near = Box('red', (2.5, 2.5, 0.0), 0.0, (0.3, 0.5, 0.5))
    far = Ball('blue', (4.0, 2.5, 0.0), 0.0, 0.4)
    pose = Pose.looking((0.8, 2.5, 0.9), 0.0, -0.2)
    alone = scene_with(far).render(CAMERA, pose)
    for order in ((near, far), (far, near)):
        frame = scene_with(*order).render(CAMERA, pose)
        box = next(thing for thing in frame.objects if thing.shape == 'box')
        ball = next(thing for thing in frame.objects if thing.shape == 'ball')
        assert box.visible_fraction == 1.0
        assert ball.visible_fraction == pytest.approx(ball.pixels / alone.objects[0].pixels)
        assert 0.05 < ball.visible_fraction < 0.9
        assert box.depth_m < ball.depth_m
        hidden = (alone.object_ids == 0) & (frame.object_ids == box.index)
        assert (frame.depth_m[hidden] < alone.depth_m[hidden]).all()


def test_a_thing_wholly_hidden_is_not_listed():
    near = Box('red', (1.8, 2.5, 0.0), 0.0, (0.3, 1.5, 1.5))
    far = Ball('blue', (4.0, 2.5, 0.0), 0.0, 0.2)
    frame = scene_with(near, far).render(CAMERA, Pose.looking((0.5, 2.5, 0.9), 0.0, -0.1))
    assert [thing.label for thing in frame.objects] == ['red box']


def test_objects_describe_their_pixels():
    found = 0
    for seed in range(12):
        frame = Scene.random(seed).render(CAMERA)
        height, width = frame.depth_m.shape
        points = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)
        for thing in frame.objects:
            found += 1
            seen = frame.object_ids == thing.index
            u, v = points[seen].T
            assert thing.pixels == seen.sum()
            assert thing.box == (u.min() - 0.5, v.min() - 0.5, u.max() + 0.5, v.max() + 0.5)
            assert seen[thing.pixel[1], thing.pixel[0]]
            depth = frame.depth_m[seen]
            assert thing.depth_m == pytest.approx(np.median(depth), rel=0.02)
            x = np.median((u - CAMERA.cx) / CAMERA.fx * depth)
            assert thing.point_m[0] == pytest.approx(x, abs=0.02)
            y = np.median((v - CAMERA.cy) / CAMERA.fy * depth)
            assert thing.point_m[1] == pytest.approx(y, abs=0.02)
            assert thing.point_m[2] == thing.depth_m
            assert 0 < thing.visible_fraction <= 1
    assert found > 30


def test_render_is_the_same_to_the_bit():
    one, two = (Scene.random(5).render(CAMERA) for _ in range(2))
    np.testing.assert_array_equal(one.rgb, two.rgb)
    np.testing.assert_array_equal(one.depth_m, two.depth_m)
    assert one.objects == two.objects


def test_depth_is_finite_and_positive_everywhere():
    for seed in range(20):
        frame = Scene.random(seed).render(CAMERA)
        assert np.isfinite(frame.depth_m).all() and frame.depth_m.min() > 0.05


@pytest.mark.parametrize('shape', [(1, 1), (7, 3), (1400, 900)])
def test_any_image_size_is_rendered(shape):
    frame = Scene.random(2).render(Intrinsics.centred(*shape, 500.0))
    assert frame.rgb.shape == (shape[1], shape[0], 3)
    assert frame.depth_m.shape == frame.object_ids.shape == (shape[1], shape[0])


@pytest.mark.parametrize('shape', [(120, 160), (720, 1280)])
def test_the_noise_of_two_images_differs_and_of_one_does_not(shape):
    dark = np.zeros((3, *shape), np.float32)
    sensor = Sensor(noise=9.0, vignetting=0.0, blur_px=0.5, gains=(1.0, 1.0, 1.0))
    one, other, again = (sensor.develop(dark.copy(), key) for key in (b'a', b'b', b'a'))
    assert (one != other).mean() > 0.3
    np.testing.assert_array_equal(one, again)


def test_a_camera_outside_the_room_is_refused():
    with pytest.raises(ValueError, match='inside the room'):
        Scene.random(2).render(CAMERA, Pose.looking((-1.0, 1.0, 1.0), 0.0))


@pytest.mark.parametrize('width', [0.02, 0.2, 0.6, 0.9, 2.0, 3.5])
def test_patterns_are_the_mean_over_the_footprint(width):
    joint = 0.05
    x = np.linspace(-2.3, 3.1, 101).astype(np.float32)
    shade, cover = pattern(x, np.full_like(x, width), joint)
    inside = x[:, None] + (np.arange(4000) + 0.5) / 4000 * width - width / 2
    tiles = np.where(np.floor(inside) % 2 == 0, 1.0, -1.0).mean(axis=1)
    lines = (np.abs(inside - np.rint(inside)) < joint / 2).mean(axis=1)
    # Wider than two tiles, the mean is what remains.
    np.testing.assert_allclose(shade, tiles if width < 1 else 0, atol=2e-3 / width)
    np.testing.assert_allclose(cover, lines if width < 1 else joint, atol=0.03)


def test_patterns_are_averaged_over_each_pixel():
    scene = scene_with(size_m=(9.0, 9.0, 3.0))
    scene = replace(scene, sensor=replace(
        scene.sensor, noise=0.0, vignetting=0.0, blur_px=1e-3, gains=(0.8, 0.8, 0.8)))
    pose = Pose.looking((1.0, 1.0, 1.6), 0.7, -0.2)
    coarse_camera = Intrinsics.centred(48, 36, 30.0)
    coarse = scene.render(coarse_camera, pose)
    fine = scene.render(coarse_camera.resize(48 * 9, 36 * 9), pose).rgb.astype(float) ** 2
    averaged = fine.reshape(36, 9, 48, 9, 3).mean(axis=(1, 3))
    light = coarse.rgb.astype(float) ** 2
    floor = coarse.surfaces == 4
    floor[:, 1:] &= floor[:, :-1]
    error = np.abs(light - averaged)[floor].mean()
    assert error < 0.5 * np.abs(fine[4::9, 4::9] - averaged)[floor].mean()
    assert light[floor].mean() == pytest.approx(averaged[floor].mean(), rel=0.02)
