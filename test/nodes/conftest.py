# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A node that runs on real rclpy and DDS, and a client beside it."""

from array import array
import contextlib
import itertools
import math
import sys
import threading
import time
from types import SimpleNamespace

from builtin_interfaces.msg import Duration, Time
import cv2
from depthvlm_ros.action import AnswerQuery
from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.msg import SpatialReference
from depthvlm_ros.nodes import diagnostics, lane
from depthvlm_ros.nodes.transforms import NoTransformError
from depthvlm_ros.srv import Measure, SpatialQuery
from geometry_msgs.msg import Point
import numpy as np
import pytest
import rclpy
from rclpy.action import ActionClient, ActionServer, CancelResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.context import Context
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

STATUS = SpatialQuery.Response


@pytest.fixture(scope='session')
def checkpoint(tmp_path_factory):
    """Return a three-layer checkpoint whose depth varies and whose answers take all tokens."""
    torch = pytest.importorskip('torch')
    from depthvlm_ros.model import DepthVLM, DepthVLMConfig
    from depthvlm_ros.training.tokenizer import train_tokenizer
    folder = tmp_path_factory.mktemp('tiny')
    tokenizer = train_tokenizer(['How far is the red box? It is 2.31 m away.'] * 3, 320)
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in (
        ('image_token_id', '<|image_pad|>'), ('video_token_id', '<|video_pad|>'),
        ('vision_start_token_id', '<|vision_start|>'),
        ('vision_end_token_id', '<|vision_end|>'))}
    text = {'vocab_size': len(tokenizer), 'hidden_size': 48, 'intermediate_size': 64,
            'num_hidden_layers': 3, 'num_attention_heads': 2, 'num_key_value_heads': 1,
            'head_dim': 24, 'max_position_embeddings': 2048,
            'rope_parameters': {'rope_type': 'default', 'rope_theta': 10000.0,
                                'mrope_section': [4, 4, 4], 'mrope_interleaved': True}}
    vision = {'depth': 4, 'hidden_size': 32, 'intermediate_size': 64, 'num_heads': 2,
              'out_hidden_size': 48, 'num_position_embeddings': 64,
              'deepstack_visual_indexes': [0, 1, 2]}
    config = DepthVLMConfig(
        text_config=text, vision_config=vision, tie_word_embeddings=True, canonical_fx=128.0,
        min_pixels=96 * 96, max_pixels=160 * 128, intermediate_multiple=1,
        depth_head_features=8, depth_head_channels=[8, 8, 8, 8], **ids)
    torch.manual_seed(0)
    model = DepthVLM(config)
    for weights in model.depth_head.parameters():
        torch.nn.init.normal_(weights, std=0.15)    # depth that differs from place to place
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope='session')
def ros():
    """Return a context of these tests' own."""
    context = Context()
    rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
    yield context
    rclpy.try_shutdown(context=context)


def wait_until(condition, timeout_s=60.0):
    """Return whether a condition came true in time."""
    until_s = time.monotonic() + timeout_s
    while time.monotonic() < until_s:
        if condition():
            return True
        time.sleep(0.01)
    return bool(condition())


@contextlib.contextmanager
def spinning(node, threads=4):
    """Spin a node in the background."""
    from depthvlm_ros.nodes.spinning import PoolExecutor, spin
    executor = PoolExecutor(threads, context=node.context)
    executor.add_node(node)
    thread = threading.Thread(target=spin, args=(executor,), daemon=True)
    thread.start()
    try:
        yield executor
    finally:
        executor.shutdown(timeout_sec=5.0)
        thread.join(2.0)


@pytest.fixture
def make_depth_node(checkpoint, ros):
    """Return a function that makes a spinning depth node with some parameters."""
    from depthvlm_ros.nodes.depth_node import DepthNode
    with contextlib.ExitStack() as stack:
        def make(**values):
            values = {'model': str(checkpoint), 'device': 'cpu', **values}
            node = DepthNode(context=ros, parameter_overrides=[
                Parameter(name, value=value) for name, value in values.items()])
            stack.callback(node.destroy_node)
            stack.enter_context(spinning(node))
            stack.callback(node.shut_down, 10.0)
            return node
        yield make


@pytest.fixture
def active(make_depth_node, make_robot):
    """Return a function that makes an active node and a robot that it has joined."""
    def make(topics=(), **values):
        node, robot = make_depth_node(**{'max_tokens': 6, **values}), make_robot()
        for topic, kind in topics:
            robot.subscribe(kind, topic)
        node.trigger_configure()
        node.trigger_activate()
        assert robot.until(robot.connected)
        for kept in robot.got.values():     # of before it was active
            kept.clear()
        return node, robot
    return make


@pytest.fixture
def patient(monkeypatch):
    """Let no camera count as silent, however long its next image takes."""
    monkeypatch.setattr(diagnostics, 'SILENT_S', 600.0)
    monkeypatch.setattr(lane, 'SILENT_S', 600.0)


