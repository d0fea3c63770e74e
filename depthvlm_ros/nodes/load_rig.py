# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A camera, a subscriber and an asker in one, around a depth node that is to be measured."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
import threading
import time

from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.nodes.asking import NoAnswerError, SpatialClient
from depthvlm_ros.nodes.conversions import info_from_intrinsics
from depthvlm_ros.nodes.demo.spectator import FAILED_TRANSITIONS
from depthvlm_ros.nodes.filling import image_message
from depthvlm_ros.srv import SpatialQuery
from depthvlm_ros.synthetic import Scene
from lifecycle_msgs.msg import TransitionEvent
import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

# Half of 640 x 480: the model sees the same, and DDS loses nothing of such messages. A lost piece
# of a larger one is sent again only seconds later, which would be measured instead.
CAMERA = Intrinsics.centred(320, 240, 262.5)
SEED = 7
QOS_DEPTH = 10
LEAST_IMAGES = 4        # of a watching
SETTLE_S = 0.5          # of each watching, before it counts
PATIENCE_S = 60.0       # for the last image of a watching, which is never dropped
MOST_TOKENS = 64
OPEN = 2                # questions open at once, so that one is while the other is asked anew
ENDING_S = 120.0        # for the answers under way at the end


@dataclass
class Window:
    """
    What came of the images of a stretch of time.

    :param seconds: how long it was.
    :param latencies_s: from each image's stamp to the arrival of its depth.
    """

    seconds: float
    published: int = 0
    latencies_s: list[float] = field(default_factory=list)

    @property
    def delivered(self) -> int:
        """Return how many of the images came out as depth."""
        return len(self.latencies_s)


class Asking:
    """
    Keeps some questions open: each answer asks the next one.

    :param client: SpatialClient.
    """

    def __init__(self, client: SpatialClient, question: str):
        self.failure = ''
        self.tokens: list[int] = []     # of each answer
        self._client, self._question = client, question
        self._going = True
        self._open = 0
        self._first, self._none_open = threading.Event(), threading.Event()
        self._lock = threading.Lock()

    def start(self) -> None:
        """Open the questions, and wait for the first answer."""
        for _ in range(OPEN):
            self._ask()
        self._first.wait(ENDING_S)

    def ask_no_more(self) -> None:
        """Leave it at the questions that are open."""
        self._going = False

    def stop(self) -> None:
        """Ask no more, and wait until all answers are there."""
        self.ask_no_more()
        self._none_open.wait(ENDING_S)

    def _ask(self) -> None:
        with self._lock:
            self._open += 1
        self._client.ask_async(
            self._question, max_tokens=MOST_TOKENS).add_done_callback(self._on_answer)

    def _on_answer(self, future) -> None:
        """Ask again; on the executor's thread."""
        try:
            response = future.result()
            if response.status == SpatialQuery.Response.OK:
                self.tokens.append(response.tokens)
            else:
                self.failure = f'status {response.status}: {response.message}'
        except NoAnswerError as error:
            self.failure = str(error)
        self._first.set()
        with self._lock:
            self._open -= 1
            left = self._open
        if self._going and not self.failure:
            self._ask()
        elif not left:
            self._none_open.set()


