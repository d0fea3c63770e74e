# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The demo's own node: it watches what the two others publish, and asks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
import time

from depthvlm_ros.msg import Pixel
from depthvlm_ros.nodes.poses import pose_matrix
from depthvlm_ros.srv import SpatialQuery
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from lifecycle_msgs.msg import TransitionEvent
import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

STAMPS_KEPT = 150       # of each kind of message; a depth image may be seconds late
POSES_KEPT = 10_000     # and an answer minutes
FRAMES_KEPT = 100       # of the depth images measured, to be compared with the truth
QOS = QoSProfile(depth=10)
FAILED_TRANSITIONS = {('configuring', 'unconfigured'), ('activating', 'inactive'),
                      ('configuring', 'errorprocessing'), ('activating', 'errorprocessing')}
TYPES = {'rgb8': (np.uint8, 3), '32FC1': (np.float32, 1)}

Stamp = tuple[int, int]


def stamp_of(message) -> Stamp:
    """Return a message's stamp as (seconds, nanoseconds)."""
    return message.header.stamp.sec, message.header.stamp.nanosec


def pixels_of(message: Image) -> np.ndarray:
    """Return an rgb8 or 32FC1 image as an array (H, W, 3) uint8 or (H, W) float32."""
    kind, channels = TYPES[message.encoding]
    row = np.dtype(kind).itemsize * channels * message.width
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)[:, :row]
    pixels = np.ascontiguousarray(rows).view(kind)
    return pixels.reshape(message.height, message.width, 3) if channels == 3 else pixels


class Recent(OrderedDict):
    """
    The last few things by stamp.

    :param count: how many are kept.
    """

    def __init__(self, count: int = STAMPS_KEPT):
        super().__init__()
        self._count = count

    def put(self, stamp: Stamp, value):
        """Keep a thing, and forget the oldest one when there are too many."""
        self[stamp] = value
        if len(self) > self._count:
            self.popitem(last=False)


class Spectator(Node):
    """
    Subscribes to everything, keeps the newest by stamp, and measures the depth stream.

    Its messages come in while `wait` spins; so all of it happens in one thread. While `measuring`
    is true, depth images are counted and timed.
    """

    def __init__(self):
        super().__init__('demo')
        self.images, self.truths, self.poses = Recent(), Recent(), Recent(POSES_KEPT)
        self.depths, self.infos, self.clouds = Recent(), Recent(), Recent()
        self.measured: list[tuple[np.ndarray, np.ndarray]] = []     # prediction and truth, metres
        self.arrivals_s: list[float] = []
        self.latencies_ms: list[float] = []
        self.device = ''
        self.failed_transition = ''
        self.measuring = False
        self._watch(Image, 'image', self.images, pixels_of)
        self._watch(Image, 'ground_truth/depth', self.truths, pixels_of)
        self._watch(PoseStamped, 'ground_truth/pose', self.poses,
                    lambda message: pose_matrix(message.pose))
        self._watch(CameraInfo, 'depthvlm/depth/camera_info', self.infos, lambda message: message)
        self.create_subscription(Image, 'depthvlm/depth/image', self._on_depth, QOS)
        self.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, QOS)
        self.create_subscription(
            TransitionEvent, 'depthvlm/transition_event', self._on_transition, QOS)
        self._query = self.create_client(SpatialQuery, 'depthvlm/spatial_query')

    def _watch(self, kind: type, topic: str, kept: Recent, value: Callable):
        def on_message(message):
            kept.put(stamp_of(message), value(message))
        return self.create_subscription(kind, topic, on_message, QOS)

    def watch_clouds(self):
        """Subscribe to the clouds: late, since they are the largest messages by far."""
        self._watch(PointCloud2, 'depthvlm/depth/points', self.clouds, lambda message: message)

    def wait(self, until: Callable[[], bool], timeout_s: float) -> bool:
        """Take messages in until something holds; tell whether it came in time."""
        deadline_s = time.monotonic() + timeout_s
        while not until():
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                return False
            rclpy.spin_once(self, timeout_sec=min(left_s, 0.1))
        return True

    def depth_hz(self) -> float:
        """Return the rate of the depth images measured, NaN for less than two."""
        if len(self.arrivals_s) < 2:
            return float('nan')
        return (len(self.arrivals_s) - 1) / (self.arrivals_s[-1] - self.arrivals_s[0])

    def ask(self, question: str, pixels: tuple = (), timeout_s: float = 60.0):
        """
        Ask about the newest image.

        :param pixels: (u, v) of places to be measured.
        :return: the service's response; None when there was none in time.
        """
        request = SpatialQuery.Request(
            question=question, pixels=[Pixel(u=float(u), v=float(v)) for u, v in pixels])
        if not self.wait(self._query.service_is_ready, timeout_s):
            return None
        answer = self._query.call_async(request)
        if not self.wait(answer.done, timeout_s):
            self._query.remove_pending_request(answer)
            return None
        return answer.result()

    def _on_depth(self, message: Image):
        stamp, depth_m = stamp_of(message), pixels_of(message)
        self.depths.put(stamp, depth_m)
        if not self.measuring:
            return
        now_ns = self.get_clock().now().nanoseconds
        self.arrivals_s.append(time.monotonic())
        self.latencies_ms.append((now_ns - stamp[0] * 10 ** 9 - stamp[1]) * 1e-6)
        if stamp in self.truths and len(self.measured) < FRAMES_KEPT:
            self.measured.append((depth_m, self.truths[stamp]))

    def _on_transition(self, message: TransitionEvent):
        """Keep a transition that led back instead of on."""
        step = (message.start_state.label, message.goal_state.label)
        if step in FAILED_TRANSITIONS:
            self.failed_transition = f'depth_node went from {step[0]} back to {step[1]}'

    def _on_diagnostics(self, message: DiagnosticArray):
        for status in message.status:
            for pair in status.values:
                if pair.key == 'device':
                    self.device = pair.value
