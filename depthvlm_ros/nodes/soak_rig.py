# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A robot around a depth node for a long run: it publishes, asks, counts and manages."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from dataclasses import dataclass, field
import threading
import time

from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.nodes.asking import SpatialClient
from depthvlm_ros.nodes.conversions import info_from_intrinsics
from depthvlm_ros.nodes.demo.spectator import FAILED_TRANSITIONS
from depthvlm_ros.nodes.filling import image_message
from depthvlm_ros.nodes.inputs import latched
from depthvlm_ros.synthetic import Scene
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import TransitionEvent
from lifecycle_msgs.srv import ChangeState
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header

CAMERA = Intrinsics.centred(640, 480, 525.0)
SEED = 11
PICTURES = 8            # different images, from along a walk
QUEUE = 50              # deep enough that nothing counted is lost in it
KINDS = {'image': Image, 'camera_info': CameraInfo, 'points': PointCloud2, 'image_color': Image}
TALLY = ('received', 'published', 'dropped', 'rate_limited', 'refused', 'failed', 'not_wanted')
PATIENCE_S = 30.0


@dataclass
class Counts:
    """
    What came of a stretch of images.

    :param since_ns: stamps before it are of an earlier stretch, and do not count.
    :param sent: images published, broken ones too.
    :param outputs: for each stamp in ns, how many messages of each kind came.
    :param latencies_s: from each image's stamp to the arrival of its depth.
    """

    since_ns: int = 0
    sent: int = 0
    outputs: dict[int, Counter] = field(default_factory=dict)
    latencies_s: list[float] = field(default_factory=list)

    def missing(self) -> int:
        """Return how many outputs are too few or too many, of images that gave any."""
        return sum(abs(counter[kind] - 1) for counter in self.outputs.values() for kind in KINDS)

    def complete(self, published: int) -> bool:
        """Tell whether each image published has given one output of each kind."""
        return len(self.outputs) >= published and not self.missing()


class Robot(Node):
    """Publishes images of a room with their camera_info, and counts what comes back."""

    def __init__(self):
        super().__init__('soak')
        scene = Scene.random(SEED)
        frames = [scene.render(CAMERA, scene.pose_at(1.5 * n)) for n in range(PICTURES)]
        self._pictures = [image_message(frame.rgb, 'rgb8', Header()) for frame in frames]
        self._broken = image_message(frames[0].rgb, 'rgb8', Header())
        self._broken.encoding = 'no such encoding'
        self.questions = [question for question, _, _ in frames[0].questions(0)]
        self._info = info_from_intrinsics(CAMERA, Header())
        self._lock = threading.Lock()
        self._counts = Counts()
        self._tally: dict[str, int] = {}
        self._tallied_s = 0.0
        self._images = self._infos = None
        self.statuses: Counter = Counter()
        self.failed_transition = ''     # the last that led back instead of on
        self.start_camera(info_once=False)
        for name, kind in KINDS.items():
            self.create_subscription(kind, f'depthvlm/depth/{name}',
                                     lambda message, name=name: self._on_output(name, message),
                                     QUEUE)
        self.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        self.create_subscription(TransitionEvent, 'depthvlm/transition_event',
                                 self._on_transition, 10)
        self._change = self.create_client(ChangeState, 'depthvlm/change_state')
        self.client = SpatialClient(self, 'depthvlm')

    def start_camera(self, info_once: bool) -> None:
        """
        Begin to be a camera.

        :param info_once: publish camera_info once, latched, instead of with every image.
        """
        self._images = self.create_publisher(Image, 'image', QUEUE)
        self._infos = self.create_publisher(CameraInfo, 'camera_info',
                                            latched(1) if info_once else QUEUE)
        self._info_once = info_once
        if info_once:
            self._info.header = Header(frame_id='camera_optical_frame')
            self._infos.publish(self._info)

    def stop_camera(self) -> None:
        """Withdraw the camera's publishers, as a driver that dies."""
        self.destroy_publisher(self._images)
        self.destroy_publisher(self._infos)

    def joined(self) -> bool:
        """Tell whether the node has joined the camera, and the robot the node's outputs."""
        return (self._images.get_subscription_count() == 1
                and self._infos.get_subscription_count() >= 1
                and all(self.count_publishers(f'depthvlm/depth/{name}') for name in KINDS))

    def send(self, number: int, broken: bool = False) -> None:
        """Publish an image as if taken now."""
        now = self.get_clock().now()
        header = Header(stamp=now.to_msg(), frame_id='camera_optical_frame')
        message = self._broken if broken else self._pictures[number % PICTURES]
        message.header = header
        with self._lock:
            self._counts.sent += 1
        if not self._info_once:
            self._info.header = header
            self._infos.publish(self._info)
        self._images.publish(message)

    def begin(self) -> None:
        """Begin to count anew."""
        with self._lock:
            self._counts = Counts(since_ns=self.get_clock().now().nanoseconds)

    def counts(self) -> Counts:
        """Return what was counted so far, which changes no more."""
        with self._lock:
            return deepcopy(self._counts)

    def settled_tally(self, sent: int) -> dict[str, int] | None:
        """Wait until the node's own counts have come to rest; None where they do not."""
        until_s, last, last_s = time.monotonic() + PATIENCE_S, None, 0.0
        while time.monotonic() < until_s:
            with self._lock:
                tally, tallied_s = dict(self._tally), self._tallied_s
            told = sum(tally.get(name, 0) for name in TALLY[1:])
            if tallied_s > last_s:      # two messages that agree, not one looked at twice
                if tally and tally == last and told == tally['received'] >= sent:
                    return tally
                last, last_s = tally, tallied_s
            time.sleep(0.1)
        return last

    def change(self, transition: int) -> bool:
        """Ask for a lifecycle transition; tell whether it succeeded."""
        request = ChangeState.Request()
        request.transition.id = transition
        future = self._change.call_async(request)
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        if not done.wait(PATIENCE_S):
            self._change.remove_pending_request(future)
            return False
        return future.result().success

    def ask(self, number: int) -> None:
        """Ask a question, and count its status when it is answered."""
        question = self.questions[number % len(self.questions)]
        self.client.ask_async(question, timeout_s=PATIENCE_S).add_done_callback(self._on_answer)

    def _on_answer(self, future) -> None:
        failed = future.exception() is not None
        with self._lock:
            self.statuses['no answer' if failed else future.result().status] += 1

    def _on_output(self, name: str, message) -> None:
        stamp_ns = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        latency_s = (self.get_clock().now().nanoseconds - stamp_ns) * 1e-9
        with self._lock:
            if stamp_ns < self._counts.since_ns:
                return
            self._counts.outputs.setdefault(stamp_ns, Counter())[name] += 1
            if name == 'image':
                self._counts.latencies_s.append(latency_s)

    def _on_transition(self, message: TransitionEvent) -> None:
        step = (message.start_state.label, message.goal_state.label)
        if step in FAILED_TRANSITIONS:
            self.failed_transition = f'from {step[0]} back to {step[1]}'

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            values = {pair.key: pair.value for pair in status.values}
            if status.name.startswith('depthvlm: depth') and values['state'] == 'active':
                with self._lock:
                    self._tally = {name: int(values[name]) for name in TALLY}
                    self._tallied_s = time.monotonic()
