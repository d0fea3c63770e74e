# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The ROS 2 nodes: the only place that knows ROS."""
