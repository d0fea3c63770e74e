# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The memory of this process: how much it holds, and how it is kept from growing."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os

# Of mallopt(3), glibc.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8


def settle_malloc() -> bool:
    """
    Let memory be used again instead of asked for again; call it before there are threads.

    Images and clouds are made in one thread and freed in another. With an arena for each thread,
    as glibc has by default, what is free in one is of no use to the next, and a node that runs
    for days holds ever more; so all threads share two. And each large array is a mapping of its
    own by default, whose pages are fetched one by one, which takes longer than filling them.

    :return: whether that could be done; other C libraries than glibc are left as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return all(mallopt(option, value) for option, value in (
        (M_ARENA_MAX, 2), (M_MMAP_THRESHOLD, 32 * 2**20), (M_TRIM_THRESHOLD, 256 * 2**20)))


def give_back() -> None:
    """
    Collect what only cycles hold, and return what is free to the system.

    What belongs to an active node is full of cycles, callbacks and whose they are, and holds
    images and what was seen in them. Python would leave that for minutes, as there is little else
    that it would have to collect.
    """
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):      # of glibc
        ctypes.CDLL(None).malloc_trim(0)


def give_back_device() -> None:
    """Give back too what torch keeps of CUDA devices for tensors that are gone."""
    give_back()
    import torch
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def memory_mb() -> int:
    """Return how much of the host's memory this process holds."""
    with open('/proc/self/statm') as file:
        pages = int(file.read().split()[1])
    return pages * os.sysconf('SC_PAGE_SIZE') // 2**20


def device_memory_mb(device) -> int:
    """
    Return how much of a CUDA device's memory torch holds for this process, 0 on others.

    :param device: torch.device.
    """
    if device.type != 'cuda':
        return 0
    import torch
    return torch.cuda.memory_reserved(device) // 2**20
