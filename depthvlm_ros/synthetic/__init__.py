# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Rooms with exact depth, and questions about them with exact answers."""

from depthvlm_ros.synthetic.cameras import draw_camera
from depthvlm_ros.synthetic.frame import Frame, VisibleObject
from depthvlm_ros.synthetic.judge import judge
from depthvlm_ros.synthetic.pose import Pose
from depthvlm_ros.synthetic.scene import Scene

__all__ = ['Frame', 'Pose', 'Scene', 'VisibleObject', 'draw_camera', 'judge']
