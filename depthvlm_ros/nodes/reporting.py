# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What /diagnostics says, in every state of the depth node."""

from __future__ import annotations

import contextlib

from depthvlm_ros.nodes.diagnostics import depth_names, diagnostic_array, status_of_state
from depthvlm_ros.nodes.outputs import advertise
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import InvalidHandle

REPORT_S = 1.0
KEPT = 10       # messages


class Reporting:
    """
    Publish /diagnostics once a second: of each camera while active, else of the node's state.

    A node that could not be configured, or whose model hung, is what monitors have to hear of.

    :param node: the depth node; of it are read stream, state, inactive_reason and fault.
    """

    def __init__(self, node):
        self._node = node
        self._publisher = advertise(node, DiagnosticArray, '/diagnostics', self._on_mismatch, KEPT)
        node.create_timer(
            REPORT_S, self._report, callback_group=MutuallyExclusiveCallbackGroup(),
            clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _report(self) -> None:
        node, stream = self._node, self._node.stream
        name = node.get_fully_qualified_name().lstrip('/')
        if stream is not None:
            statuses = stream.statuses(name)
        else:
            statuses = [status_of_state(f'{name}: {depth}', node)
                        for depth in depth_names(node.value('cameras'))]
        with contextlib.suppress(InvalidHandle):    # the node was destroyed meanwhile
            self._publisher.publish(
                diagnostic_array(statuses, node.get_clock().now().to_msg()))

    def _on_mismatch(self, text: str) -> None:
        """Log that a subscriber to /diagnostics cannot be met."""
        self._node.get_logger().warning(text)
