# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How coroutines wait for the worker's thread without ever blocking the executor."""

from __future__ import annotations

import contextlib
import threading
import time

from depthvlm_ros.nodes.worker import Question
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.task import Future

PULSE_S = 0.1


class Waiting:
    """
    Lets coroutines wait for questions, and keeps their deadlines.

    The worker ends a question on its own thread. An executor of several threads can miss that,
    when it happens just as the waiting coroutine is being run (rclpy#1462); so a timer wakes it
    ten times a second, only while something is open, and ends what is overdue with the same beat:
    deadlines and cancellations hold even while the model hangs. Who waits for something that
    nobody tells looks again at every beat.

    :param node: the depth node; its stream is None while it is not active.
    """

    def __init__(self, node):
        self._node = node
        self._open = 0
        self._until_beat = []       # futures of those who wait for the next beat
        self._lock = threading.Lock()
        self._pulse = node.create_timer(
            PULSE_S, self._beat, callback_group=ReentrantCallbackGroup(),
            clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._pulse.cancel()

    @contextlib.contextmanager
    def open(self):
        """Count something as open, from its arrival until it is answered."""
        with self._lock:
            self._open += 1
            if self._open == 1:
                self._pulse.reset()
        self._wake()
        try:
            yield
        finally:
            with self._lock:
                self._open -= 1

    def future(self) -> Future:
        """Return what a question's ending is told to, see tell; it can be awaited."""
        return Future(executor=self._node.executor)

    def tell(self, future: Future, question: Question) -> None:
        """Tell a question's ending, from any thread."""
        future.set_result(question)
        self._wake()

    def until_none(self, timeout_s: float) -> None:
        """Block until nothing is open any more; not for the executor's only thread."""
        until_s = time.monotonic() + timeout_s
        while self._open and time.monotonic() < until_s:
            time.sleep(0.01)

    async def beat(self) -> None:
        """Wait for the next beat, PULSE_S away at most; while something is open."""
        future = self.future()
        with self._lock:
            self._until_beat.append(future)
        await future

    def _beat(self) -> None:
        with self._lock:
            waiting, self._until_beat = self._until_beat, []
            # Here and nowhere else: cancelled by another thread as it is due, a timer never
            # comes again before rclpy#1486.
            if not self._open:
                self._pulse.cancel()
        for future in waiting:
            future.set_result(None)
        stream = self._node.stream
        if stream is not None:
            stream.worker.end_overdue(time.monotonic())

    def _wake(self) -> None:
        executor = self._node.executor
        if executor is not None:
            executor.wake()
