# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""From light to an image: exposure, white balance, vignetting, sharpness, noise."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
import zlib

import cv2
import numpy as np

_POOL = 1 << 20


@dataclass(frozen=True)
class Sensor:
    """
    A camera's sensor and lens.

    :param gains: exposure times white balance, (red, green, blue).
    :param vignetting: the share of light lost in the corners.
    :param blur_px: standard deviation of the lens's blur.
    :param noise: standard deviation of the noise, in steps of the 8-bit image.
    """

    gains: tuple[float, float, float]
    vignetting: float
    blur_px: float
    noise: float

    def develop(self, radiance: np.ndarray, key: bytes) -> np.ndarray:
        """
        Turn light into an image.

        :param radiance: (3, H, W) float32, linear; overwritten.
        :param key: what the noise depends on; the same key gives the same noise.
        :return: (H, W, 3) uint8, red first.
        """
        height, width = radiance.shape[1:]
        x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
        y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
        falloff = 1 - np.float32(self.vignetting / 2) * (x * x + y * y)
        # Half a step more, because the conversion to uint8 cuts off.
        noise = _noise(radiance.shape, self.noise, key)
        noise += np.float32(0.5)
        channels = []
        for gain, plane, grain in zip(self.gains, radiance, noise, strict=True):
            plane *= falloff
            plane *= np.float32(gain * 255 ** 2)
            # The square root stands for the display's gamma.
            np.sqrt(plane, out=plane)
            grain += cv2.GaussianBlur(plane, (3, 3), self.blur_px)
            channels.append(np.clip(grain, 0, 255, out=grain).astype(np.uint8))
        return cv2.merge(channels)


@lru_cache(maxsize=1)
def _pool() -> np.ndarray:
    """Return one long run of noise, from which every image takes a piece."""
    return np.random.default_rng(20260101).standard_normal(_POOL, dtype=np.float32)


def _noise(shape: tuple[int, ...], sigma: float, key: bytes) -> np.ndarray:
    """Return noise that depends on the key alone."""
    size = int(np.prod(shape))
    pool = _pool()
    if size < _POOL:
        start = zlib.crc32(key) % (_POOL - size)
        pool = pool[start:start + size]
    else:   # more than there is: from a place of its own on, around and around
        pool = np.resize(np.roll(pool, -(zlib.crc32(key) % _POOL)), size)
    return (pool * np.float32(sigma)).reshape(shape)
