# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Spinning beside a model: callbacks in a few threads, and little taken from it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
import threading
import time

from rclpy.context import Context
from rclpy.exceptions import InvalidHandle
from rclpy.executors import (
    ConditionReachedException,
    Executor,
    ExternalShutdownException,
    ShutdownException,
    TimeoutException,
)
from rclpy.task import Task

PAUSE_S = 0.01
THREADS = 4


class PoolExecutor(Executor):
    """
    Runs callbacks in a pool of threads, and never submits one again that is still queued there.

    rclpy's MultiThreadedExecutor hands a callback that no thread has begun yet to its pool again
    in every round. Beside a model, whose thread takes turns at the interpreter with the others,
    that feeds on itself: thousands of rounds a second, in which a pass over an image takes
    seconds (docs/experiments.md).

    :param threads: how many callbacks run at once.
    :param on_failure: called with what a callback raised, in its thread, and spinning goes on;
        without, it is raised where the executor spins.
    """

    def __init__(self, threads: int = THREADS, *, context: Context | None = None,
                 on_failure: Callable[[Exception], None] | None = None):
        super().__init__(context=context)
        self._on_failure = on_failure
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix='callbacks')
        self._queued: set[Task] = set()     # handed to the pool, and not begun
        self._failures: deque[BaseException] = deque()      # of callbacks, to be raised
        self._begun = threading.Condition()

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """
        Wait for a callback and hand it to the pool.

        :raises Exception: what a callback before it raised.
        """
        self._spin_once_impl(timeout_sec)

    def _spin_once_impl(self, timeout_sec: float | None = None,
                        wait_condition: Callable[[], bool] | None = None) -> None:
        """Do it; newer executors' spin calls this, older ones' calls spin_once."""
        if self._failures:
            raise self._failures.popleft()
        # Always the same bound method: with another condition rclpy begins its waiting anew.
        until = self._has_failed if wait_condition is None else (
            lambda: self._has_failed() or wait_condition())
        try:
            task, _, _ = self.wait_for_ready_callbacks(timeout_sec, None, until)
        except ConditionReachedException:
            if self._failures:
                raise self._failures.popleft() from None
            return
        except (ExternalShutdownException, ShutdownException, TimeoutException):
            return
        with self._begun:
            if task in self._queued:
                self._begun.wait(PAUSE_S)   # in which the threads have the interpreter
                return
            self._queued.add(task)
        try:
            self._pool.submit(self._run, task)
        except RuntimeError:
            if not self._is_shutdown:       # else: meanwhile
                raise

    def shutdown(self, timeout_sec: float | None = None) -> bool:
        """Take no more callbacks, and wait for those under way, however long they take."""
        ended = super().shutdown(timeout_sec)
        self._pool.shutdown()
        return ended

    def _run(self, task: Task) -> None:
        with self._begun:
            self._queued.discard(task)
            self._begun.notify()
        try:
            task()
            error = task.exception() if task.done() else None
        except BaseException as raised:     # of a thread: it comes out where the executor spins
            error = raised
        if error is None:
            return
        # What was destroyed meanwhile is no failure, see `spin`.
        told = isinstance(error, Exception) and not isinstance(error, InvalidHandle)
        if told and self._on_failure is not None:
            self._on_failure(error)
        else:
            self._failures.append(error)
            self.wake()

    def _has_failed(self) -> bool:
        return bool(self._failures)


def spin(executor: Executor) -> None:
    """
    Spin until the executor or its context is shut down.

    An executor that gathers what to wait for, just as another thread destroys some of it, raises
    InvalidHandle; on the next round that is gone.
    """
    while True:
        try:
            executor.spin()
        except InvalidHandle:
            time.sleep(PAUSE_S)
        else:
            return
