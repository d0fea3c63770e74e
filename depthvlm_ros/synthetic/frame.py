# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a camera saw in a room: the image, the exact depth, and the things in view."""

from __future__ import annotations

from dataclasses import dataclass

from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.synthetic.pose import Pose
from depthvlm_ros.synthetic.questions import ask_about
from depthvlm_ros.synthetic.vocabulary import label_of
import numpy as np

# Below these a thing is neither asked about nor called absent.
LEAST_SHARE_OF_IMAGE = 0.0015
LEAST_VISIBLE_FRACTION = 0.3


@dataclass(frozen=True)
class VisibleObject:
    """
    A thing in view.

    :param index: its number in Frame.object_ids.
    :param colour: its colour's name.
    :param shape: 'box', 'ball', 'cylinder', 'cone' or 'door'.
    :param pixels: how many pixels see it.
    :param visible_fraction: how much of its own outline within the image is not hidden by others.
    :param box: (u_min, v_min, u_max, v_max) px, the outer edges of its visible pixels, so that a
        single pixel (u, v) has the box (u - 0.5, v - 0.5, u + 0.5, v + 0.5).
    :param pixel: (u, v) of a pixel that sees it, near the middle of its visible part.
    :param depth_m: median depth along the optical axis of its visible pixels.
    :param point_m: median (x, y, z) of its visible points, optical frame.
    :param clear: large and free enough to be asked about.
    """

    index: int
    colour: str
    shape: str
    pixels: int
    visible_fraction: float
    box: tuple[float, float, float, float]
    pixel: tuple[int, int]
    depth_m: float
    point_m: tuple[float, float, float]
    clear: bool

    @property
    def label(self) -> str:
        """Return its name, such as 'red box'; unique in a room."""
        return label_of(self.colour, self.shape)


@dataclass(frozen=True, eq=False)
class Frame:
    """
    What a camera saw.

    :param rgb: (H, W, 3) uint8, red first.
    :param depth_m: (H, W) float32, exact depth along the optical axis at pixel centres; finite
        everywhere.
    :param object_ids: (H, W) int16, number of the thing seen; -1 where it is the room.
    :param surfaces: (H, W) uint8, the plane of the room that is seen or hidden, an index into
        vocabulary.SURFACES.
    :param objects: the things in view.
    :param intrinsics: the camera.
    :param pose: where it stood.
    """

    rgb: np.ndarray
    depth_m: np.ndarray
    object_ids: np.ndarray
    surfaces: np.ndarray
    objects: list[VisibleObject]
    intrinsics: Intrinsics
    pose: Pose

    def questions(self, rng_seed: int = 0, canonical: bool = False) -> list[tuple[str, str, str]]:
        """
        Return questions about the frame and their exact answers.

        :param rng_seed: what is asked about, and in which words, depends on it.
        :param canonical: ask in the first wording of each kind only.
        :return: (question, answer, kind) each; kinds as in wording.KINDS.
        """
        return ask_about(self, rng_seed, canonical)


def measure_object(index, colour, shape, outline, window, object_ids, depth_m, rays):
    """
    Describe a thing in view.

    :param index: its number in object_ids.
    :param outline: how many pixels its own outline has within the image, whatever stands before
        it.
    :param window: rows and columns that hold it, two slices.
    :param object_ids: (H, W) of the whole image.
    :param depth_m: (H, W) float32 of the whole image, metres along the optical axis.
    :param rays: the image's rays.
    :return: a VisibleObject, or None where no pixel sees it.
    """
    seen = object_ids[window] == index
    in_rows, in_columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    if not in_rows.size:
        return None
    v_min, v_max = window[0].start + in_rows[0], window[0].start + in_rows[-1]
    u_min, u_max = window[1].start + in_columns[0], window[1].start + in_columns[-1]
    rows, columns = np.nonzero(object_ids[v_min:v_max + 1, u_min:u_max + 1] == index)
    rows += v_min
    columns += u_min
    middle = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
    depth = depth_m[rows, columns]
    z = _median(depth)
    fraction = rows.size / outline
    return VisibleObject(
        index, colour, shape, int(rows.size), float(fraction),
        (float(u_min - 0.5), float(v_min - 0.5), float(u_max + 0.5), float(v_max + 0.5)),
        (int(columns[middle]), int(rows[middle])), z,
        (_median(depth * rays.x[columns]), _median(depth * rays.y[rows]), z),
        bool(rows.size >= LEAST_SHARE_OF_IMAGE * object_ids.size
             and fraction >= LEAST_VISIBLE_FRACTION))


def _median(values: np.ndarray) -> float:
    """Return the median, the upper one of two in the middle."""
    middle = values.size // 2
    return float(np.partition(values, middle)[middle])
