# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Depth images and the points they stand for.

Depth is the distance along the optical axis in metres (z-depth, REP 118), float32, and NaN alone
marks what is not known. Points stand in the optical frame of REP 103: x right, y down, z forward.
"""

from __future__ import annotations

from depthvlm_ros.camera import Intrinsics
import numpy as np


def unproject(u, v, depth_m, intrinsics: Intrinsics) -> np.ndarray:
    """
    Return the points that the pixels show.

    :param u: pixel columns, any shape that broadcasts with v and depth_m.
    :param v: pixel rows.
    :param depth_m: metres along the optical axis; NaN gives NaN points.
    :param intrinsics: the rectified camera.
    :return: (..., 3) float64, metres in the optical frame.
    """
    u, v, z = np.broadcast_arrays(
        np.asarray(u, float), np.asarray(v, float), np.asarray(depth_m, float))
    x = (u - intrinsics.cx) / intrinsics.fx * z
    y = (v - intrinsics.cy) / intrinsics.fy * z
    return np.stack([x, y, z], axis=-1)


def project(points, intrinsics: Intrinsics) -> np.ndarray:
    """
    Return the pixels that show the points.

    :param points: (..., 3), metres in the optical frame.
    :param intrinsics: the rectified camera.
    :return: (..., 2) float64, (u, v) in px, which may lie outside the image; NaN for points that
        are not in front of the camera.
    :raises ValueError: points whose last axis is not 3 long.
    """
    points = np.asarray(points, float)
    if points.ndim == 0 or points.shape[-1] != 3:
        raise ValueError(f'points have shape {points.shape}, wanted (..., 3)')
    z = np.where(points[..., 2] > 0, points[..., 2], np.nan)
    u = points[..., 0] / z * intrinsics.fx + intrinsics.cx
    v = points[..., 1] / z * intrinsics.fy + intrinsics.cy
    return np.stack([u, v], axis=-1)


def ray_slopes(intrinsics: Intrinsics) -> tuple[np.ndarray, np.ndarray]:
    """Return how far right each column, and how far down each row, looks per metre of depth."""
    return (((np.arange(intrinsics.width) - intrinsics.cx) / intrinsics.fx).astype(np.float32),
            ((np.arange(intrinsics.height) - intrinsics.cy) / intrinsics.fy).astype(np.float32))


def organised_points(depth_m: np.ndarray, intrinsics: Intrinsics) -> np.ndarray:
    """
    Return one point for every pixel.

    :param depth_m: (H, W) metres along the optical axis, NaN invalid.
    :param intrinsics: the rectified camera, of the same size.
    :return: (H, W, 3) float32, metres in the optical frame, all three NaN where depth is.
    :raises ValueError: a depth image of another size than the camera's.
    """
    depth_m = checked_depth(depth_m, intrinsics)
    x_of_z, y_of_z = ray_slopes(intrinsics)
    points = np.empty((*depth_m.shape, 3), np.float32)
    np.multiply(depth_m, x_of_z[None, :], out=points[..., 0])
    np.multiply(depth_m, y_of_z[:, None], out=points[..., 1])
    points[..., 2] = depth_m
    return points


def valid_range(depth_m: np.ndarray, min_m: float, max_m: float) -> np.ndarray:
    """
    Return the depth with NaN in place of everything outside [min_m, max_m].

    Nothing is clipped: a wall beyond the range must not look like a wall at its end. Infinite,
    zero and negative depths become NaN too.

    :param depth_m: any shape, metres, NaN invalid.
    :param min_m: nearest depth that is kept, in metres.
    :param max_m: farthest depth that is kept, in metres; 0 or infinity for no limit.
    :return: float32, a new array of the same shape.
    :raises ValueError: a range that is negative, NaN or empty.
    """
    if not min_m >= 0:
        raise ValueError(f'min_m is {min_m!r}, wanted metres, 0 or more')
    if not max_m >= 0 or 0 < max_m <= min_m:
        raise ValueError(f'max_m is {max_m!r}, wanted metres above min_m = {min_m!r}, or 0')
    depth_m = np.asarray(depth_m, np.float32)
    with np.errstate(invalid='ignore'):
        kept = np.isfinite(depth_m) & (depth_m > 0) & (depth_m >= min_m)
        if max_m > 0:
            kept &= depth_m <= max_m
    return np.where(kept, depth_m, np.float32(np.nan))


def depth_edges(depth_m: np.ndarray, threshold: float) -> np.ndarray:
    """
    Return where depth jumps, on both sides of each jump.

    Pixels there show a mixture of near and far, and fly between the two in a cloud.

    :param depth_m: (H, W) metres, NaN invalid; a jump to NaN is none.
    :param threshold: the least jump between neighbours (left, right, above, below), as a share
        of the nearer depth; 0.1 means 10 cm at 1 m.
    :return: (H, W) bool.
    :raises ValueError: a threshold that is not positive.
    """
    if not threshold > 0:
        raise ValueError(f'threshold is {threshold!r}, wanted a positive share of the depth')
    depth_m = np.asarray(depth_m, np.float32)
    edges = np.zeros(depth_m.shape, bool)
    for first, second in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        near = np.minimum(depth_m[first], depth_m[second])
        with np.errstate(invalid='ignore'):
            jump = np.abs(depth_m[first] - depth_m[second]) > threshold * near
        edges[first] |= jump
        edges[second] |= jump
    return edges


def checked_depth(depth_m: np.ndarray, intrinsics: Intrinsics) -> np.ndarray:
    """
    Return the depth image as float32, if it is of the camera's size.

    :raises ValueError: a depth image of another size.
    """
    depth_m = np.asarray(depth_m, np.float32)
    if depth_m.shape != (intrinsics.height, intrinsics.width):
        raise ValueError(
            f'the depth image has shape {depth_m.shape}, wanted (height, width) = '
            f'{(intrinsics.height, intrinsics.width)}')
    return depth_m
