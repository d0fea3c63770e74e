# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Processes that work for others end with them."""

import contextlib
import os
from pathlib import Path
import signal
import subprocess
import sys

from depthvlm_ros.processes import end_with_parent
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


@pytest.mark.parametrize('method', ['fork', 'spawn'])
def test_a_process_whose_parent_is_killed_ends(tmp_path, method):
    script = tmp_path / 'work.py'
    script.write_text(WORK)
    parent = subprocess.Popen(
        [sys.executable, script, method], stdout=subprocess.PIPE, text=True,
        start_new_session=True, env={**os.environ, 'PYTHONPATH': str(SOURCE)})
    try:
        assert parent.stdout.readline() == 'begun\n'
        parent.kill()
        parent.communicate(timeout=PATIENCE_S)      # the child has this pipe too
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)


def test_a_process_that_nobody_began_goes_on():
    end_with_parent()
