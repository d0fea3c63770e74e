# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the depth node is while it is active: connected, with a worker between in and out."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
import math
import time

from depthvlm_ros.camera import Calibration
from depthvlm_ros.nodes.diagnostics import diagnostic_array, Statistics, status_of
from depthvlm_ros.nodes.inputs import Inputs
from depthvlm_ros.nodes.looking import look, Seen, Source
from depthvlm_ros.nodes.outputs import Outputs
from depthvlm_ros.nodes.transforms import Transforms
from depthvlm_ros.nodes.worker import Frame, FrameRefusedError, Worker
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import InvalidHandle

DIAGNOSTICS_S = 1.0
LOG_THROTTLE_S = 5.0


@dataclass(frozen=True, eq=False)
class Depth:
    """
    Depth that can be measured in.

    :param source: the image it is of.
    :param seen: what the model saw in it; its view may be gone, which is large.
    """

    source: Source
    seen: Seen


class Stream:
    """
    The way of images through the model, from subscriptions to publishers.

    :param node: the depth node, whose parameters hold.
    :param predictor: the loaded depthvlm_ros.model.Predictor; only the worker's thread uses it.
    """

    def __init__(self, node, predictor):
        self.enabled = True
        self.newest: Frame | None = None    # the newest received; questions are about it
        self.newest_depth: Depth | None = None
        self.statistics = Statistics()
        self._node, self._predictor = node, predictor
        self._next_due_s = self._forgotten_s = 0.0
        self._said_s: dict[str, float] = {}
        self.outputs = Outputs(node)
        self.transforms = Transforms(node, node.value('question_timeout'))
        self.worker = Worker(self._look, self._begin, self._deliver,
                             node.value('max_questions'))
        try:
            self.inputs = Inputs(node, node.value('image_transport'),
                                 node.value('sync_tolerance'), self._on_image,
                                 self._on_input_error,
                                 node.value('sync'))
        except Exception:
            self.worker.stop(timeout_s=1.0)
            self.close()
            raise
        self._timer = node.create_timer(
            DIAGNOSTICS_S, self._on_diagnostics, callback_group=MutuallyExclusiveCallbackGroup(),
            clock=Clock(clock_type=ClockType.STEADY_TIME))

    def stop(self, timeout_s: float) -> bool:
        """
        Take nothing more, end all questions and the worker.

        :return: whether the worker ended within timeout_s.
        """
        self.inputs.destroy()
        self._node.destroy_timer(self._timer)
        ended = self.worker.stop(timeout_s)
        if not ended:
            self._node.get_logger().error(
                f'the model has not come back within {timeout_s} s and is left to itself')
        return ended

    def close(self) -> None:
        """Withdraw the publishers, after stop."""
        self.outputs.destroy()
        self.transforms.close()
        self.newest = self.newest_depth = None

    def enable(self, enabled: bool) -> None:
        """Pause or resume; questions are answered all the same."""
        self.enabled = enabled
        if not enabled:
            self.worker.forget_waiting()

    def forget(self) -> None:
        """Drop what was received, as when time jumps back with a looping bag."""
        self._forgotten_s = time.monotonic()
        self.newest = self.newest_depth = None
        self.worker.forget_waiting()
        self.inputs.forget()
        self.transforms.forget()

    def log_error(self, what: str, error: Exception, count: str = 'failed') -> None:
        """Count a fault and log it, at most one line of its kind in a few seconds."""
        text = f'{what}: {error}' if isinstance(error, ValueError) else (
            f'{what}: {type(error).__name__}: {error}')
        self.statistics.add_error(count, text)
        now_s = time.monotonic()
        if now_s - self._said_s.get(count, -math.inf) >= LOG_THROTTLE_S:    # each kind its own
            self._said_s[count] = now_s
            self._node.get_logger().error(text)

    def _on_input_error(self, what: str, error: Exception, count: str = 'failed') -> None:
        """Count an image that goes no further than the inputs, and log why."""
        if count == 'refused':
            self.statistics.count('received')
        self.log_error(what, error, count)

    def _on_image(self, message, calibration: Calibration | ValueError) -> None:
        """Take an image with its calibration: keep it for questions, and look if wanted."""
        self.statistics.count('received')
        usable = isinstance(calibration, Calibration)
        self.statistics.calibration = 'ok' if usable else str(calibration)
        frame = Frame(Source(message, calibration, time.monotonic()))
        self.newest = frame
        if not self.enabled:
            return
        if not self.outputs.depth_wanted():
            if usable:
                self.outputs.publish_info(message.header, calibration.intrinsics)
        elif self._rate_allows():
            self.worker.submit(frame)
        else:
            self.statistics.count('rate_limited')

    def _rate_allows(self) -> bool:
        """Tell whether max_rate lets another image through."""
        max_rate_hz, now_s = self._node.value('max_rate'), time.monotonic()
        if max_rate_hz > 0:
            if now_s < self._next_due_s:
                return False
            # Keep the beat of the images let through before, unless they came too slowly.
            period_s = 1 / max_rate_hz
            late = now_s - self._next_due_s > period_s
            self._next_due_s = (now_s if late else self._next_due_s) + period_s
        return True

    def _look(self, source: Source) -> Seen:
        """Give an image its pass; on the worker's thread."""
        value = self._node.value
        seen = look(source, self._predictor, value('rectify'), value('min_depth'),
                    value('max_depth'))
        newest = self.newest_depth
        since_s = self._forgotten_s if newest is None else newest.source.received_s
        if source.received_s >= since_s:
            self.newest_depth = Depth(source, replace(seen, view=None))
        return seen

    def _begin(self, seen: Seen, text: str, max_tokens: int):
        """Begin an answer; on the worker's thread."""
        return self._predictor.begin(seen.view, text, max_tokens)

    def _deliver(self, frame: Frame) -> None:
        """Publish what was seen, or count why nothing was; on the worker's thread."""
        if isinstance(frame.error, FrameRefusedError):
            self.log_error('an image was refused', frame.error, 'refused')
        elif frame.error is not None:
            self.log_error('the model failed', frame.error)
        elif self.enabled:
            value = self._node.value
            try:
                self.outputs.publish_depth(
                    frame.source.header, frame.seen, value('depth_encoding'),
                    value('cloud_stride'), value('edge_threshold'))
                self.statistics.add_published(time.monotonic() - frame.source.received_s)
            except Exception as error:  # the worker's border to ROS
                self.log_error('depth could not be published', error)

    def _on_diagnostics(self) -> None:
        device = self._predictor.device
        if self.inputs.reason:
            self.statistics.calibration = self.inputs.reason
        status = status_of(
            self.statistics, f'{self._node.get_fully_qualified_name().lstrip("/")}: depth',
            str(device),
            {'dropped': self.worker.dropped, 'open_questions': self.worker.open_questions,
             'enabled': self.enabled, 'model': self._predictor.name, 'device': device,
             'device_memory_mb': device_memory_mb(device)})
        with contextlib.suppress(InvalidHandle):    # the node was deactivated meanwhile
            self.outputs.diagnostics.publish(
                diagnostic_array(status, self._node.get_clock().now().to_msg()))


def device_memory_mb(device) -> int:
    """Return the memory that this process holds on a CUDA device, 0 on others."""
    if device.type != 'cuda':
        return 0
    import torch
    return torch.cuda.memory_allocated(device) // 2**20
