# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""One camera's way through the node: its topics, its newest image and depth, its figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
import math
import time

from depthvlm_ros.camera import Calibration
from depthvlm_ros.nodes.clouds import Clouds
from depthvlm_ros.nodes.conversions import check_told_size
from depthvlm_ros.nodes.diagnostics import SILENT_S, Statistics
from depthvlm_ros.nodes.inputs import Inputs
from depthvlm_ros.nodes.looking import Seen, Source
from depthvlm_ros.nodes.outputs import Outputs
from depthvlm_ros.nodes.pacing import Pace
from depthvlm_ros.nodes.worker import Frame, FrameRefusedError
import numpy as np

LOG_THROTTLE_S = 5.0
REFUSED_S = 1.0     # that images may be refused in a row while the one before is asked about
ONLY_CAMERA = 'camera'      # what the only camera is called, in requests and answers


@dataclass(frozen=True, eq=False)
class Depth:
    """
    Depth that can be measured in.

    :param source: the image it is of.
    :param seen: what the model saw in it; its view may be gone, which is large.
    """

    source: Source
    seen: Seen


class Lane:
    """
    A camera's subscriptions, publishers and state.

    :param node: the depth node, whose parameters hold.
    :param name: the camera's, before its topics; '' for the only one.
    :param submit: takes each Frame that is to be looked at.
    :param clouds: what makes the clouds.
    """

    def __init__(self, node, name: str, submit: Callable[[Frame], None], clouds: Clouds):
        self.name = name or ONLY_CAMERA
        self.enabled = True
        self.newest: Frame | None = None    # the newest received; questions are about it
        self.newest_depth: Depth | None = None
        self.statistics = Statistics()
        self._node, self._submit = node, submit
        self._in_log = f'camera {name!r}: ' if name else ''
        self._pace, self._forgotten_s = Pace(), 0.0
        self._said_s: dict[str, float] = {}
        # Of images in a row that the inputs refused: when the first and the last came, and why.
        self._refused: tuple[float, float, str] | None = None
        self._void = ''     # why the last depth has nothing valid, where that is so
        self.outputs = Outputs(node, self._on_mismatch, clouds, name)
        try:
            self.inputs = Inputs(node, node.value('image_transport'),
                                 node.value('sync_tolerance'), self._on_image,
                                 self._on_input_error, node.value('sync'), self._on_mismatch,
                                 name, rectified=not node.value('rectify'))
        except Exception:
            self.outputs.destroy()
            raise

    def close(self) -> None:
        """Withdraw the publishers; the subscriptions are withdrawn before."""
        self.outputs.destroy()
        self.newest = self.newest_depth = None

    @property
    def refusal(self) -> str:
        """
        Return why the newest images cannot be used, '' where they can.

        One that is refused alone costs itself; where all are, the last good one is of long ago.
        """
        first_s, last_s, reason = self._refused or (0.0, 0.0, '')
        return reason if last_s - first_s >= REFUSED_S else ''

    def forget(self) -> None:
        """Drop what was received, as when time jumps back with a looping bag."""
        self._forgotten_s = time.monotonic()
        self.newest = self.newest_depth = self._refused = None
        self.inputs.forget()

    def log_error(self, what: str, error: Exception, count: str = 'failed') -> None:
        """Count a fault and log it, at most one line of its kind in a few seconds."""
        text = f'{self._in_log}{what}: ' + (
            str(error) if isinstance(error, ValueError) else f'{type(error).__name__}: {error}')
        self.statistics.add_error(count, text)
        now_s = time.monotonic()
        if now_s - self._said_s.get(count, -math.inf) >= LOG_THROTTLE_S:    # each kind its own
            self._said_s[count] = now_s
            self._node.get_logger().error(text)

    def watch(self, shortage: str) -> None:
        """
        See whether images come, and what is odd about them; each thing is logged once.

        :param shortage: what the model has too little of, '' for nothing.
        """
        statistics = self.statistics
        if statistics.silent_s() > SILENT_S:
            before, statistics.silence = statistics.silence, self.inputs.silence
            if statistics.silence and (
                    before.partition(':')[0] != statistics.silence.partition(':')[0]):
                self._node.get_logger().warning(f'{self._in_log}no image comes: '
                                                f'{statistics.silence}')
        else:
            statistics.silence = ''
        before, statistics.doubt = statistics.doubt, (
            self.inputs.doubt or self._void or shortage)
        if statistics.doubt and statistics.doubt != before:
            self._node.get_logger().warning(f'{self._in_log}{statistics.doubt}')

    def keep(self, source: Source, seen: Seen) -> None:
        """Keep the depth of an image to be measured in, unless a newer one is there."""
        self._void = '' if np.isfinite(seen.depth_m).any() else (
            'no depth of the last image is valid: see min_depth and max_depth, and the distortion '
            'in camera_info')
        newest = self.newest_depth
        since_s = self._forgotten_s if newest is None else newest.source.received_s
        if source.received_s >= since_s:
            self.newest_depth = Depth(source, replace(seen, view=None))

    def deliver(self, frame: Frame) -> None:
        """Publish what was seen, or count why nothing was; on the worker's thread."""
        if isinstance(frame.error, FrameRefusedError):
            self.log_error('an image was refused', frame.error, 'refused')
        elif frame.error is not None:
            self.log_error('the model failed', frame.error)
        elif not self.enabled:
            self.statistics.count('not_wanted')
        elif frame.source.received_s < self._forgotten_s:   # time jumped back during its pass
            self.statistics.count('outdated')
        else:
            value = self._node.value
            try:
                self.outputs.publish_depth(
                    frame.source.header, frame.seen, value('depth_encoding'),
                    value('cloud_stride'), value('edge_threshold'), value('max_cloud_rate'))
                self.statistics.add_published(time.monotonic() - frame.source.received_s)
            except Exception as error:  # the worker's border to ROS
                self.log_error('depth could not be published', error)

    def _on_input_error(self, what: str, error: Exception, count: str = 'failed') -> None:
        """Count an image that goes no further than the inputs, and log why."""
        if count == 'refused':
            now_s = time.monotonic()
            first_s = self._refused[0] if self._refused else now_s
            self._refused = first_s, now_s, str(error)
            self.statistics.add_image()
        self.log_error(what, error, count)

    def _on_mismatch(self, text: str) -> None:
        """Keep for diagnostics, and log, that an end of a topic cannot be met."""
        self.statistics.add_mismatch(text)
        self._node.get_logger().warning(text)

    def _on_image(self, message, calibration: Calibration | ValueError,
                  received_s: float) -> None:
        """Take an image with its calibration: keep it for questions, and look if wanted."""
        self.statistics.add_image()
        if isinstance(calibration, Calibration):
            try:
                check_told_size(message, calibration)
            except ValueError as error:     # whoever looks at it refuses it
                calibration = error
        usable = isinstance(calibration, Calibration)
        self.statistics.calibration = 'ok' if usable else str(calibration)
        self._refused = None
        self.newest = frame = Frame(Source(message, calibration, received_s), lane=self)
        if not self.enabled:
            self.statistics.count('not_wanted')
        elif not self.outputs.depth_wanted():
            self.statistics.count('not_wanted')
            if usable:
                self.outputs.publish_info(message.header, calibration.intrinsics)
        elif (self.outputs.depth_due(self._node.value('max_cloud_rate'))
              and self._pace.allows(self._node.value('max_rate'))):
            self._submit(frame)
        else:
            frame.rate_limited = True
            self.statistics.count('rate_limited')
