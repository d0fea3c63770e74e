# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The light of a room: some from everywhere, the rest from one lamp."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Light:
    """
    The light of a room.

    :param lamp_m: where the lamp is, world frame.
    :param ambient: light from everywhere.
    :param strength: light of the lamp on a surface that faces it from nearby.
    :param reach_m: distance at which the lamp has half its strength.
    """

    lamp_m: tuple[float, float, float]
    ambient: float
    strength: float
    reach_m: float

    def _fall(self, toward: np.ndarray, distance2: np.ndarray) -> np.ndarray:
        """Return the light where toward is normal . (lamp - point), metres."""
        lamp = toward / np.sqrt(distance2 + np.float32(1e-6))
        lamp /= distance2 * np.float32(1 / self.reach_m ** 2) + 1
        lamp *= np.float32(self.strength)
        lamp += np.float32(self.ambient)
        return lamp

    def on_plane(self, patch) -> np.ndarray:
        """Return the light on the points of one of the room's planes, (N,) float32."""
        a, b = (np.float32(self.lamp_m[axis]) for axis in patch.axes)
        away = np.float32(abs(self.lamp_m[patch.axis] - patch.bound_m))
        distance2 = (patch.a - a) ** 2 + (patch.b - b) ** 2 + away * away
        return self._fall(away, distance2)

    def on_solid(self, points: list[np.ndarray], normal: list[np.ndarray], lamp) -> np.ndarray:
        """
        Return the light on a solid's surface.

        :param points: three arrays, in any frame.
        :param normal: three arrays, in the same frame.
        :param lamp: (3,) the lamp in the same frame.
        """
        to_lamp = [np.float32(lamp[i]) - points[i] for i in range(3)]
        distance2 = to_lamp[0] ** 2 + to_lamp[1] ** 2 + to_lamp[2] ** 2
        toward = normal[0] * to_lamp[0] + normal[1] * to_lamp[1] + normal[2] * to_lamp[2]
        return self._fall(np.clip(toward, 0, np.inf), distance2)
