# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the depth node is while it is active: connected, with a worker between in and out."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
import math
import os
import time

from depthvlm_ros.camera import Calibration
from depthvlm_ros.nodes.diagnostics import diagnostic_array, Statistics, status_of
from depthvlm_ros.nodes.inputs import Inputs
from depthvlm_ros.nodes.looking import look, Seen, Source
from depthvlm_ros.nodes.outputs import Outputs
from depthvlm_ros.nodes.pacing import Pace
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
    :param thread: worker.ModelThread.
    :param on_hang: called, again and again, while the model does not come back.
    """

    def __init__(self, node, predictor, thread, on_hang):
        self.enabled = True
        self.newest: Frame | None = None    # the newest received; questions are about it
        self.newest_depth: Depth | None = None
        self.statistics = Statistics()
        self._node, self._predictor, self._on_hang = node, predictor, on_hang
        self._pace, self._forgotten_s = Pace(), 0.0
        self._said_s: dict[str, float] = {}
        self.outputs = Outputs(node, self._on_mismatch)
        self.transforms = Transforms(node, node.value('question_timeout'))
        self.worker = Worker(self._look, self._begin, self._deliver,
                             node.value('max_questions'), thread)
        try:
            self.inputs = Inputs(node, node.value('image_transport'),
                                 node.value('sync_tolerance'), self._on_image,
                                 self._on_input_error, node.value('sync'), self._on_mismatch)
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

    def _on_mismatch(self, text: str) -> None:
        """Keep for diagnostics, and log, that an end of a topic cannot be met."""
        self.statistics.add_mismatch(text)
        self._node.get_logger().warning(text)

    def _watch(self) -> None:
        """See whether the model comes back from its passes."""
        limit_s, step_s = self._node.value('hang_timeout'), self.worker.step_s()
        if 0 < limit_s < step_s:
            text = f'the model has not come back for {step_s:.0f} s (hang_timeout {limit_s:g} s)'
            self.log_error('the model hangs', TimeoutError(text))
            self.worker.fail_questions(TimeoutError(text))
            self._on_hang()

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
        elif self._pace.allows(self._node.value('max_rate')):
            self.worker.submit(frame)
        else:
            self.statistics.count('rate_limited')

    def _look(self, source: Source) -> Seen:
        """Give an image its pass; on the worker's thread."""
        value = self._node.value
        try:
            seen = look(source, self._predictor, value('rectify'), value('min_depth'),
                        value('max_depth'))
        except Exception as error:
            from depthvlm_ros.model.shortage import is_out_of_memory  # torch is there by now
            if is_out_of_memory(error):
                raise self._with_fewer_tokens(source.calibration.intrinsics, error) from error
            raise
        newest = self.newest_depth
        since_s = self._forgotten_s if newest is None else newest.source.received_s
        if source.received_s >= since_s:
            self.newest_depth = Depth(source, replace(seen, view=None))
        return seen

    def _with_fewer_tokens(self, intrinsics, error: Exception) -> Exception:
        """Let the next image have fewer tokens; return what to say of this one."""
        from depthvlm_ros.model.shortage import take_fewer_tokens
        had, may = take_fewer_tokens(self._predictor, intrinsics)
        if may < had:
            return MemoryError(f'no memory for {had} image tokens, the next image is looked at '
                               f'with {may}: {error}')
        return MemoryError(f'no memory even for {had} image tokens: take a smaller model or '
                           f'dtype, or free the device of other processes: {error}')

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
                    value('cloud_stride'), value('edge_threshold'), value('max_cloud_rate'))
                self.statistics.add_published(time.monotonic() - frame.source.received_s)
            except Exception as error:  # the worker's border to ROS
                self.log_error('depth could not be published', error)

    def _on_diagnostics(self) -> None:
        self._watch()
        device = self._predictor.device
        if self.inputs.reason:
            self.statistics.calibration = self.inputs.reason
        status = status_of(
            self.statistics, f'{self._node.get_fully_qualified_name().lstrip("/")}: depth',
            str(device),
            {'dropped': self.worker.dropped, 'open_questions': self.worker.open_questions,
             'enabled': self.enabled, 'model': self._predictor.name, 'device': device,
             'device_memory_mb': device_memory_mb(device), 'memory_mb': memory_mb(),
             'max_image_tokens': self._predictor.max_image_tokens})
        with contextlib.suppress(InvalidHandle):    # the node was deactivated meanwhile
            self.outputs.diagnostics.publish(
                diagnostic_array(status, self._node.get_clock().now().to_msg()))


def memory_mb() -> int:
    """Return how much of the host's memory this process holds."""
    with open('/proc/self/statm') as file:
        pages = int(file.read().split()[1])
    return pages * os.sysconf('SC_PAGE_SIZE') // 2**20


def device_memory_mb(device) -> int:
    """Return the memory that this process holds on a CUDA device, 0 on others."""
    if device.type != 'cuda':
        return 0
    import torch
    return torch.cuda.memory_allocated(device) // 2**20
