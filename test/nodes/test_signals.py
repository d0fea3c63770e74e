# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The main thread ends its waiting, whoever is handed the signal."""

import subprocess
import sys

import pytest

PRELUDE = """
import os, signal, threading, time
from depthvlm_ros.nodes.signals import StopRequest
stop = StopRequest()
other = threading.Thread(target=time.sleep, args=(60,), daemon=True)
other.start()
def later(function):
    timer = threading.Timer(0.3, function)
    timer.daemon = True
    timer.start()
"""


def left_waiting(script):
    """Run a script that waits; return whether it has ended the waiting in time."""
    try:
        child = subprocess.run([sys.executable, '-c', PRELUDE + script], timeout=120,
                               capture_output=True, text=True)
    except subprocess.TimeoutExpired:
        return False
    assert child.returncode == 0, child.stderr
    return True


@pytest.mark.parametrize('name', ['SIGINT', 'SIGTERM'])
def test_a_signal_that_another_thread_is_handed(name):
    assert left_waiting(
        f'later(lambda: signal.pthread_kill(other.ident, signal.{name}))\nstop.wait()')


@pytest.mark.parametrize('name', ['SIGINT', 'SIGTERM'])
def test_a_signal_to_the_process_before_the_waiting(name):
    assert left_waiting(f'os.kill(os.getpid(), signal.{name})\nstop.wait()')


def test_a_thread_that_says_stop():
    assert left_waiting('later(stop.stop)\nstop.wait()')


def test_no_other_signal_ends_it():
    assert left_waiting("""
seen = []
def handle(*_):
    seen.append(time.monotonic())
    later(stop.stop)
signal.signal(signal.SIGUSR1, handle)
later(lambda: os.kill(os.getpid(), signal.SIGUSR1))
stop.wait()
assert time.monotonic() - seen[0] > 0.2, 'it ended with the signal'
""")
