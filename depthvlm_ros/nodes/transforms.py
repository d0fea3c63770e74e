# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Transforms between frames, where tf2 is installed.

tf2_ros belongs to an installation of ROS 2 and cannot be had from PyPI, so it and what it is used
with are imported only when the node becomes active. Their absence is an answer like any other.
"""

from __future__ import annotations

from builtin_interfaces.msg import Time
import numpy as np
from rclpy.duration import Duration
from rclpy.node import Node

# How much longer transforms are kept than the slowest answer about an image takes.
KEPT_LONGER_S = 10.0


class TransformsUnavailableError(LookupError):
    """Raised where no tf2 is installed."""


class UnknownFrameError(LookupError):
    """Raised for a frame that tf2 does not know."""


class InvalidFrameError(UnknownFrameError):
    """Raised for what is no name of a frame."""


class NoTransformError(LookupError):
    """Raised where two frames were not connected at the stamp."""


class Transforms:
    """
    Listens to tf, where it can.

    :param node: whose executor hears the transforms.
    :param longest_answer_s: transforms are wanted at the stamps of images that long ago.
    """

    def __init__(self, node: Node, longest_answer_s: float):
        self._buffer = self._listener = None
        self._absence = ''
        try:
            import tf2_ros
            from tf_transformations import quaternion_matrix
        except Exception as error:  # one that is broken may raise anything
            self._absence = (
                f'tf2_ros and tf_transformations are not both here ({type(error).__name__}: '
                f'{error}): ask without a target_frame, or install them with ROS 2')
            if not isinstance(error, ImportError):  # no absence, but something to be mended
                node.get_logger().warning(self._absence)
            return
        self._tf2, self._matrix_of = tf2_ros, quaternion_matrix
        # Without the node, whose clock it does not need: its service would outlive it.
        self._buffer = tf2_ros.Buffer(
            cache_time=Duration(seconds=longest_answer_s + KEPT_LONGER_S))
        self._listener = tf2_ros.TransformListener(self._buffer, node)

    def matrix(self, target_frame: str, source_frame: str, stamp: Time) -> np.ndarray:
        """
        Return t_target_source, (4, 4), at a stamp.

        :raises TransformsUnavailableError: no tf2_ros, or no tf_transformations, here.
        :raises UnknownFrameError: a frame that was never heard of.
        :raises InvalidFrameError: no name of one.
        :raises NoTransformError: no connection between the frames at the stamp.
        """
        buffer = self._buffer
        if buffer is None:
            raise TransformsUnavailableError(self._absence)
        try:
            found = buffer.lookup_transform(target_frame, source_frame, stamp).transform
        except self._tf2.LookupException as error:
            raise UnknownFrameError(f'{error}') from error
        except self._tf2.InvalidArgumentException as error:
            raise InvalidFrameError(f'{error}') from error
        except self._tf2.TransformException as error:
            raise NoTransformError(f'{error}') from error
        rotation, shift = found.rotation, found.translation
        matrix = self._matrix_of([rotation.x, rotation.y, rotation.z, rotation.w])
        matrix[:3, 3] = shift.x, shift.y, shift.z
        return matrix

    def forget(self) -> None:
        """Drop what was heard, as when time jumps back; static transforms stay."""
        buffer = self._buffer
        if buffer is not None:
            buffer.clear()

    def close(self) -> None:
        """Stop listening."""
        if self._listener is not None:
            self._listener.unregister()
        self._buffer = self._listener = None
        self._absence = self._absence or 'the node was deactivated'
