# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A closed walk of a camera: an ellipse over the floor, the eye on one spot of the room."""

from __future__ import annotations

from dataclasses import dataclass
import math

from depthvlm_ros.synthetic.pose import Pose
import numpy as np

PERIOD_S = 20.0


@dataclass(frozen=True)
class Walk:
    """
    A closed walk.

    :param start_m: (x, y, z) where it begins and ends, world frame.
    :param target_m: (x, y) of the spot that the camera turns to.
    :param heading_rad: direction of the ellipse's first axis.
    :param semi_axes_m: of the ellipse; along its first axis, and across.
    :param rise_m: how much the camera goes up and down.
    :param pitch_rad: its pitch at the start.
    :param roll_rad: its roll at the start.
    :param sway_rad: how much pitch and roll change on the way.
    """

    start_m: tuple[float, float, float]
    target_m: tuple[float, float]
    heading_rad: float
    semi_axes_m: tuple[float, float]
    rise_m: float
    pitch_rad: float
    roll_rad: float
    sway_rad: float

    def pose_at(self, t_s: float) -> Pose:
        """Return the pose at a time; times a period apart have the same one."""
        phase = math.tau * (t_s / PERIOD_S % 1.0)
        x, y = self.path_m(phase)
        z = self.start_m[2] + self.rise_m * math.sin(2 * phase)
        yaw_rad = math.atan2(self.target_m[1] - y, self.target_m[0] - x)
        return Pose.looking(
            (float(x), float(y), z), yaw_rad,
            self.pitch_rad + self.sway_rad * math.sin(phase),
            self.roll_rad + 0.5 * self.sway_rad * math.sin(2 * phase))

    def path_m(self, phase):
        """
        Return (x, y) of the walk.

        :param phase: 0 to tau, a number or an array.
        """
        along = self.semi_axes_m[0] * (1 - np.cos(phase))
        across = self.semi_axes_m[1] * np.sin(phase)
        cos_heading, sin_heading = math.cos(self.heading_rad), math.sin(self.heading_rad)
        return (self.start_m[0] + along * cos_heading - across * sin_heading,
                self.start_m[1] + along * sin_heading + across * cos_heading)
