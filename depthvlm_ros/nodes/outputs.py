# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the depth node publishes while it is active."""

from __future__ import annotations

from collections.abc import Callable

from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.geometry import depth_edges
from depthvlm_ros.nodes.clouds import Clouds
from depthvlm_ros.nodes.conversions import (
    colour_picture,
    depth_image,
    info_from_intrinsics,
)
from depthvlm_ros.nodes.inputs import POLICIES
from depthvlm_ros.nodes.looking import Seen
from depthvlm_ros.nodes.mismatch import publisher_events
from depthvlm_ros.nodes.pacing import Pace
import numpy as np
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header

KEPT = 5    # queue depth of the small outputs, from which lost messages are sent again
KEPT_INFOS = 32     # the same of camera_info: a few hundred bytes each, late beside clouds


def advertise(node: Node, kind, topic: str, on_mismatch: Callable[[str], None], depth: int = 1):
    """
    Return a publisher: reliable, its QoS overridable.

    :param on_mismatch: called with the reason where a subscriber's QoS does not fit.
    :param depth: of its queue.
    """
    return node.create_publisher(
        kind, topic, QoSProfile(depth=depth, reliability=ReliabilityPolicy.RELIABLE),
        event_callbacks=publisher_events(node.resolve_topic_name(topic), on_mismatch),
        # Destroyed in mid-event it would lock its group for good, the node's own with others.
        callback_group=ReentrantCallbackGroup(),
        qos_overriding_options=QoSOverridingOptions(POLICIES))


class Outputs:
    """
    A camera's publishers: reliable, overridable.

    Of clouds the newest alone is kept for a reader that has lost one; of the others a few, because
    with one a reliable reader misses those that are overtaken before they could be sent again.
    Nothing is made that nobody subscribes to.

    :param on_mismatch: called with the reason where a subscriber's QoS does not fit.
    :param clouds: what makes the clouds.
    :param camera: goes before the topics where there are several; '' for the only one.
    """

    def __init__(self, node: Node, on_mismatch: Callable[[str], None], clouds: Clouds,
                 camera: str = ''):
        self._node, self._clouds, self._cloud_pace = node, clouds, Pace()
        prefix = f'~/{camera}/depth' if camera else '~/depth'
        self._publishers: list = []
        try:
            for kind, name, depth in ((Image, 'image', KEPT),
                                      (CameraInfo, 'camera_info', KEPT_INFOS),
                                      (PointCloud2, 'points', 1), (Image, 'image_color', KEPT)):
                self._publishers.append(
                    advertise(node, kind, f'{prefix}/{name}', on_mismatch, depth))
        except Exception:       # such as an overridden QoS that cannot be
            self.destroy()
            raise
        self.depth, self.info, self.points, self.colour = self._publishers

    def depth_wanted(self) -> bool:
        """Tell whether anybody subscribes to something that takes a pass of the model."""
        return any(publisher.get_subscription_count()
                   for publisher in (self.depth, self.points, self.colour))

    def depth_due(self, max_cloud_rate: float) -> bool:
        """Tell whether depth would be published now: a cloud alone has its time."""
        return bool(self.depth.get_subscription_count() or self.colour.get_subscription_count()
                    or self._cloud_pace.is_due(max_cloud_rate))

    def publish_info(self, header: Header, intrinsics: Intrinsics) -> None:
        """Publish the depth image's camera, which needs no pass."""
        if self.info.get_subscription_count():
            self.info.publish(info_from_intrinsics(intrinsics, header))

    def publish_depth(self, header: Header, seen: Seen, encoding: str, stride: int,
                      edge_threshold: float, max_cloud_rate: float) -> None:
        """
        Publish what was seen, under the image's own header.

        :param encoding: of the depth image, '32FC1' or '16UC1'.
        :param stride: of the cloud, in px.
        :param edge_threshold: of the cloud, see depth_edges; 0 for off.
        :param max_cloud_rate: most clouds a second, 0 for one with every depth image.
        """
        self.publish_info(header, seen.intrinsics)
        if self.depth.get_subscription_count():
            self.depth.publish(depth_image(seen.depth_m, encoding, header))
        if self.colour.get_subscription_count():
            self.colour.publish(colour_picture(seen.depth_m, header))
        if self.points.get_subscription_count() and self._cloud_pace.allows(max_cloud_rate):
            depth_m = seen.depth_m
            if edge_threshold > 0:
                depth_m = np.where(
                    depth_edges(depth_m, edge_threshold), np.float32(np.nan), depth_m)
            self.points.publish(
                self._clouds.message(depth_m, seen.rgb, seen.intrinsics, header, stride))

    def destroy(self) -> None:
        """Withdraw all publishers."""
        while self._publishers:
            self._node.destroy_publisher(self._publishers.pop())
