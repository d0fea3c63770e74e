# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The memory of this process: how much it holds, and how it is kept from growing."""

from __future__ import annotations

import ctypes
import os

M_ARENA_MAX = -8    # of mallopt(3), glibc
ARENAS = 2


def bound_arenas() -> bool:
    """
    Let all threads share two of malloc's arenas; call it before there are threads.

    Images and clouds are made in one thread and freed in another. With an arena for each thread,
    as glibc has by default, what is free in one is of no use to the next, and a node that runs
    for days holds ever more.

    :return: whether that could be done; other C libraries than glibc need none of it.
    """
    try:
        return bool(ctypes.CDLL(None).mallopt(M_ARENA_MAX, ARENAS))
    except (AttributeError, OSError):
        return False


def memory_mb() -> int:
    """Return how much of the host's memory this process holds."""
    with open('/proc/self/statm') as file:
        pages = int(file.read().split()[1])
    return pages * os.sysconf('SC_PAGE_SIZE') // 2**20


def device_memory_mb(device) -> int:
    """
    Return how much of a CUDA device's memory this process holds, 0 on others.

    :param device: torch.device.
    """
    if device.type != 'cuda':
        return 0
    import torch
    return torch.cuda.memory_allocated(device) // 2**20
