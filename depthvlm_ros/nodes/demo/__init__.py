# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The demonstration: a camera, the depth node, and somebody who looks and asks."""
