# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Processes that work for another one, and end with it."""

import multiprocessing
from multiprocessing.connection import wait
import os
import threading


def end_with_parent():
    """
    Have this process end, at once, when the one that began it has, however that ended.

    A killed process runs nothing at its end; its children would stay for good, blocked in the
    queues that they share. Does nothing in a process that multiprocessing has not begun.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(parent):
    wait([parent.sentinel])
    os._exit(1)
