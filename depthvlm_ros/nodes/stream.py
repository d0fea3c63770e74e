# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the depth node is while it is active: cameras, connected, and one worker for them."""

from __future__ import annotations

from depthvlm_ros.camera import Calibration
from depthvlm_ros.msg import SpatialAnswer
from depthvlm_ros.nodes.clouds import Clouds
from depthvlm_ros.nodes.diagnostics import depth_names, status_of
from depthvlm_ros.nodes.lane import Lane
from depthvlm_ros.nodes.looking import look_together, Seen
from depthvlm_ros.nodes.memory import device_memory_mb, memory_mb
from depthvlm_ros.nodes.outputs import advertise
from depthvlm_ros.nodes.queries import REQUESTS_QOS
from depthvlm_ros.nodes.transforms import Transforms
from depthvlm_ros.nodes.worker import Frame, HangError, Worker
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType

WATCH_S = 1.0


class Stream:
    """
    The way of images through the model, from subscriptions to publishers.

    :param node: the depth node, whose parameters hold.
    :param predictor: the loaded depthvlm_ros.model.Predictor; only the worker's thread uses it.
    :param thread: worker.ModelThread.
    :param on_hang: called, again and again, while the model does not come back.
    """

    def __init__(self, node, predictor, thread, on_hang):
        self._node, self._predictor, self._on_hang = node, predictor, on_hang
        # The predictor forgets these when it is closed.
        self._device = predictor.device
        self._canonical_words = predictor.config.canonical_words
        self.lanes: dict[str, Lane] = {}
        names, clouds = node.value('cameras'), Clouds.of(self._device)
        self.answers = advertise(node, SpatialAnswer, '~/answers', self._on_mismatch,
                                 depth=REQUESTS_QOS.depth)
        self.transforms = Transforms(node, node.value('question_timeout'))
        self.worker = Worker(self._look, self._begin, self._deliver,
                             node.value('max_questions'), thread, len(names),
                             self._after_failed_step)
        try:
            for name in names:
                lane = Lane(node, name, self.worker.submit, clouds)
                self.lanes[lane.name] = lane
        except Exception:       # such as an overridden QoS that cannot be
            for lane in self.lanes.values():
                lane.inputs.destroy()
            self.worker.stop(timeout_s=1.0)
            self.close()
            raise
        self._timer = node.create_timer(
            WATCH_S, self._watch, callback_group=MutuallyExclusiveCallbackGroup(),
            clock=Clock(clock_type=ClockType.STEADY_TIME))

    @property
    def first(self) -> Lane:
        """Return the first camera, which is meant where none is named."""
        return next(iter(self.lanes.values()))

    @property
    def topics(self) -> list[str]:
        """Return the full names of the image topics."""
        return [lane.inputs.topic for lane in self.lanes.values()]

    def stop(self, timeout_s: float) -> bool:
        """
        Take nothing more, end all questions and the worker.

        :return: whether the worker ended within timeout_s.
        """
        self._node.destroy_timer(self._timer)
        for lane in self.lanes.values():
            lane.inputs.destroy()
        ended = self.worker.stop(timeout_s)
        if not ended:
            self._node.get_logger().error(
                f'the model did not return within {timeout_s:g} s; its thread is abandoned, and '
                'the next activation begins a new one')
        return ended

    def close(self) -> None:
        """Withdraw the publishers, after stop."""
        for lane in self.lanes.values():
            lane.close()
        self._node.destroy_publisher(self.answers)
        self.transforms.close()

    def enable(self, enabled: bool) -> None:
        """Pause or resume; questions are answered all the same."""
        for lane in self.lanes.values():
            lane.enabled = enabled
        if not enabled:
            self.worker.forget_waiting()

    def forget(self) -> None:
        """Drop what was received, as when time jumps back with a looping bag."""
        self.worker.forget_waiting()
        for lane in self.lanes.values():
            lane.forget()
        self.transforms.forget()

    def _look(self, frames: list[Frame]) -> list[Seen | Exception]:
        """Give images their pass, together; on the worker's thread."""
        from depthvlm_ros.model.shortage import is_out_of_memory  # torch is there by now
        found = look_together([frame.source for frame in frames], self._predictor,
                              *depth_range(self._node.value))
        short = []
        for number, (frame, seen) in enumerate(zip(frames, found)):
            if not isinstance(seen, Exception):
                frame.lane.keep(frame.source, seen)
            elif is_out_of_memory(seen) and isinstance(frame.source.calibration, Calibration):
                short.append(number)
        if short:       # once a pass, for the largest of them
            largest = max((frames[number].source.calibration.intrinsics for number in short),
                          key=lambda k: k.width * k.height / (k.fx * k.fy))
            error = self._with_fewer_tokens(largest, found[short[0]])
            for number in short:
                found[number] = error
        return found

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
        return self._predictor.begin(seen.view, text, max_tokens,
                                     self._node.value('compute_distances'), seen.depth_m)

    def _after_failed_step(self, error: Exception) -> None:
        """Make room for the next question where this one failed for want of memory."""
        from depthvlm_ros.model.shortage import is_out_of_memory, let_go
        if is_out_of_memory(error):
            let_go(self._predictor)

    def _deliver(self, frame: Frame) -> None:
        """Give a frame that was looked at to its camera; on the worker's thread."""
        frame.lane.deliver(frame)

    def _on_mismatch(self, text: str) -> None:
        """Log, and keep for diagnostics, that an end of a topic cannot be met."""
        for lane in list(self.lanes.values())[:1]:  # there may be none yet
            lane.statistics.add_mismatch(text)
        self._node.get_logger().warning(text)

    def hangs(self) -> bool:
        """Tell whether a pass or a token takes longer than hang_timeout."""
        return 0 < self._node.value('hang_timeout') < self.worker.step_s()

    def _watch(self) -> None:
        """See whether images come, and whether the model comes back from its passes."""
        for lane in self.lanes.values():
            lane.watch(self._shortage() if lane is self.first else '')   # said once
        if self.hangs():
            limit_s, step_s = self._node.value('hang_timeout'), self.worker.step_s()
            text = f'the model has not come back for {step_s:.0f} s (hang_timeout {limit_s:g} s)'
            self.first.log_error('the model hangs', HangError(text), 'hangs')
            self.worker.fail_questions(HangError(text))
            self._on_hang()

    def _shortage(self) -> str:
        """Say that memory has run out since the model was loaded, '' where it has not."""
        most = self._predictor.max_image_tokens
        if most == self._node.value('max_image_tokens'):
            return ''
        words = ('' if self._canonical_words else
                 ', and metres in words may be too large')
        return (f'images get at most {most} tokens since memory ran out, and depth is coarser'
                f'{words}: configure the node again once there is more')

    def statuses(self, node_name: str) -> list[DiagnosticStatus]:
        """
        Return each camera's status.

        :param node_name: goes before what the camera's is called.
        """
        return [self._status(lane, f'{node_name}: {depth}')
                for lane, depth in zip(self.lanes.values(), depth_names(list(self.lanes)))]

    def _status(self, lane: Lane, name: str) -> DiagnosticStatus:
        device, reason = self._device, lane.inputs.reason
        if reason:
            lane.statistics.calibration = reason
        return status_of(
            lane.statistics, name, str(device),
            {'state': self._node.state,
             'dropped': self.worker.dropped[lane] + lane.statistics.outdated,
             'open_questions': self.worker.open_questions, 'enabled': lane.enabled,
             'model': self._predictor.name, 'device': device,
             'device_memory_mb': device_memory_mb(device), 'memory_mb': memory_mb(),
             'max_image_tokens': self._predictor.max_image_tokens})


def depth_range(value) -> tuple[float, float]:
    """
    Return min_depth and max_depth, metres, of one setting.

    Another thread may set both between the two looks; then they are looked at again.

    :param value: takes a parameter's name, returns its value.
    """
    for _ in range(3):
        least_m, most_m = value('min_depth'), value('max_depth')
        if most_m == 0 or least_m < most_m:
            break
    return least_m, most_m
