# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Poses as messages and as matrices."""

from __future__ import annotations

import cv2
from geometry_msgs.msg import Pose
import numpy as np


def pose_message(t_parent_child: np.ndarray) -> Pose:
    """
    Return a rigid transform as a message.

    :param t_parent_child: (4, 4) float64, takes points of the child frame to the parent frame.
    """
    message = Pose()
    position, orientation = message.position, message.orientation
    position.x, position.y, position.z = map(float, t_parent_child[:3, 3])
    turn_rad = cv2.Rodrigues(np.ascontiguousarray(t_parent_child[:3, :3]))[0].ravel()
    angle_rad = float(np.linalg.norm(turn_rad))
    axis = turn_rad / angle_rad if angle_rad else np.zeros(3)
    orientation.x, orientation.y, orientation.z = map(float, axis * np.sin(angle_rad / 2))
    orientation.w = float(np.cos(angle_rad / 2))
    return message


def pose_matrix(message: Pose) -> np.ndarray:
    """
    Return a pose as the (4, 4) float64 matrix that takes the child's points to the parent's.

    :raises ValueError: a quaternion of length zero.
    """
    q = message.orientation
    axis = np.array([q.x, q.y, q.z])
    sine = float(np.linalg.norm(axis))
    if sine == 0.0 and q.w == 0.0:
        raise ValueError('the orientation is all zeros, wanted a quaternion')
    turn_rad = axis / sine * 2.0 * np.arctan2(sine, q.w) if sine else np.zeros(3)
    matrix = np.eye(4)
    matrix[:3, :3] = cv2.Rodrigues(turn_rad)[0]
    matrix[:3, 3] = [message.position.x, message.position.y, message.position.z]
    return matrix
