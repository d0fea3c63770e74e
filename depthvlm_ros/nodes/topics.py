# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Names of topics."""


def sibling(topic: str, name: str) -> str:
    """Return the topic of this name beside another one, as drivers place `camera_info`."""
    return topic.rpartition('/')[0] + '/' + name if '/' in topic else name
