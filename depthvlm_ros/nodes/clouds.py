# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Where a cloud's points are worked out: on the CPU, or on the model's device where faster."""

from __future__ import annotations

from collections.abc import Callable
import logging
import time

from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.nodes.conversions import cloud, fill_points
import numpy as np
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header

TRIALS = 3      # of a size, each way; the first, which warms up, does not count

Fill = Callable[..., None]


def fill_on(device) -> Fill:
    """
    Return a function that fills points bit for bit as fill_points does, on a torch.device.

    :param device: depth and colours go there, and the points come back.
    """
    import torch

    def fill(points: np.ndarray, depth_m: np.ndarray, colours: np.ndarray, x_of_z: np.ndarray,
             y_of_z: np.ndarray) -> None:
        z_m, colour, x, y = (torch.from_numpy(np.ascontiguousarray(part)).to(device)
                             for part in (depth_m, colours, x_of_z, y_of_z))
        made = torch.zeros(points.shape, device=device)
        torch.mul(z_m, x, out=made[..., 0])
        torch.mul(z_m, y[:, None], out=made[..., 1])
        made[..., 2] = z_m
        made[..., 4] = colour
        torch.from_numpy(points).copy_(made)
    return fill


class Clouds:
    """
    Makes clouds, for each size the way that took less time in a few trials of both.

    :param ways: what fills the points, each as fill_points; one that raises a RuntimeError, as a
        device without memory does, is not taken again.
    """

    def __init__(self, *ways: Fill):
        self._ways = ways
        self._spent_s: dict[tuple, list[list[float]]] = {}

    @classmethod
    def of(cls, device) -> Clouds:
        """Return what makes clouds beside a model on a torch.device."""
        return cls(fill_points) if device.type == 'cpu' else cls(fill_points, fill_on(device))

    def message(self, depth_m: np.ndarray, rgb: np.ndarray, intrinsics: Intrinsics,
                header: Header, stride: int = 1) -> PointCloud2:
        """Return what conversions.cloud does, of the same arguments."""
        return cloud(depth_m, rgb, intrinsics, header, stride, self._fill)

    def _fill(self, points: np.ndarray, *given: np.ndarray) -> None:
        try:
            self._fill_by_the_faster(points, *given)
        except RuntimeError:
            logging.getLogger(__name__).exception('clouds are made on the CPU from now on')
            self._ways = self._ways[:1]
            self._ways[0](points, *given)

    def _fill_by_the_faster(self, points: np.ndarray, *given: np.ndarray) -> None:
        if len(self._ways) == 1:
            self._ways[0](points, *given)
            return
        trials = self._spent_s.setdefault(points.shape, [])
        if len(trials) < TRIALS:
            trials.append([_time_s(way, points, *given) for way in self._ways])
        else:
            best_s = np.min(trials[1:], axis=0)
            self._ways[int(best_s.argmin())](points, *given)


def _time_s(function, *given) -> float:
    began_s = time.perf_counter()
    function(*given)
    return time.perf_counter() - began_s
