# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Cameras of many kinds, drawn by lot."""

from __future__ import annotations

import math

from depthvlm_ros.camera import Intrinsics
import numpy as np

ASPECTS = (4 / 3, 4 / 3, 16 / 9, 3 / 2, 1.0)
FOCAL_RANGE = (0.5, 1.6)  # fx over the image's width
NARROW_RANGE = (math.sqrt(math.prod(FOCAL_RANGE)), FOCAL_RANGE[1])  # half of those drawn alike


def draw_camera(rng: np.random.Generator, width_px: tuple[int, int],
                focal_range: tuple[float, float] = FOCAL_RANGE) -> Intrinsics:
    """
    Draw a camera: focal length 0.5 to 1.6 of the width, pixels nearly square.

    :param rng: what it is drawn with.
    :param width_px: narrowest and widest image.
    :param focal_range: least and most fx over the width; its logarithm is uniform.
    """
    width = int(rng.integers(*width_px, endpoint=True))
    height = round(width / ASPECTS[rng.integers(len(ASPECTS))])
    fx = width * math.exp(rng.uniform(*map(math.log, focal_range)))
    fy = fx * (rng.uniform(0.96, 1.04) if rng.random() < 0.2 else 1.0)
    cx = (width - 1) / 2 + rng.normal(0, 0.01) * width
    cy = (height - 1) / 2 + rng.normal(0, 0.01) * height
    return Intrinsics(width, height, fx, fy, cx, cy)
