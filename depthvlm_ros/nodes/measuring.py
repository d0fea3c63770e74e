# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The service ~/measure: pixels in; depths, points and distances out, without any words."""

from __future__ import annotations

from depthvlm_ros.camera import Calibration
from depthvlm_ros.nodes import queries, responses
from depthvlm_ros.nodes.lane import Depth, Lane
from depthvlm_ros.nodes.queries import RefusalError, REQUESTS_QOS, Status
from depthvlm_ros.nodes.questions import Questions
from depthvlm_ros.nodes.worker import Ending
from depthvlm_ros.srv import Measure
from rclpy.callback_groups import ReentrantCallbackGroup

# Where no max_age is given: how far streamed depth may be behind the newest image.
BEHIND_S = 1.0


class Measuring:
    """
    Measures in the newest depth, or in the newest image after a pass of its own.

    :param node: the depth node.
    :param questions: the way to its worker.
    """

    def __init__(self, node, questions: Questions):
        self._questions = questions
        node.create_service(Measure, '~/measure', self._on_measure, qos_profile=REQUESTS_QOS,
                            callback_group=ReentrantCallbackGroup())

    async def _on_measure(self, request, response):
        """Answer a request."""
        with self._questions.waiting.open(), self._questions.failing_into(response):
            await self._measure(request, response)
        return response

    async def _measure(self, request, response) -> None:
        """
        Fill the response.

        :raises RefusalError: a request that is answered without the model.
        """
        stream, limits = self._questions.stream(), self._questions.limits(request)
        until_s = limits.deadline_s()
        lane = self._questions.lane(stream, request)
        if not request.pixels:
            raise RefusalError(Status.BAD_PIXEL, 'no pixels, wanted at least one')
        depth = self._at_hand(lane, limits.max_age_s)
        if depth is None:
            frame = self._questions.newest(lane, limits.max_age_s)
            if isinstance(frame.source.calibration, Calibration):
                queries.check_pixels(request.pixels, frame.source.calibration.intrinsics)
            question = await self._questions.ended(stream, frame, '', limits)
            responses.fill_ended(response, question)
            if frame.seen is None or question.ending is not Ending.ANSWERED:
                return
            depth = Depth(frame.source, frame.seen)
        queries.check_pixels(request.pixels, depth.seen.intrinsics)
        header = depth.source.header
        responses.fill_measured(
            response, request, header, depth.seen,
            await self._questions.transforms(stream, request, header, until_s))

    def _at_hand(self, lane: Lane, max_age_s: float) -> Depth | None:
        """
        Return depth that answers at once, or None.

        That is the newest depth within max_age. Where there is no such limit it is that of the
        newest image, or, while that one is on its way through the model for the stream, or is not
        looked at for max_rate, the depth before it, if that is not far behind.
        """
        depth, newest = lane.newest_depth, lane.newest
        if depth is None or newest is None:
            return None
        if max_age_s > 0:
            return depth if self._questions.age_s(depth.source) <= max_age_s else None
        if lane.refusal:    # neither is of the newest image that came
            return None
        if depth.source is newest.source:
            return depth
        behind_s = newest.source.received_s - depth.source.received_s
        waits = newest.streamed or newest.rate_limited
        return depth if waits and not newest.looked_at and behind_s <= BEHIND_S else None
