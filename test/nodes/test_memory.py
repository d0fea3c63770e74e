# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
import platform
import subprocess
import sys

from depthvlm_ros.nodes.memory import device_memory_mb, memory_mb
import pytest
import torch

# Large blocks that threads make and others free, as images go through the node.
CHURN = """
import sys, threading
import numpy as np
from depthvlm_ros.nodes.memory import memory_mb, settle_malloc
if sys.argv[1] == 'settled':
    assert settle_malloc()
kept = []
def churn():
    for size in range(200):
        kept.append(np.ones(30000 + 997 * size, np.uint8))
        if len(kept) > 100:
            kept.pop(0)
for _ in range(40):
    threads = [threading.Thread(target=churn) for _ in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    kept[:] = kept[-100:]
with open('/proc/self/maps') as maps:
    # A thread's arena begins on a multiple of 64 MiB.
    starts = {int(line.split('-')[0], 16) for line in maps if len(line.split()) == 5}
print(sum(start % 2**26 == 0 for start in starts))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='mallopt is of glibc')
def test_threads_share_arenas_once_malloc_is_settled():
    arenas = {how: int(subprocess.run(
        [sys.executable, '-c', CHURN, how], capture_output=True, text=True, check=True,
        timeout=300).stdout) for how in ('settled', 'as it was')}
    assert arenas['settled'] <= 2 < arenas['as it was'], arenas


def test_the_memory_that_is_held_is_told():
    before_mb = memory_mb()
    held = bytearray(b'1') * (100 * 2**20)
    assert 90 <= memory_mb() - before_mb <= 120
    assert len(held)
    assert device_memory_mb(torch.device('cpu')) == 0
