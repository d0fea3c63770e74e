# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Saying in words that two ends of a topic cannot meet, as the middleware's events report it."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.qos import qos_policy_name_from_kind

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:     # Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks


def subscription_events(topic: str, entity_id: str | None,
                        tell: Callable[[str], None]) -> SubscriptionEventCallbacks:
    """
    Tell of publishers that offer less than a subscription wants.

    :param entity_id: by which its overrides are told from those of others of the topic, or None.
    :param tell: called with the reason and what to do, from the executor.
    """
    entity = f'subscription_{entity_id}' if entity_id else 'subscription'

    def on_mismatch(event) -> None:
        tell(f'a publisher of {topic} offers another {_policy(event)} than is wanted here, and '
             f'nothing comes from it: see `ros2 topic info --verbose {topic}` and '
             f'qos_overrides.{topic}.{entity}.{_policy(event).lower()}')
    return SubscriptionEventCallbacks(incompatible_qos=on_mismatch)


def publisher_events(topic: str, tell: Callable[[str], None]) -> PublisherEventCallbacks:
    """Tell of subscribers that want more than a publisher offers; see subscription_events."""
    def on_mismatch(event) -> None:
        tell(f'a subscriber of {topic} wants another {_policy(event)} than is offered, and gets '
             f'nothing: change what it wants, or see qos_overrides.{topic}.publisher.*')
    return PublisherEventCallbacks(incompatible_qos=on_mismatch)


def _policy(event) -> str:
    """Return the name of the policy that did not fit, such as 'RELIABILITY'."""
    return qos_policy_name_from_kind(event.last_policy_kind).removesuffix('_QOS_POLICY')
