# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Where a camera stands in a room.

The world frame has x and y along the floor and z up (REP 103), its origin in a floor corner of the
room. The optical frame has x right, y down and z forward.
"""

from __future__ import annotations

from dataclasses import dataclass
import math

import numpy as np


@dataclass(frozen=True, eq=False)
class Pose:
    """
    A camera's pose.

    :param t_world_optical: (4, 4) float64, takes points of the optical frame to the world frame,
        metres.
    :raises ValueError: not a (4, 4) matrix holding a rotation.
    """

    t_world_optical: np.ndarray

    def __post_init__(self):
        matrix = np.array(self.t_world_optical, dtype=np.float64)
        if matrix.shape != (4, 4):
            raise ValueError(f't_world_optical has shape {matrix.shape}, wanted (4, 4)')
        rotation = matrix[:3, :3]
        if not (np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-6)
                and np.linalg.det(rotation) > 0):
            raise ValueError(f't_world_optical holds {rotation.tolist()}, wanted a rotation')
        matrix.setflags(write=False)
        object.__setattr__(self, 't_world_optical', matrix)

    @classmethod
    def looking(
        cls,
        position_m: tuple[float, float, float],
        yaw_rad: float,
        pitch_rad: float = 0.0,
        roll_rad: float = 0.0,
    ) -> Pose:
        """
        Place a camera by its viewing direction.

        :param position_m: (x, y, z) of the optical centre in the world frame.
        :param yaw_rad: heading, from the world's x axis towards its y axis.
        :param pitch_rad: above the horizon, positive up.
        :param roll_rad: about the optical axis, positive turns the camera clockwise.
        """
        cos_yaw, sin_yaw = math.cos(yaw_rad), math.sin(yaw_rad)
        cos_pitch, sin_pitch = math.cos(pitch_rad), math.sin(pitch_rad)
        forward = np.array([cos_pitch * cos_yaw, cos_pitch * sin_yaw, sin_pitch])
        level = np.array([sin_yaw, -cos_yaw, 0.0])
        below = np.cross(forward, level)
        cos_roll, sin_roll = math.cos(roll_rad), math.sin(roll_rad)
        matrix = np.eye(4)
        matrix[:3, 0] = cos_roll * level + sin_roll * below
        matrix[:3, 1] = cos_roll * below - sin_roll * level
        matrix[:3, 2] = forward
        matrix[:3, 3] = position_m
        return cls(matrix)

    @property
    def position_m(self) -> np.ndarray:
        """Return the optical centre in the world frame, (3,) float64."""
        return self.t_world_optical[:3, 3]

    @property
    def rotation(self) -> np.ndarray:
        """Return the rotation from the optical to the world frame, (3, 3) float64."""
        return self.t_world_optical[:3, :3]