@pytest.fixture
def slow_down():
    """Return a function that makes passes over images, or tokens, take longer."""
    def slow(node, pass_s=0.0, token_s=0.0):
        model = node._predictor.model
        model.model.visual.register_forward_hook(lambda *_: time.sleep(pass_s))
        model.lm_head.register_forward_hook(lambda *_: time.sleep(token_s))
    return slow


@pytest.fixture
def hold():
    """
    Return a function that holds passes, or tokens, until the event that it returns is set.

    Named behind `active`, it lets go before the node is shut down.
    """
    gates = []

    def hold(node, what='pass', after=0):
        gate, calls, model = threading.Event(), itertools.count(), node._predictor.model

        def wait(*_):
            if next(calls) >= after:
                gate.wait(300.0)    # longer than any test waits for what must not wait for it
        (model.model.visual if what == 'pass' else model.lm_head).register_forward_hook(wait)
        gates.append(gate)
        return gate
    yield hold
    for gate in gates:
        gate.set()


@pytest.fixture
def say(put_words):
    """Return a function that puts words into a node's model's mouth, as put_words does."""
    return lambda node, words: put_words(node._predictor, words)


@pytest.fixture
def transform():
    """Return what stands in for tf with one transform, or with an exception instead of it."""
    return Table


@pytest.fixture
def late_transform():
    """Return what stands in for a tf that knows of the stamp only after so many looks."""
    return Late


@pytest.fixture
def make_robot(ros):
    """Return a function that makes the robot's side of the depth node."""
    with contextlib.ExitStack() as stack:
        def make(**options):
            robot = Robot(ros, **options)
            stack.callback(robot.node.destroy_node)
            stack.enter_context(spinning(robot.node))
            return robot
        yield make


@pytest.fixture
def make_actor(ros):
    """Return a function that makes a scripted depth node, which nobody spins yet."""
    return lambda: Actor(ros)


@pytest.fixture
def actor(make_actor):
    """Return a scripted depth node that is spun."""
    actor = make_actor()
    with spinning(actor):
        yield actor
    actor.action.destroy()
    actor.destroy_node()


@pytest.fixture
def make_action_client(ros):
    """Return a function that makes a client of ~/answer, on a node of its own."""
    with contextlib.ExitStack() as stack:
        def make():
            node = Node('client', context=ros)
            stack.callback(node.destroy_node)
            # Before the node spins: an executor that meets a half-made client breaks.
            client = ActionClient(node, AnswerQuery, 'depthvlm/answer')
            stack.callback(client.destroy)
            stack.enter_context(spinning(node, threads=2))
            assert client.wait_for_server(60.0)
            return client
        yield make


class Table:
    """A transform from the robot's camera to the map, in place of tf."""

    def __init__(self, found):
        self.found = found

    def matrix(self, target_frame, source_frame, stamp):
        """Return it, or raise the exception."""
        if isinstance(self.found, Exception):
            raise self.found
        assert (target_frame, source_frame, stamp) == (
            'map', 'camera_optical_frame', Time(sec=1))
        return self.found

    def close(self):
        """Do nothing."""


class Late(Table):
    """A tf that hears of the image's stamp only after some looks."""

    def __init__(self, looks, error=NoTransformError):
        super().__init__(np.eye(4))
        self.left, self.error = looks, error

    def matrix(self, target_frame, source_frame, stamp):
        """Return the transform, once it is there."""
        self.left -= 1
        if self.left >= 0:
            raise self.error('extrapolation into the future')
        return super().matrix(target_frame, source_frame, stamp)


class Robot:
    """
    A camera that publishes, subscribers that keep what they get, and a client.

    :param compressed: publish CompressedImage.
    :param info_qos: of camera_info.
    """

    camera = Intrinsics(128, 96, 100.0, 105.0, 60.0, 50.0)

    def __init__(self, ros, compressed=False, info_qos=10):
        self.node = Node('robot', context=ros)
        self.got = {}
        self.compressed = compressed
        self.images = self.node.create_publisher(
            CompressedImage if compressed else Image,
            'image/compressed' if compressed else 'image', 10)
        self.infos = self.node.create_publisher(CameraInfo, 'camera_info', info_qos)

    def subscribe(self, kind, topic):
        """Keep the messages of a topic."""
        self.got[topic] = []
        self.node.create_subscription(kind, topic, self.got[topic].append, 50)

    @staticmethod
    def until(condition, timeout_s=60.0):
        """Return whether a condition came true in time."""
        return wait_until(condition, timeout_s)

    def connected(self):
        """Tell whether the depth node has joined the camera and the subscribers."""
        return (self.images.get_subscription_count() == 1
                and self.infos.get_subscription_count() >= 1
                and all(self.node.count_publishers(topic) for topic in self.got))

    def publish(self, rgb, info, stamp, frame_id='camera_optical_frame'):
        """Publish an image, and its camera_info where one is given."""
        header = Header(stamp=stamp, frame_id=frame_id)
        if info is not None:
            info.header = header
            self.infos.publish(info)
        self.images.publish(
            compressed_message(rgb, header) if self.compressed else image_message(rgb, header))

    @staticmethod
    def picture(seed=0):
        """Return noise of the camera's size."""
        return np.random.default_rng(seed).integers(0, 256, (96, 128, 3), dtype=np.uint8)

    def show(self, node, sec=1, seed=0):
        """Publish a picture and wait until the node has it, to its last figure."""
        from depthvlm_ros.nodes.conversions import info_from_intrinsics
        front = node.stream.first
        before, passed = front.newest, front.statistics.not_wanted + front.statistics.rate_limited
        self.publish(self.picture(seed), info_from_intrinsics(self.camera, Header()),
                     Time(sec=sec))

        def is_there():
            newest = front.newest
            return newest is not before and newest.source.header.stamp.sec == sec and (
                newest.streamed or newest.delivered
                or front.statistics.not_wanted + front.statistics.rate_limited > passed)
        assert self.until(is_there)

    def ask(self, question='How far is the red box?', **fields):
        """Ask the depth node and return the response."""
        return self.call(SpatialQuery, 'depthvlm/spatial_query',
                         SpatialQuery.Request(question=question, **fields))

    def call(self, kind, name, request, timeout_s=60.0):
        """Call a service and return its response."""
        client = self.node.create_client(kind, name)
        assert client.wait_for_service(60.0), f'no service {name}'
        future = client.call_async(request)
        assert wait_until(future.done, timeout_s), f'{name} did not answer'
        self.node.destroy_client(client)
        return future.result()


