# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Why no image comes, as far as the middleware knows it."""

from __future__ import annotations

from rclpy.node import Node
from rclpy.qos import ReliabilityPolicy


def reason_of_silence(node: Node, name: str, kind: str, reliability: ReliabilityPolicy,
                      came: bool) -> str:
    """
    Say what to do about a topic on which nothing comes.

    :param node: who listens.
    :param name: the topic's, as the node has it and as it is remapped: 'front/image/compressed'.
    :param kind: type that is listened for, such as 'sensor_msgs/msg/Image'.
    :param reliability: with which it is listened for.
    :param came: whether images have come before.
    """
    topic = node.resolve_topic_name(name)
    found = node.get_publishers_info_by_topic(topic)
    if not found:
        return f'nobody publishes {topic}: start the camera, or remap {name} to its topic'
    fitting = [info for info in found if info.topic_type == kind]
    if not fitting:
        return (f'{topic} is published as {found[0].topic_type}, wanted {kind}: remap {name}, '
                'or set image_transport')
    who = fitting[0].node_name
    nothing = 'nothing more comes' if came else 'nothing comes'
    if (reliability == ReliabilityPolicy.BEST_EFFORT
            and fitting[0].qos_profile.reliability == ReliabilityPolicy.RELIABLE):
        return (f'{who} publishes {topic} reliably, and {nothing}: see that it runs; if its '
                'images are large, they are lost on the way to a best-effort reader: launch with '
                f'image_reliability:=reliable, or set qos_overrides.{topic}.subscription.'
                'reliability to reliable')
    return f'{who} publishes {topic}, and {nothing}: see that it runs'
