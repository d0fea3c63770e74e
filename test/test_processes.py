# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Processes that work for others end with them."""

import contextlib
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys

from depthvlm_ros.processes import end_with_parent, ending_with_parent
import pytest

SOURCE = Path(__file__).parents[1]
PATIENCE_S = 120
WORK = """
import multiprocessing
import sys
import time

from depthvlm_ros.processes import end_with_parent


def work():
    end_with_parent()
    print('begun', flush=True)
    time.sleep(3600)


if __name__ == '__main__':
    multiprocessing.get_context(sys.argv[1]).Process(target=work).start()
    time.sleep(3600)
"""


COMMAND = """
import subprocess
import sys
import time

from depthvlm_ros.processes import ending_with_parent

subprocess.Popen(ending_with_parent([sys.executable, '-c', sys.argv[1]]))
time.sleep(3600)
"""
ASKED_TO_END = """
import os
import signal
import sys
import time


def end(*_):
    os.write(1, b'ended\\n')    # print may be under way
    sys.exit()


signal.signal(signal.SIGTERM, end)
print('begun', flush=True)
time.sleep(3600)
"""


@pytest.mark.parametrize('method', ['fork', 'spawn'])
def test_a_process_whose_parent_is_killed_ends(tmp_path, method):
    script = tmp_path / 'work.py'
    script.write_text(WORK)
    parent = subprocess.Popen(
        [sys.executable, script, method], stdout=subprocess.PIPE, text=True,
        start_new_session=True, env={**os.environ, 'PYTHONPATH': str(SOURCE)})
    assert said_once_killed(parent) == ''


@pytest.mark.skipif(shutil.which('setpriv') is None, reason='this machine has no setpriv')
def test_a_command_whose_parent_is_killed_is_asked_to_end():
    parent = subprocess.Popen(
        [sys.executable, '-c', COMMAND, ASKED_TO_END], stdout=subprocess.PIPE, text=True,
        start_new_session=True, env={**os.environ, 'PYTHONPATH': str(SOURCE)})
    assert said_once_killed(parent) == 'ended\n'


def said_once_killed(parent):
    """Kill a process whose child has begun, and return what that says until it ends."""
    try:
        assert parent.stdout.readline() == 'begun\n'
        parent.kill()
        return parent.communicate(timeout=PATIENCE_S)[0]    # the child has this pipe too
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)


def test_without_setpriv_a_command_is_as_it_was(monkeypatch):
    monkeypatch.setenv('PATH', '')
    assert ending_with_parent(['sleep', '1']) == ['sleep', '1']


def test_a_process_that_nobody_began_goes_on():
    end_with_parent()
