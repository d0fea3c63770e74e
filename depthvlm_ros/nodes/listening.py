# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Listen to a camera for some seconds, as the depth node would, and say whether it can be used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
import math
import time

from depthvlm_ros.camera import Calibration
from depthvlm_ros.nodes.conversions import (
    calibration_from_info,
    check_told_size,
    rgb_from_compressed,
    rgb_from_image,
)
from depthvlm_ros.nodes.findings import fail, Finding, ok, warn
from depthvlm_ros.nodes.inputs import (
    best_effort,
    Inputs,
    latched,
    SubscriptionEventCallbacks,
)
import rclpy
from rclpy.exceptions import NameValidationException, ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

MORE_INFOS = 1.5    # times as many as images tell that images get lost
OLD_S = 1.0         # an image older than this when it arrives is told
NS_PER_S = 1e9
# How rclpy refuses ROS arguments: rcl's own errors are RuntimeErrors.
UNUSABLE = RuntimeError, ParameterException, NameValidationException


@dataclass
class Heard:
    """What came in: the last image and camera_info alone, and what the node would pair."""

    image: Image | CompressedImage | None = None
    images: int = 0
    least_age_s: float = math.inf
    info: CameraInfo | None = None
    info_stamps: set = field(default_factory=set)
    paired: list = field(default_factory=list)      # Calibration or ValueError, one a pair

    def take_image(self, message: Image | CompressedImage, age_s: float) -> None:
        """Take an image, which was so old when it came."""
        self.image, self.images = message, self.images + 1
        self.least_age_s = min(self.least_age_s, age_s)

    def take_info(self, message: CameraInfo) -> None:
        """Take a camera_info."""
        self.info = message
        self.info_stamps.add((message.header.stamp.sec, message.header.stamp.nanosec))

    def take_pair(self, message: Image | CompressedImage,
                  calibration: Calibration | ValueError, _received_s: float) -> None:
        """Take what an image was paired with, or why the node could not use it."""
        try:
            if isinstance(calibration, Calibration):
                check_told_size(message, calibration)
        except ValueError as error:
            calibration = error
        self.paired.append(calibration)


def check_camera(transport: str, seconds: float, ros_args: list[str],
                 rectified: bool = False) -> Iterator[Finding]:
    """
    Join `image` and `camera_info`, remapped by the ROS arguments, and judge what comes.

    :param transport: 'raw' or 'compressed', as the node's parameter.
    :param seconds: how long to listen.
    :param ros_args: '--ros-args' and what follows it.
    """
    context = rclpy.Context()
    try:
        rclpy.init(args=ros_args, context=context)
        node = Node('depthvlm_doctor', context=context)
    except UNUSABLE as error:
        rclpy.try_shutdown(context=context)
        yield fail(f'no node starts with {" ".join(ros_args) or "no ROS arguments"}: '
                   f'{type(error).__name__}: {error}',
                   'mend what follows --ros-args: -r image:=/cam/image_raw names a topic, '
                   '-p use_sim_time:=true sets a parameter')
        return
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    heard = Heard()
    try:
        inputs = Inputs(node, transport, 0.0, heard.take_pair, lambda *_: None,
                        rectified=rectified)
        image_type = CompressedImage if transport == 'compressed' else Image
        image_topic, info_topic = inputs.topic, node.resolve_topic_name('camera_info')
        node.create_subscription(
            image_type, image_topic,
            lambda message: heard.take_image(message, _age_s(node, message)), best_effort(10))
        for qos in (best_effort(10), latched(1)):
            node.create_subscription(
                CameraInfo, info_topic, heard.take_info, qos,
                event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False))
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0:
            executor.spin_once(timeout_sec=min(left_s, 0.1))
        yield from _publishers(node, inputs.name, image_type)
        yield from _publishers(node, 'camera_info', CameraInfo)
        yield from _images(image_topic, heard, seconds)
        yield from _infos(info_topic, heard, rectified)
        yield from _pairs(heard, inputs.reason)
    finally:
        executor.shutdown(timeout_sec=1.0)
        node.destroy_node()
        rclpy.try_shutdown(context=context)


