# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Rooms with exact depth, and questions about them with exact answers."""

from .frame import Frame, VisibleObject
from .judge import judge
from .pose import Pose
from .scene import Scene
from .texts import all_texts

__all__ = ['Frame', 'Pose', 'Scene', 'VisibleObject', 'all_texts', 'judge']
