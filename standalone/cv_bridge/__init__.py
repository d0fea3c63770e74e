# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The part of cv_bridge's Python face that depthvlm_ros uses, on OpenCV alone."""

from cv_bridge.bridge import CvBridge, CvBridgeError

__all__ = ['CvBridge', 'CvBridgeError']
