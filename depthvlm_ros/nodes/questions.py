# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
From a request to its answer, in every state of the node.

The service, the action and ~/measure are three doors to this: whatever comes in by them is
answered here, the same way, and the executor is free while the model works.
"""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import functools
import time

from depthvlm_ros.camera import Calibration
from depthvlm_ros.nodes import queries, responses
from depthvlm_ros.nodes.lane import Lane, ONLY_CAMERA
from depthvlm_ros.nodes.looking import Source
from depthvlm_ros.nodes.queries import Limits, RefusalError, REQUESTS_QOS, Status
from depthvlm_ros.nodes.stream import Stream
from depthvlm_ros.nodes.transforms import (
    InvalidFrameError,
    NoTransformError,
    UnknownFrameError,
)
from depthvlm_ros.nodes.waiting import Waiting
from depthvlm_ros.nodes.worker import Ending, Frame, Question
from depthvlm_ros.srv import SpatialQuery
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.exceptions import InvalidHandle
from rclpy.task import Future
from std_msgs.msg import Header

# Longest wait for a transform that is late: a robot's pose is often published after its images.
TRANSFORM_WAIT_S = 0.5


class Questions:
    """
    Answers requests, through the worker of the node's stream.

    :param node: the depth node; its stream is None while it is not active.
    """

    def __init__(self, node):
        self._node = node
        self.waiting = Waiting(node)
        node.create_service(SpatialQuery, '~/spatial_query', self.answer, qos_profile=REQUESTS_QOS,
                            callback_group=ReentrantCallbackGroup())

    async def answer(self, request, response, **watched):
        """
        Answer a question in words, and publish both.

        :param request: of SpatialQuery, or AnswerQuery's goal.
        :param response: of SpatialQuery, or AnswerQuery's result; it is filled and returned.
        :param watched: on_token and given_up of worker.Question, where wanted.
        """
        start_s, stream = time.monotonic(), self._node.stream
        with self.waiting.open():
            with self.failing_into(response):
                await self._answer(request, response, watched)
            response.camera = self._camera_of(request)
            response.model = self._node.value('model')
            response.latency = responses.duration_message(time.monotonic() - start_s)
            if stream is not None:
                with contextlib.suppress(InvalidHandle):    # the node was deactivated meanwhile
                    stream.answers.publish(
                        responses.record_of(request.question, response))
        return response

    @contextlib.contextmanager
    def failing_into(self, response):
        """Turn what is raised into a status and a message."""
        try:
            yield
        except RefusalError as refusal:
            responses.fill_refused(response, refusal)
        except Exception as error:  # a ROS callback: the asker is told
            self._node.get_logger().error(f'a request failed: {type(error).__name__}: {error}')
            response.status = Status.MODEL_FAILURE
            response.message = f'{type(error).__name__}: {error}'

    def _camera_of(self, request) -> str:
        """Return the name of the camera that a request is about, '' where there is none of it."""
        names = [name or ONLY_CAMERA for name in self._node.value('cameras')]
        asked = request.camera or names[0]
        return asked if asked in names else ''

    def stream(self) -> Stream:
        """
        Return the stream of the active node.

        :raises RefusalError: INACTIVE.
        """
        stream = self._node.stream      # another thread may deactivate the node
        if stream is None:
            raise RefusalError(Status.INACTIVE, self._node.inactive_reason)
        return stream

    def limits(self, request) -> Limits:
        """Return how far the answer to a request may go."""
        value = self._node.value
        return Limits(value('max_age'), value('question_timeout'),
                      value('max_tokens')).for_request(request)

    def age_s(self, source: Source) -> float:
        """
        Return how old an image is: by its stamp, and not less than it has been here.

        With simulated time the stamp alone counts, as time may stand still.

        :raises RefusalError: STALE_IMAGE, where simulated time has not begun.
        """
        stamp, now = source.header.stamp, self._node.get_clock().now()
        by_stamp_s = now.nanoseconds * 1e-9 - stamp.sec - stamp.nanosec * 1e-9
        if not self._node.get_parameter('use_sim_time').value:
            return max(by_stamp_s, time.monotonic() - source.received_s)
        if not now.nanoseconds:
            raise RefusalError(Status.STALE_IMAGE, 'use_sim_time is true and no /clock has come, '
                               'so that no image has an age: play the bag with --clock')
        return by_stamp_s

    def lane(self, stream: Stream, request) -> Lane:
        """
        Return the camera that a request is about.

        :raises RefusalError: NO_IMAGE.
        """
        queries.check_camera(request.camera, stream.lanes.keys())
        return stream.lanes[request.camera] if request.camera else stream.first

    def newest(self, lane: Lane, max_age_s: float) -> Frame:
        """
        Return a camera's newest frame, if it can be asked about.

        :raises RefusalError: NO_IMAGE or STALE_IMAGE.
        """
        frame = lane.newest
        if frame is None:
            silence = lane.statistics.silence
            raise RefusalError(
                Status.NO_IMAGE, f'no image has arrived: {silence}' if silence
                else lane.inputs.reason or 'no image has arrived')
        if lane.refusal:
            raise RefusalError(Status.NO_IMAGE,
                               f'the newest images cannot be used: {lane.refusal}')
        if max_age_s > 0:
            queries.check_age(self.age_s(frame.source), max_age_s)
        return frame

    async def ended(self, stream: Stream, frame: Frame, text: str, limits: Limits,
                    on_token: Callable[[Question], None] = Question.on_token,
                    given_up: Callable[[], bool] = Question.given_up) -> Question:
        """
        Put a question to the worker and return it when it has ended.

        :param text: the words; empty where only the frame's depth is wanted.
        :raises RefusalError: BUSY or INACTIVE.
        """
        question, future = self._put(stream, frame, text, limits, on_token, given_up)
        return await self._ended(question, future)

    def _put(self, stream: Stream, frame: Frame, text: str, limits: Limits,
             on_token: Callable[[Question], None] = Question.on_token,
             given_up: Callable[[], bool] = Question.given_up) -> tuple[Question, Future]:
        """
        Put a question to the worker, as `ended` does.

        :return: the question, and what is told when it has ended.
        """
        future = self.waiting.future()
        question = Question(
            text, frame, limits.max_tokens, limits.deadline_s(),
            functools.partial(self.waiting.tell, future), on_token, given_up)
        if not stream.worker.ask(question):
            if self._node.stream is not stream:
                raise RefusalError(Status.INACTIVE, self._node.inactive_reason)
            raise RefusalError(
                Status.BUSY,
                f'{stream.worker.open_questions} questions are open already: ask later')
        return question, future

    async def _ended(self, question: Question, future: Future) -> Question:
        """Return a question when it has ended."""
        await future
        if question.ending is Ending.FAILED:
            question.frame.lane.log_error('the model failed at a question', question.error,
                                          'failed_questions')
        return question

    async def transforms(self, stream: Stream, request, header: Header, until_s: float,
                         known=None):
        """
        Return how to get to the frame that a request wants, once tf knows it or has had its time.

        :param header: of the image.
        :param until_s: when the request times out, on time.monotonic.
        :param known: the transform, where tf knew it before.
        :return: responses.MatrixOf at the image's stamp.
        """
        if known is None:
            known = await self._transform(stream, request, header,
                                          lambda: time.monotonic() >= until_s)
        return functools.partial(
            stream.transforms.matrix, source_frame=header.frame_id, stamp=header.stamp
        ) if known is None else lambda _: known

    async def _transform(self, stream: Stream, request, header: Header,
                         in_vain: Callable[[], bool]):
        """
        Return the transform that a request wants, as soon as tf knows it.

        :param in_vain: tells when nothing waits for it any more.
        :return: (4, 4); None where none is wanted, or it did not come in time.
        """
        until_s = time.monotonic() + TRANSFORM_WAIT_S
        while request.target_frame not in ('', header.frame_id):
            try:
                return stream.transforms.matrix(request.target_frame, header.frame_id,
                                                header.stamp)
            except InvalidFrameError:
                break
            except (NoTransformError, UnknownFrameError):   # late, or not heard of yet
                if in_vain() or time.monotonic() >= until_s:
                    break
                await self.waiting.beat()
            except LookupError:     # tf will not help: the response says why
                break
        return None

    async def _answer(self, request, response, watched) -> None:
        """
        Fill the response, through the worker.

        :raises RefusalError: a request that is answered without the model.
        """
        stream = self.stream()
        text, limits = queries.question_text(request), self.limits(request)
        until_s = limits.deadline_s()
        lane = self.lane(stream, request)
        frame = self.newest(lane, limits.max_age_s)
        if isinstance(frame.source.calibration, Calibration):
            queries.check_places(request, frame.source.calibration.intrinsics)
        lane.statistics.count('questions')
        question, future = self._put(stream, frame, text, limits, **watched)
        # An answer may take longer than tf keeps what it has heard.
        early = await self._transform(stream, request, frame.source.header, future.done)
        await self._ended(question, future)
        if question.ending is not Ending.ANSWERED:
            until_s = 0.0       # there are no points that could wait for anything
        responses.fill_answered(
            response, request, question,
            await self.transforms(stream, request, frame.source.header, until_s, early))
