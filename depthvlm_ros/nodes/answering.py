# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The action ~/answer: the service's answers, with the words as they come, and a way to cancel."""

from __future__ import annotations

import functools

from depthvlm_ros.action import AnswerQuery
from depthvlm_ros.nodes.queries import REQUESTS_QOS, Status
from depthvlm_ros.nodes.questions import Questions
from depthvlm_ros.nodes.worker import Question
from rclpy.action import ActionServer, CancelResponse
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup

# How long a result waits for a client that comes late.
RESULT_KEPT_S = 60


class Answering:
    """
    Serves the action.

    Every goal is accepted: a rejection could carry no reason, an aborted goal's result does.

    :param node: the depth node.
    :param questions: the way to its worker.
    """

    def __init__(self, node, questions: Questions):
        self._node, self._questions = node, questions
        # A group of its own: a goal and its cancellation are taken one after the other. The
        # answering itself is a task that no group holds up.
        self._server = ActionServer(
            node, AnswerQuery, '~/answer', self._execute,
            cancel_callback=lambda goal: CancelResponse.ACCEPT,
            callback_group=MutuallyExclusiveCallbackGroup(), goal_service_qos_profile=REQUESTS_QOS,
            result_service_qos_profile=REQUESTS_QOS, cancel_service_qos_profile=REQUESTS_QOS,
            result_timeout=RESULT_KEPT_S)

    def destroy(self) -> None:
        """Withdraw the action, which destroying the node does not."""
        self._server.destroy()

    async def _execute(self, goal) -> AnswerQuery.Result:
        """Answer a goal's question and set the goal's state."""
        result = await self._questions.answer(
            goal.request, AnswerQuery.Result(), on_token=functools.partial(self._feed, goal),
            given_up=lambda: goal.is_cancel_requested)
        if result.status == Status.OK:
            goal.succeed()
        elif result.status == Status.CANCELLED and goal.is_cancel_requested:
            goal.canceled()
        else:
            goal.abort()
        return result

    def _feed(self, goal, question: Question) -> None:
        """Publish the words so far; on the worker's thread."""
        try:
            goal.publish_feedback(
                AnswerQuery.Feedback(text=question.words, tokens=question.tokens))
        except Exception as error:  # the worker's border to ROS
            self._node.get_logger().error(
                f'feedback could not be published: {error}', throttle_duration_sec=5.0)
