# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Calls to another node that always end: with what it says, or with a clear error."""

from __future__ import annotations

from collections.abc import Callable
import os
import threading
import time
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.task import Future

BEAT_S = 0.05
AFTERMATH_S = 0.5       # how long the beat goes on, for coroutines that missed a future's end
GONE_S = 3.0            # how long a server may be out of sight while it works


class NoAnswerError(TimeoutError):
    """Nobody answers; the text says who was waited for, and what to do."""


class Call:
    """
    A request, from before it is sent to its end.

    :param what: the server, in words.
    :param is_ready: tells whether the server is there.
    :param send: sends the request and sees to it that `succeed` or `fail` is called.
    :param drop: forgets what was sent.
    :param result: the future that is told the end.
    :param wait_s: longest wait for the server to appear.
    :param timeout_s: longest wait for it to answer.
    """

    def __init__(self, what: str, is_ready: Callable[[], bool], send: Callable[[Call], None],
                 drop: Callable[[], None], result: Future, wait_s: float, timeout_s: float):
        self.what = what
        self.longest_s = wait_s + timeout_s
        self.ended = False
        self._is_ready, self._send, self._drop = is_ready, send, drop
        self._result = result
        self._wait_s, self._timeout_s = wait_s, timeout_s
        self._sent = False
        self._until_s = time.monotonic() + wait_s
        self._seen_s = 0.0
        self._lock = threading.Lock()

    def succeed(self, answer: Any) -> None:
        """End with the server's answer."""
        if self._end():
            self._result.set_result(answer)

    def fail(self, reason: str | Exception) -> None:
        """
        End without an answer.

        :param reason: why, in words, or the error that kept the request from being sent.
        """
        if self._end():
            self._drop()
            self._result.set_exception(
                NoAnswerError(reason) if isinstance(reason, str) else reason)

    def look_after(self) -> None:
        """Send as soon as the server is there, and keep the limits."""
        now_s, ready = time.monotonic(), self._is_ready()
        if ready:
            self._seen_s = now_s
        if self._result.cancelled():
            if self._end():
                self._drop()
        elif ready and not self._sent:
            self._sent, self._until_s = True, now_s + self._timeout_s
            try:
                self._send(self)
            except Exception as error:  # else it would come out of the executor that beats
                self.fail(error)
        elif now_s >= self._until_s:
            self.fail(f'{self.what} did not answer in {self._timeout_s:g} s' if self._sent
                      else missing(self.what, self._wait_s))
        elif self._sent and now_s - self._seen_s > GONE_S:
            self.fail(f'{self.what} went away before it answered: has the node ended?')

    def _end(self) -> bool:
        """End the call; return False where it had ended before."""
        with self._lock:
            ended, self.ended = self.ended, True
        return not ended


class Calls:
    """
    The open calls of a node, looked after twenty times a second while there are any.

    The beat stands in `group`, in which it excludes everything else.
    """

    def __init__(self, node: Node):
        self.group = MutuallyExclusiveCallbackGroup()
        self._node = node
        self._open: list[Call] = []
        self._lock = threading.Lock()
        self._busy_s = 0.0
        self._timer = node.create_timer(
            BEAT_S, self._beat, callback_group=self.group,
            clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._timer.cancel()

    def add(self, call: Call, at_once: bool = False) -> None:
        """
        Take a call.

        :param at_once: send it here and now if its server is there, else from the beat.
        """
        if at_once:
            call.look_after()
        with self._lock:
            self._open.append(call)
            self._timer.reset()
        executor = self._node.executor
        if executor is not None:
            executor.wake()

    @property
    def longest_s(self) -> float:
        """Return how long the open calls may take at most."""
        with self._lock:
            return max((call.longest_s for call in self._open), default=0.0)

    def destroy(self) -> None:
        """End all calls."""
        with self._lock:
            calls, self._open = self._open, []
        for call in calls:
            call.fail('the client was destroyed')
        self._node.destroy_timer(self._timer)

    def _beat(self) -> None:
        with self._lock:
            calls = list(self._open)
        for call in calls:
            if not call.ended:
                call.look_after()
        now_s = time.monotonic()
        with self._lock:
            self._open = [call for call in self._open if not call.ended]
            if self._open:
                self._busy_s = now_s
            elif now_s - self._busy_s > AFTERMATH_S:
                self._timer.cancel()


def missing(what: str, wait_s: float) -> str:
    """Say that a server is not there, and what to do."""
    domain = os.environ.get('ROS_DOMAIN_ID', '0')
    return (f'{what} has not appeared in {wait_s:g} s. Start the depth node (ros2 launch '
            'depthvlm_ros depth.launch.py); if it runs, compare its name and namespace (ros2 node '
            f'list) with the one asked, and ROS_DOMAIN_ID (here {domain}) and '
            'ROS_AUTOMATIC_DISCOVERY_RANGE in both shells')