def image_message(rgb, header):
    """Return the rgb8 message of an array."""
    return Image(header=header, height=rgb.shape[0], width=rgb.shape[1], encoding='rgb8',
                 step=rgb.shape[1] * 3, data=array('B', rgb.tobytes()))


def compressed_message(rgb, header):
    """Return the PNG message of an array."""
    data = cv2.imencode('.png', rgb[..., ::-1])[1]
    return CompressedImage(header=header, format='png', data=array('B', data.tobytes()))


class Actor(Node):
    """Stands where the depth node does, and says its lines."""

    words = ('The ', 'The red ', 'The red box is ', 'The red box is 2.31 m away.')

    def __init__(self, ros):
        super().__init__('depthvlm', context=ros)
        self.asked, self.status, self.pause_s, self.word_s = [], STATUS.OK, 0.0, 0.0
        self.before_next = lambda text: None    # called when a word has been said
        self.go_on = threading.Event()          # questions wait for it
        self.go_on.set()
        self.cancelled = threading.Event()
        group = ReentrantCallbackGroup()
        self.create_service(SpatialQuery, '~/spatial_query', self.on_query, callback_group=group)
        self.create_service(Measure, '~/measure', self.on_measure, callback_group=group)
        self.action = ActionServer(
            self, AnswerQuery, '~/answer', self.on_goal, callback_group=group,
            cancel_callback=lambda goal: CancelResponse.ACCEPT)

    def on_query(self, request, response):
        self.asked.append(request)
        time.sleep(self.pause_s)
        self.go_on.wait(300.0)
        return self.filled(request, response)

    def on_measure(self, request, response):
        self.asked.append(request)
        response.distances = [1.5] * (len(request.pixels) - 1)
        return response

    def on_goal(self, goal):
        self.asked.append(goal.request)
        result = self.filled(goal.request, AnswerQuery.Result())
        for tokens, text in enumerate(self.words, 1):
            goal.publish_feedback(AnswerQuery.Feedback(text=text, tokens=tokens))
            result.answer, result.tokens = text, tokens
            self.before_next(text)
            if wait_until(lambda: goal.is_cancel_requested, self.word_s):
                self.cancelled.set()
                result.status, result.message = STATUS.CANCELLED, 'cancelled'
                goal.canceled()
                return result
        goal.succeed() if result.status == STATUS.OK else goal.abort()
        return result

    def filled(self, request, response):
        response.status, response.answer = self.status, f'You asked: {request.question}'
        response.message = 'no more of it' if self.status else ''
        response.header = Header(stamp=Time(sec=7, nanosec=5), frame_id='lens')
        response.points_frame = request.target_frame or 'lens'
        response.model, response.tokens = 'actor', 3
        response.latency = Duration(nanosec=250_000_000)
        response.references = [SpatialReference(
            label='', source=SpatialReference.REQUEST, pixel=pixel, depth=2.5, valid=True,
            point=Point(x=0.5, y=-0.25, z=math.nan)) for pixel in request.pixels]
        return response


@pytest.fixture
def old_pillow(monkeypatch):
    """Keep the model from being imported, as Ubuntu 22.04's Pillow without Resampling does."""
    def fail(name, *words):
        if name.startswith('depthvlm_ros.model'):
            raise AttributeError("module 'PIL.Image' has no attribute 'Resampling'")
    for name in ('depthvlm_ros.model', 'depthvlm_ros.model.predictor'):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, 'meta_path', [SimpleNamespace(find_spec=fail), *sys.meta_path])
