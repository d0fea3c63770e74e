# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Spinning that survives entities being withdrawn meanwhile, as a lifecycle node does."""

from __future__ import annotations

import time

from rclpy.exceptions import InvalidHandle
from rclpy.executors import Executor

PAUSE_S = 0.01


def spin(executor: Executor) -> None:
    """
    Spin until the executor or its context is shut down.

    An executor that gathers what to wait for, just as another thread destroys some of it, raises
    InvalidHandle; on the next round that is gone.
    """
    while True:
        try:
            executor.spin()
        except InvalidHandle:
            time.sleep(PAUSE_S)
        else:
            return
