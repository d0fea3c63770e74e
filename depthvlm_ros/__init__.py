# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Metric depth and spatial answers from one camera, for ROS 2."""

from pkgutil import extend_path

# From a source tree the generated halves (msg, srv, action) stand in the install space, under
# the same package name: both folders together are the package.
__path__ = extend_path(__path__, __name__)

__version__ = '0.1.0'
