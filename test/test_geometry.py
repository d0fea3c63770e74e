# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
import cv2
from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.geometry import (
    checked_depth,
    depth_edges,
    organised_points,
    project,
    unproject,
    valid_range,
)
from depthvlm_ros.synthetic import Scene
import numpy as np
import pytest

CAMERA = Intrinsics(64, 48, 50.0, 70.0, 30.2, 25.7)


def test_project_undoes_unproject():
    rng = np.random.default_rng(1)
    u, v = rng.uniform(-0.5, 63.5, 100), rng.uniform(-0.5, 47.5, 100)
    depth_m = rng.uniform(0.1, 50.0, 100)
    points = unproject(u, v, depth_m, CAMERA)
    np.testing.assert_allclose(points[:, 2], depth_m)
    np.testing.assert_allclose(project(points, CAMERA), np.stack([u, v], axis=-1), atol=1e-9)


def test_unproject_of_known_pixels():
    np.testing.assert_allclose(unproject(30.2, 25.7, 2.0, CAMERA), [0, 0, 2])
    # One focal length to the right and down is one depth to the right and down.
    np.testing.assert_allclose(unproject(80.2, 95.7, 3.0, CAMERA), [3, 3, 3])


def test_points_that_are_not_in_front_have_no_pixel():
    pixels = project([[0, 0, 1], [0, 0, 0], [1, 1, -1]], CAMERA)
    assert np.isfinite(pixels[0]).all()
    assert np.isnan(pixels[1:]).all()


def test_project_refuses_other_than_points():
    with pytest.raises(ValueError, match=r'\(4, 2\)'):
        project(np.zeros((4, 2)), CAMERA)


def test_organised_points_are_the_unprojected_depth():
    rng = np.random.default_rng(2)
    depth_m = rng.uniform(0.1, 10.0, (48, 64)).astype(np.float32)
    depth_m[3, 5] = np.nan
    points = organised_points(depth_m, CAMERA)
    v, u = np.mgrid[:48, :64]
    assert points.dtype == np.float32
    assert np.isnan(points[3, 5]).all()
    np.testing.assert_allclose(points, unproject(u, v, depth_m, CAMERA), rtol=1e-5, atol=1e-6)


def test_a_wall_stays_a_plane():
    # The plane 0.6 x + 0.8 z = 4 in the optical frame.
    v, u = np.mgrid[:48, :64]
    depth_m = 4.0 / (0.6 * (u - CAMERA.cx) / CAMERA.fx + 0.8)
    points = organised_points(depth_m, CAMERA)
    np.testing.assert_allclose(points @ np.array([0.6, 0, 0.8]), 4.0, rtol=1e-5)


def test_valid_range_gives_nan_and_never_clips():
    depth_m = np.array([[-1.0, 0.0, 0.2, 0.5, 5.0, 5.1, np.inf, np.nan]], np.float32)
    kept = valid_range(depth_m, 0.5, 5.0)
    np.testing.assert_array_equal(kept, [[np.nan] * 3 + [0.5, 5.0] + [np.nan] * 3])
    assert kept.dtype == np.float32
    unlimited = valid_range(depth_m, 0.0, 0.0)
    np.testing.assert_array_equal(
        unlimited, np.float32([[np.nan, np.nan, 0.2, 0.5, 5.0, 5.1, np.nan, np.nan]]))


@pytest.mark.parametrize('limits', [(-1, 5), (np.nan, 5), (1, np.nan), (3, 2), (3, 3), (0, -1)])
def test_valid_range_refuses_an_empty_range(limits):
    with pytest.raises(ValueError, match='wanted metres'):
        valid_range(np.ones((2, 2)), *limits)


def test_depth_edges_mark_both_sides_of_a_jump():
    depth_m = np.full((4, 6), 2.0, np.float32)
    depth_m[:, 3:] = 3.0
    depth_m[0, 0] = np.nan
    expected = np.zeros((4, 6), bool)
    expected[:, 2:4] = True
    np.testing.assert_array_equal(depth_edges(depth_m, 0.1), expected)
    np.testing.assert_array_equal(depth_edges(depth_m.T, 0.1), expected.T)
    assert not depth_edges(depth_m, 0.51).any()
    with pytest.raises(ValueError, match='threshold is 0'):
        depth_edges(depth_m, 0)


def flying(depth_m, true_m, reach_px=3):
    """Return which depths are 5 cm + 5 % off every true surface within some pixels."""
    padded = np.pad(true_m, reach_px, mode='edge')
    height, width = true_m.shape
    off_m = np.min([np.abs(depth_m - near_m) - 0.05 * near_m for near_m in (
        padded[v:v + height, u:u + width]
        for v in range(2 * reach_px + 1) for u in range(2 * reach_px + 1))], axis=0)
    return off_m > 0.05


@pytest.mark.parametrize('blur_px', [1.0, 1.5])
def test_depth_edges_are_where_pixels_fly(blur_px):
    """Hold the figures of docs/experiments.md: true depth, blurred as networks blur it."""
    before, after, lost = [], [], []
    for seed in range(6):
        true_m = Scene.random(seed).render(Intrinsics.centred(320, 240, 260.0)).depth_m
        depth_m = 1 / cv2.GaussianBlur(1 / true_m, (0, 0), blur_px)
        fly, kept = flying(depth_m, true_m), ~depth_edges(depth_m, 0.05)
        before.append(fly.mean())
        after.append(fly[kept].mean())
        lost.append(1 - kept[~fly].mean())
    assert np.mean(before) > 0.003
    assert np.mean(after) < 0.1 * np.mean(before)
    assert np.mean(lost) < 0.02, 'what does not fly is kept'


def test_depth_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r'\(64, 48\), wanted'):
        checked_depth(np.zeros((64, 48)), CAMERA)
