# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The service ~/spatial_query: waits for answers without ever blocking the executor."""

from __future__ import annotations

import contextlib
import functools
import threading
import time

from depthvlm_ros.camera import Calibration
from depthvlm_ros.nodes import queries
from depthvlm_ros.nodes.stream import Stream
from depthvlm_ros.nodes.worker import Ending, Frame, Question, Worker
from depthvlm_ros.srv import SpatialQuery
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import InvalidHandle
from rclpy.node import Node
from rclpy.task import Future

CAMERA = 'camera'           # the name of the only camera, in requests and answers
PULSE_S = 0.1


class Waiting:
    """
    Lets coroutines wait for questions, and keeps their deadlines.

    The worker ends a question on its own thread. An executor of several threads can miss that,
    when it happens just as the waiting coroutine is being run (rclpy#1462); so a timer wakes it
    ten times a second, only while questions are open, and keeps the deadlines with the same beat:
    they hold even while the model hangs.
    """

    def __init__(self, node: Node):
        self._node = node
        self._open = 0
        self._worker: Worker | None = None
        self._lock = threading.Lock()
        self._pulse = node.create_timer(
            PULSE_S, self._beat, callback_group=ReentrantCallbackGroup(),
            clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._pulse.cancel()

    def future(self) -> Future:
        """Return what a question's ending is told to, see tell."""
        return Future(executor=self._node.executor)

    def tell(self, future: Future, question: Question) -> None:
        """Tell a question's ending, from any thread."""
        future.set_result(question)
        self._wake()

    async def wait(self, future: Future, worker: Worker) -> None:
        """Wait until the ending is told."""
        with self._lock:
            self._open += 1
            self._worker = worker
            self._pulse.reset()
        self._wake()
        try:
            await future
        finally:
            with self._lock:
                self._open -= 1
                if not self._open:
                    self._pulse.cancel()

    def until_none(self, timeout_s: float) -> None:
        """Block until nobody waits any more; not for the executor's only thread."""
        until_s = time.monotonic() + timeout_s
        while self._open and time.monotonic() < until_s:
            time.sleep(0.01)

    def _beat(self) -> None:
        if self._worker is not None:
            self._worker.time_out(time.monotonic())

    def _wake(self) -> None:
        executor = self._node.executor
        if executor is not None:
            executor.wake()


class Questions:
    """
    Answers requests, in every state of the node.

    :param node: the depth node; its stream is None while it is not active.
    """

    def __init__(self, node):
        self._node = node
        self.waiting = Waiting(node)
        node.create_service(SpatialQuery, '~/spatial_query', self._on_query,
                            callback_group=ReentrantCallbackGroup())

    async def _on_query(self, request, response):
        """Answer a request; the executor is free while the model works."""
        start_s = time.monotonic()
        stream: Stream | None = self._node.stream
        try:
            await self._answer(stream, request, response)
        except queries.RefusalError as refusal:
            queries.fill_refused(response, refusal)
        except Exception as error:  # a ROS callback: the asker is told
            self._node.get_logger().error(f'a question failed: {type(error).__name__}: {error}')
            response.status = SpatialQuery.Response.MODEL_FAILURE
            response.message = f'{type(error).__name__}: {error}'
        response.camera = CAMERA
        response.model = self._node.value('model')
        response.latency = queries.duration(time.monotonic() - start_s)
        if stream is not None:
            with contextlib.suppress(InvalidHandle):    # the node was deactivated meanwhile
                stream.outputs.answers.publish(queries.record_of(request.question, response))
        return response

    async def _answer(self, stream: Stream | None, request, response) -> None:
        """
        Fill the response, through the worker.

        :raises queries.RefusalError: a request that is answered without the model.
        """
        if stream is None:
            raise queries.RefusalError(response.INACTIVE, self._node.inactive_reason)
        text = queries.question_text(request)
        limits = queries.Limits(self._node.value('max_age'), self._node.value('question_timeout'),
                                self._node.value('max_tokens'))
        frame = self._frame_for(stream, request, limits)
        future = self.waiting.future()
        question = Question(
            text, frame, request.max_tokens or limits.max_tokens,
            queries.deadline_s(request, limits), functools.partial(self.waiting.tell, future))
        if not stream.worker.ask(question):
            if self._node.stream is not stream:
                raise queries.RefusalError(response.INACTIVE, self._node.inactive_reason)
            raise queries.RefusalError(
                response.BUSY,
                f'{stream.worker.open_questions} questions are open already: ask later')
        stream.statistics.count('questions')
        await self.waiting.wait(future, stream.worker)
        if question.ending is Ending.FAILED:
            stream.log_error('the model failed at a question', question.error)
        header = frame.source.header
        queries.fill_answered(
            response, request, question,
            lambda target: stream.transforms.matrix(target, header.frame_id, header.stamp))

    def _frame_for(self, stream: Stream, request, limits: queries.Limits) -> Frame:
        """
        Return the newest frame, if it can be asked about.

        :raises queries.RefusalError: NO_IMAGE, STALE_IMAGE or BAD_PIXEL.
        """
        frame = stream.newest
        if request.camera not in ('', CAMERA):
            raise queries.RefusalError(
                SpatialQuery.Response.NO_IMAGE,
                f'there is no camera {request.camera!r}, wanted {CAMERA!r} or none')
        if frame is None:
            raise queries.RefusalError(
                SpatialQuery.Response.NO_IMAGE, stream.inputs.reason or 'no image has arrived')
        stamp, now = frame.source.header.stamp, self._node.get_clock().now()
        age_s = now.nanoseconds * 1e-9 - stamp.sec - stamp.nanosec * 1e-9
        queries.check_age(age_s, request, limits)
        if isinstance(frame.source.calibration, Calibration):
            queries.check_places(request, frame.source.calibration.intrinsics)
        return frame
