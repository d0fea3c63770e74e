# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0

import threading

from depthvlm_ros.nodes.waiting import Waiting
import pytest

pytestmark = pytest.mark.ros


def test_the_pulse_is_stopped_by_its_own_beat_alone_and_begins_again(make_robot):
    robot = make_robot()
    robot.node.stream = None
    waiting = Waiting(robot.node)
    stopped_by, cancel = [], waiting._pulse.cancel

    def watched():
        stopped_by.append((threading.current_thread(), waiting._lock.locked()))
        cancel()
    waiting._pulse.cancel = watched
    for times in (1, 2):
        with waiting.open():
            assert not waiting._pulse.is_canceled()
        assert robot.until(waiting._pulse.is_canceled)
        assert len(stopped_by) == times
    assert all(thread is not threading.main_thread() and locked for thread, locked in stopped_by)
