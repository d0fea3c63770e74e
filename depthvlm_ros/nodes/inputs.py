# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the depth node subscribes to while it is active."""

from __future__ import annotations

from collections.abc import Callable
import threading
import time

from depthvlm_ros.camera import Calibration
from depthvlm_ros.nodes.conversions import calibration_from_info, image_size
from depthvlm_ros.nodes.mismatch import subscription_events, SubscriptionEventCallbacks
from depthvlm_ros.nodes.pairing import Pairing, Stamped
from depthvlm_ros.nodes.silence import reason_of_silence
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
)
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

POLICIES = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY,
            QoSPolicyKind.DURABILITY)
NS_PER_S = 1_000_000_000


def best_effort(depth: int) -> QoSProfile:
    """Return a profile that receives from any publisher."""
    return QoSProfile(depth=depth, reliability=ReliabilityPolicy.BEST_EFFORT,
                      durability=DurabilityPolicy.VOLATILE)


def latched(depth: int) -> QoSProfile:
    """Return a profile that gets what was published before, where the publisher keeps it."""
    return QoSProfile(depth=depth, reliability=ReliabilityPolicy.RELIABLE,
                      durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Inputs:
    """
    The subscriptions to images and camera_info.

    No single reader meets both a driver whose camera_info is best-effort and one that publishes
    it once, latched; so there are two, and the pairing ignores what comes twice.

    :param on_image: called with each image, its Calibration or the ValueError instead of it, and
        when the image was received, on time.monotonic.
    :param on_error: called with what happened and each exception that on_image raises; and with a
        ValueError and 'refused' for each image whose stamp or header cannot be used, or that
        found no camera_info.
    :param sync: how images find their camera_info, see Pairing.
    :param on_mismatch: called with the reason where a publisher's QoS does not fit.
    :param camera: goes before the topics where there are several; '' for the only one.
    :param rectified: the images are rectified already.
    """

    def __init__(self, node: Node, transport: str, tolerance_s: float,
                 on_image: Callable[[Image | CompressedImage, Calibration | ValueError, float],
                                    None],
                 on_error: Callable[..., None], sync: str = 'auto',
                 on_mismatch: Callable[[str], None] = lambda text: None, camera: str = '',
                 rectified: bool = False):
        self._node, self._on_mismatch, self._rectified = node, on_mismatch, rectified
        self._on_image, self._on_error = on_image, on_error
        self._pairing = Pairing(round(tolerance_s * NS_PER_S), sync)
        self._newest_stamp_ns, self._fault = 0, ''
        self._came = False      # whether any image did
        self._lock = threading.Lock()
        self._group = MutuallyExclusiveCallbackGroup()
        prefix = f'{camera}/' if camera else ''
        kind, image = ((CompressedImage, 'image/compressed') if transport == 'compressed'
                       else (Image, 'image'))
        self._name, info = f'{prefix}{image}', f'{prefix}camera_info'
        self._subscriptions: list = []
        try:
            self._subscribe(kind, self._name, self._take_image, best_effort(1))
            self._subscribe(CameraInfo, info, self._take_info, best_effort(10), 'any')
            self._subscribe(CameraInfo, info, self._take_info, latched(1), 'latched')
        except Exception:       # such as an overridden QoS that cannot be
            self.destroy()
            raise
        images = self._subscriptions[0]
        self._topic = images.topic_name
        self._listens = f'sensor_msgs/msg/{kind.__name__}', images.qos_profile.reliability

    @property
    def topic(self) -> str:
        """Return the full name of the image topic."""
        return self._topic

    @property
    def name(self) -> str:
        """Return the name by which the image topic is remapped."""
        return self._name

    @property
    def silence(self) -> str:
        """
        Say why no image comes, as far as that is known.

        '' where the last one, that waits for its camera_info, has a reason of its own.
        """
        if self._came and self.reason and self._node.count_publishers(self.topic):
            return ''
        return reason_of_silence(self._node, self._name, *self._listens, self._came)

    @property
    def doubt(self) -> str:
        """Return what is odd about images that are used all the same, '' for nothing."""
        return self._pairing.doubt

    @property
    def reason(self) -> str:
        """Return why images cannot be used or find no camera_info, where that is so."""
        return self._fault or self._pairing.reason

    def forget(self) -> None:
        """Forget images that wait, as when time jumps back."""
        with self._lock:
            self._pairing.clear()
            self._newest_stamp_ns = 0

    def destroy(self) -> None:
        """Unsubscribe."""
        while self._subscriptions:
            self._node.destroy_subscription(self._subscriptions.pop())

    def _subscribe(self, kind, topic, callback, qos, entity_id=None):
        # The latched reader is meant to miss drivers that keep nothing: no warning for those.
        events = (SubscriptionEventCallbacks(use_default_callbacks=False)
                  if entity_id == 'latched' else
                  subscription_events(self._node.resolve_topic_name(topic), entity_id,
                                      self._on_mismatch))
        self._subscriptions.append(self._node.create_subscription(
            kind, topic, callback, qos, callback_group=self._group, event_callbacks=events,
            qos_overriding_options=QoSOverridingOptions(POLICIES, entity_id=entity_id)))

    def _take_image(self, message: Image | CompressedImage) -> None:
        received_s = time.monotonic()
        try:
            image = _stamped(message.header, image_size(message), (message, received_s))
        except ValueError as error:
            with self._lock:
                self._came, self._fault = True, str(error)
            self._refuse(str(error))
            return
        with self._lock:
            self._came, self._fault = True, self._stamp_fault(image.stamp_ns)
            pairs = [] if self._fault else self._pairing.add_image(image)
            given_up = self._fault or self._pairing.given_up
        if given_up:
            self._refuse(given_up)
        self._hand_on(pairs)

    def _stamp_fault(self, stamp_ns: int) -> str:
        """
        Return what is wrong with an image's stamp, '' for nothing.

        One that goes back costs that image alone: a camera or a bag that begins again goes on
        from there.
        """
        if stamp_ns <= 0:
            return ("the image's stamp is zero: see that the driver stamps its images with the "
                    'time of exposure')
        before_ns, self._newest_stamp_ns = self._newest_stamp_ns, stamp_ns
        if stamp_ns < before_ns:
            return (f"the image's stamp went back by {(before_ns - stamp_ns) / NS_PER_S:.3f} s: "
                    'see that one camera alone publishes the topic, and with a bag that loops '
                    'set use_sim_time')
        return ''

    def _refuse(self, reason: str) -> None:
        self._on_error('an image was refused', ValueError(reason), 'refused')

    def _take_info(self, message: CameraInfo) -> None:
        try:
            calibration, size = calibration_from_info(message, self._rectified), None
            size = calibration.size
        except ValueError as error:
            calibration, size = error, None
        with self._lock:
            pairs = self._pairing.add_info(_stamped(message.header, size, calibration))
        self._hand_on(pairs)

    def _hand_on(self, pairs) -> None:
        for image, calibration in pairs:
            message, received_s = image.value
            try:
                self._on_image(message, calibration, received_s)
            except Exception as error:  # a ROS callback: log it and go on
                self._on_error('an image could not be taken', error)


def _stamped(header: Header, size, value) -> Stamped:
    stamp_ns = header.stamp.sec * NS_PER_S + header.stamp.nanosec
    return Stamped(stamp_ns, header.frame_id, size, value)
