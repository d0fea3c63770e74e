# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The part of sensor_msgs_py that depthvlm_ros uses."""
