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
        for channel in range(3):
            plane = radiance[channel]
            plane *= falloff
            plane *= np.float32(self.gains[channel] * 255 ** 2)
        # The square root stands for the display's gamma.
        image = cv2.merge(list(np.sqrt(radiance, out=radiance)))
        image = cv2.GaussianBlur(image, (3, 3), self.blur_px)
        image += _noise(image.shape, self.noise, key)
        np.clip(image, 0, 255, out=image)
        return np.rint(image, out=image).astype(np.uint8)


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
    else:
        pool = np.resize(pool, size)
    return (pool * np.float32(sigma)).reshape(shape)
