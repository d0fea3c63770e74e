# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The rays of an image, scaled to 1 along the optical axis.

A ray's parameter is therefore the depth along the optical axis of the point it meets.
"""

from __future__ import annotations

import copy

from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.geometry import ray_slopes
import numpy as np

# Corners nearer to the image plane than this project to anywhere.
NEAREST_M = 0.02


class Rays:
    """
    The rays through an image's pixel centres.

    :param intrinsics: the camera.
    """

    def __init__(self, intrinsics: Intrinsics):
        self.intrinsics = intrinsics
        # x/z of each column, (W,), and y/z of each row, (H,): float32.
        self.x, self.y = ray_slopes(intrinsics)

    @property
    def shape(self) -> tuple[int, int]:
        """Return the image's (height, width)."""
        return self.y.size, self.x.size

    @property
    def whole(self) -> tuple[slice, slice]:
        """Return all rows and columns."""
        return slice(0, self.y.size), slice(0, self.x.size)

    def band(self, rows: slice) -> Rays:
        """Return the rays of some rows; their intrinsics are those of the crop."""
        first, last, _ = rows.indices(self.y.size)
        band = copy.copy(self)
        band.intrinsics = self.intrinsics.crop(0, first, self.x.size, last - first)
        band.y = self.y[rows]
        return band

    def affine(self, row: np.ndarray, window: tuple[slice, slice] | None = None) -> np.ndarray:
        """
        Evaluate row . (x, y, 1) at every ray.

        :param row: (3,) coefficients.
        :param window: rows and columns of the image to evaluate; all where left out.
        :return: (height, width) float32.
        """
        x, y = self.x, self.y
        if window is not None:
            y, x = y[window[0]], x[window[1]]
        along_v = (np.float32(row[1]) * y + np.float32(row[2]))[:, None]
        return along_v + (np.float32(row[0]) * x)[None, :]

    def corners(self) -> np.ndarray:
        """Return (x, y, 1) of the image's four corner pixels, (4, 3) float64."""
        return np.array([
            [x, y, 1.0] for x in (self.x[0], self.x[-1]) for y in (self.y[0], self.y[-1])])

    def window(self, points_optical_m: np.ndarray) -> tuple[slice, slice] | None:
        """
        Return the rows and columns that the hull of some points covers.

        :param points_optical_m: (N, 3) in the optical frame.
        :return: None where the hull is behind the camera or outside the image; the whole image
            where it reaches behind the camera.
        """
        height, width = self.shape
        z = points_optical_m[:, 2]
        if z.max() <= NEAREST_M:
            return None
        if z.min() <= NEAREST_M:
            return self.whole
        k = self.intrinsics
        u = k.fx * points_optical_m[:, 0] / z + k.cx
        v = k.fy * points_optical_m[:, 1] / z + k.cy
        u_min, u_max = max(0, int(np.floor(u.min()))), min(width, int(np.ceil(u.max())) + 1)
        v_min, v_max = max(0, int(np.floor(v.min()))), min(height, int(np.ceil(v.max())) + 1)
        if u_min >= u_max or v_min >= v_max:
            return None
        return slice(v_min, v_max), slice(u_min, u_max)