class Rig(Node):
    """Publishes one room's image, receives depth on the executor's thread, and asks."""

    def __init__(self):
        super().__init__('question_load')
        scene = Scene.random(SEED)
        frame = scene.render(CAMERA, scene.pose_at(0.0))
        self.questions = [*{kind: question for question, _, kind in frame.questions(0)}.values()]
        self.failed_transition = ''
        self._image = image_message(frame.rgb, 'rgb8', Header())
        self._info = info_from_intrinsics(CAMERA, Header())
        self._images = self.create_publisher(Image, 'image', QOS_DEPTH)
        self._infos = self.create_publisher(CameraInfo, 'camera_info', QOS_DEPTH)
        self._arrivals: dict[int, float] = {}       # stamp in ns: latency in s
        self._arrived = threading.Condition()
        self._answers: list[int] = []               # tokens of each
        self._tokens_watched, self._asking_s = 0, 0.0
        self.create_subscription(Image, 'depthvlm/depth/image', self._on_depth, QOS_DEPTH)
        self.create_subscription(TransitionEvent, 'depthvlm/transition_event',
                                 self._on_transition, QOS_DEPTH)
        self.client = SpatialClient(self, 'depthvlm')

    def watch(self, rate_hz: float, seconds: float, patience_s: float = PATIENCE_S) -> Window:
        """
        Publish at a fixed rate, and return what came of it.

        :param seconds: how long; longer where that makes less than LEAST_IMAGES images.
        :param patience_s: how long to wait for the last image's depth.
        """
        seconds = max(seconds, LEAST_IMAGES / rate_hz)
        begin_s = time.monotonic()
        stamps, published = [], 0
        while True:
            due_s = begin_s + published / rate_hz
            if due_s - begin_s >= SETTLE_S + seconds:
                break
            time.sleep(max(0.0, due_s - time.monotonic()))
            stamp = self._publish()
            published += 1
            if due_s - begin_s >= SETTLE_S:
                stamps.append(stamp)
        self._wait_for(stamps[-1] if stamps else 0, patience_s)
        with self._arrived:
            return Window(seconds, len(stamps), [
                self._arrivals[stamp] for stamp in stamps if stamp in self._arrivals])

    def has_depth(self) -> bool:
        """Tell whether any depth has ever arrived."""
        with self._arrived:
            return bool(self._arrivals)

    def one_after_the_other(self, seconds: float) -> float:
        """Publish each image as the depth of the one before arrives; return the rate in Hz."""
        begin_s, count = time.monotonic(), 0
        while time.monotonic() - begin_s < seconds or count < 2:
            if not self._wait_for(self._publish(), PATIENCE_S):
                raise TimeoutError(f'an image gave no depth in {PATIENCE_S:g} s')
            count += 1
        return count / (time.monotonic() - begin_s)

    @contextmanager
    def asking(self, question: str):
        """Keep questions open meanwhile."""
        asking = Asking(self.client, question)
        asking.start()
        first, begin_s = len(asking.tokens), time.monotonic()
        try:
            yield asking
        except BaseException:   # an interrupt among them, which waits for no answers
            asking.ask_no_more()
            raise
        self._tokens_watched += sum(asking.tokens[first:])
        self._asking_s += time.monotonic() - begin_s
        asking.stop()
        self._answers += asking.tokens

    def answered(self) -> dict:
        """Return the figures of the answers."""
        count = len(self._answers)
        return {'answers': count, 'answer_tokens': sum(self._answers) / max(1, count),
                'tokens_per_s': self._tokens_watched / self._asking_s}

    def tokens_of(self, question: str, max_tokens: int) -> int:
        """Return how many tokens a question's answer has."""
        return self.client.ask(question, max_tokens=max_tokens).tokens

    def _publish(self) -> int:
        """Publish the image as if taken now; return its stamp in ns."""
        now = self.get_clock().now()
        for message, publisher in ((self._info, self._infos), (self._image, self._images)):
            message.header = Header(stamp=now.to_msg(), frame_id='camera_optical_frame')
            publisher.publish(message)
        return now.nanoseconds

    def _wait_for(self, stamp_ns: int, patience_s: float) -> bool:
        """Wait for an image's depth; tell whether it came."""
        with self._arrived:
            return self._arrived.wait_for(lambda: stamp_ns in self._arrivals, patience_s)

    def _on_depth(self, message: Image) -> None:
        stamp_ns = message.header.stamp.sec * 10 ** 9 + message.header.stamp.nanosec
        latency_s = (self.get_clock().now().nanoseconds - stamp_ns) * 1e-9
        with self._arrived:
            self._arrivals[stamp_ns] = latency_s
            self._arrived.notify_all()

    def _on_transition(self, message: TransitionEvent) -> None:
        step = (message.start_state.label, message.goal_state.label)
        if step in FAILED_TRANSITIONS:
            self.failed_transition = f'from {step[0]} back to {step[1]}'


@contextmanager
def spun(kind: type[Node]):
    """
    Give a node that a thread spins, and take rclpy down after it.

    :param kind: the node's class, with a SpatialClient as `client`.
    """
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    node, executor = kind(), SingleThreadedExecutor()
    executor.add_node(node)

    def spin():
        with suppress(ExternalShutdownException):
            executor.spin()
    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    try:
        yield node
    finally:
        executor.shutdown()
        thread.join(2.0)
        node.client.destroy()
        node.destroy_node()
        rclpy.try_shutdown()