def _publishers(node: Node, name: str, kind: type) -> Iterator[Finding]:
    """Say who publishes a topic, of the name by which it is remapped."""
    topic = node.resolve_topic_name(name)
    wanted = f'sensor_msgs/msg/{kind.__name__}'
    found = node.get_publishers_info_by_topic(topic)
    if not found:
        yield fail(f'{topic}: nobody publishes it',
                   f'start the camera, and give its topic: --ros-args -r {name}:=... '
                   '(ROS_DOMAIN_ID and the discovery range must be its own)')
    for publisher in found:
        qos = publisher.qos_profile
        what = (f'{topic}: {publisher.topic_type} from {publisher.node_name} '
                f'({qos.reliability.name.lower()}, {qos.durability.name.lower()})')
        if publisher.topic_type == wanted:
            yield ok(what)
        else:
            yield fail(what, f'wanted {wanted}: name another topic, or set image_transport')


def _images(topic: str, heard: Heard, seconds: float) -> Iterator[Finding]:
    """Judge the images: whether they come, can be read, and are of now."""
    if not heard.images:
        yield fail(f'{topic}: no image within {seconds:g} s',
                   'if it is published, large messages get lost: see "Topics" in README')
        return
    message, rate_hz = heard.image, heard.images / seconds
    read = rgb_from_compressed if isinstance(message, CompressedImage) else rgb_from_image
    try:
        height, width = read(message).shape[:2]
    except ValueError as error:
        yield fail(f'{topic}: {error}', 'make the driver publish another encoding')
    else:
        yield ok(f'{topic}: {rate_hz:.1f} Hz, {width} x {height} px, '
                 f'frame {message.header.frame_id!r}')
    infos = len(heard.info_stamps)
    if infos > MORE_INFOS * heard.images + 1:
        yield warn(f'{topic}: {heard.images} images came, and {infos} camera_info with stamps of '
                   'their own', 'large images get lost on the way to a best-effort reader: where '
                   'the camera publishes reliably, launch with image_reliability:=reliable')
    if not message.header.frame_id:
        yield warn(f'{topic}: the frame_id is empty', 'give the camera its optical frame: '
                   'without one, no points can be brought into another frame')
    if not -OLD_S < heard.least_age_s < OLD_S:
        yield warn(f'{topic}: images are {heard.least_age_s:.1f} s old on this clock when '
                   'they arrive', 'set the clocks alike; with a bag or a simulator, set '
                   'use_sim_time')


def _infos(topic: str, heard: Heard, rectified: bool) -> Iterator[Finding]:
    """Judge the calibration."""
    if heard.info is None:
        yield fail(f'{topic}: no camera_info', "a driver must publish it under the images' own "
                   'stamps or once, latched; camera_calibration makes the numbers')
        return
    try:
        calibration = calibration_from_info(heard.info, rectified)
        intrinsics = calibration.intrinsics
    except ValueError as error:
        yield fail(f'{topic}: {error}', 'calibrate the camera (camera_calibration)')
        return
    yield ok(f'{topic}: fx {intrinsics.fx:.1f}, fy {intrinsics.fy:.1f}, cx {intrinsics.cx:.1f}, '
             f'cy {intrinsics.cy:.1f} px, {calibration.distortion_model or "no model"}'
             f'{"" if calibration.distorted else ", no distortion"}')


def _pairs(heard: Heard, reason: str) -> Iterator[Finding]:
    """Say whether images find their calibration."""
    if heard.image is None or heard.info is None:
        return
    if not any(isinstance(pair, Calibration) for pair in heard.paired):
        # What a pair was refused for says more than why the latest image, perhaps, has none yet.
        why = heard.paired[-1] if heard.paired else reason
        yield fail(f'images find no camera_info: {why}',
                   'publish the camera_info of these very images: same stamp, or same frame_id '
                   'and size')
    else:
        yield ok(f'{len(heard.paired)} images found their camera_info')


def _age_s(node: Node, message) -> float:
    """Return how old a message is on the node's clock."""
    stamp = message.header.stamp
    return node.get_clock().now().nanoseconds / NS_PER_S - stamp.sec - stamp.nanosec / NS_PER_S
