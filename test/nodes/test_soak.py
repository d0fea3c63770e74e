# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0

from collections import Counter
import json
import os
import re
import signal
import subprocess
import sys

import pytest

pytest.importorskip('rclpy')
from depthvlm_ros.nodes import soak  # noqa: E402
from depthvlm_ros.nodes.soak_rig import Counts, KINDS  # noqa: E402

pytestmark = pytest.mark.ros
KEYS = {'hz', 'p50_ms', 'p99_ms', 'published', 'dropped', 'errors', 'missing', 'rss_start_mb',
        'rss_end_mb'}
LONGEST_S = 300.0


def started(model, *words):
    return subprocess.Popen(
        [sys.executable, '-m', 'depthvlm_ros.nodes.soak', '--model', str(model), '--device', 'cpu',
         *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(child):
    """Return the exit code, the last line's figures and what stderr has left."""
    try:
        output, progress = child.communicate(timeout=LONGEST_S)
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGINT)    # so that it ends its node too
            try:
                child.wait(30.0)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
    assert output, progress
    return child.returncode, json.loads(output.splitlines()[-1]), progress


def test_missing_is_what_an_image_gave_too_few_or_too_many_of():
    counts = Counts()
    assert counts.missing() == 0
    counts.outputs = {stamp_ns: Counter(list(KINDS)) for stamp_ns in (1, 2)}
    assert counts.missing() == 0
    del counts.outputs[1]['points']
    assert counts.missing() == 1
    counts.outputs[2]['image'] += 2
    assert counts.missing() == 3


def test_counts_are_complete_with_every_image_published_and_nothing_missing():
    counts = Counts(outputs={1: Counter(list(KINDS))})
    assert counts.complete(1)
    assert not counts.complete(2)
    counts.outputs[2] = Counter(['image'])
    assert not counts.complete(2)


def test_the_memory_of_a_process_is_positive_and_none_once_it_has_ended():
    assert soak.resident_mb(os.getpid()) > 1.0
    child = subprocess.Popen([sys.executable, '-c', ''])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)     # a zombie now
    assert soak.resident_mb(child.pid) is None
    child.wait()
    assert soak.resident_mb(child.pid) is None


@pytest.mark.slow
def test_the_last_line_is_json_with_every_figure(checkpoint):
    code, figures, progress = ended(
        started(checkpoint, '--minutes', '0.05', '--rate', '5', '--counted', '6'))
    assert set(figures) >= KEYS
    assert code == 0, progress
    assert figures['errors'] == figures['missing'] == 0
    assert figures['published'] > 0
    assert figures['refused'] == figures['sent'] // soak.BROKEN_EVERY
    assert figures['sent'] == sum(figures[name] for name in ('published', 'dropped', 'refused'))
    assert figures['hz'] > 0 and 0 < figures['p50_ms'] <= figures['p99_ms']
    assert figures['rss_start_mb'] > 0 and figures['rss_end_mb'] > 0
    assert 'round 1: ' in progress


@pytest.mark.slow
def test_a_crash_of_the_node_ends_in_figures_with_an_error(checkpoint):
    child = started(checkpoint, '--minutes', '5', '--rate', '2', '--counted', '3')
    for line in child.stderr:
        if up := re.match(r'the node is up, process (\d+)', line):
            os.kill(int(up[1]), signal.SIGKILL)
            break
    code, figures, progress = ended(child)
    assert code == 1
    assert set(figures) >= KEYS
    assert figures['errors'] >= 1 and figures['rss_end_mb'] is None
    assert 'error: the node ended with -9' in progress
    assert '[depthvlm]' in progress     # of the node's own log


@pytest.mark.slow
def test_a_node_that_cannot_start_ends_in_figures_with_an_error(tmp_path):
    code, figures, progress = ended(started(tmp_path / 'nothing', '--minutes', '5'))
    assert code == 1
    assert set(figures) >= KEYS
    assert figures['errors'] >= 1 and figures['published'] == 0
    assert figures['hz'] is figures['p99_ms'] is figures['rss_start_mb'] is None
    assert 'error: the node' in progress
    assert 'nothing' in progress        # of the node's own log
