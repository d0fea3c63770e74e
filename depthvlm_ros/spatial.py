# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The places that a question or an answer names, measured in the depth image.

A model points in words: Qwen3-VL writes JSON objects with 'point_2d' or 'bbox_2d' in coordinates
from 0 to 1000 over the image. Here they are read and become pixels, depth and 3-D points.
"""

from __future__ import annotations

from dataclasses import dataclass
import json
import math
import re

from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.geometry import checked_depth, unproject
import numpy as np

# Coordinates in a model's words run from 0 to this over the image's width and height.
WORD_SCALE = 1000.0
# Depth of a pixel: the median over this many pixels to each side (5 x 5).
NEIGHBOURHOOD_PX = 2
# A place is valid when at least this share of the pixels looked at has depth.
VALID_SHARE = 0.5
# The depth of a box is that of its middle, this share of each side: corners show background.
BOX_SHARE = 0.5
# The standard deviation of normally distributed values over their median absolute deviation.
SIGMA_OVER_MAD = 1.4826

_JSON_START = re.compile(r'\[\s*\{|\{\s*"')
_COORDINATE_KEY = re.compile(r'\b(?:point|bbox)_2d\b')


@dataclass(frozen=True)
class Place:
    """
    A place that the words name, in coordinates from 0 to 1000.

    :param label: the words' name for it, '' for none.
    :param point_1000: (x, y), or None for a box.
    :param box_1000: (x_min, y_min, x_max, y_max), or None for a point.
    """

    label: str
    point_1000: tuple[float, float] | None
    box_1000: tuple[float, float, float, float] | None


@dataclass(frozen=True)
class Reference:
    """
    A measured place.

    :param label: its name, '' for none.
    :param u: column in px of the depth image; of a box, its centre.
    :param v: row in px of the depth image.
    :param box: (u_min, v_min, u_max, v_max) in px, or None for a pixel.
    :param depth_m: median depth along the optical axis, NaN unknown.
    :param depth_spread_m: robust standard deviation of that depth, NaN unknown.
    :param point_m: (x, y, z) in the optical frame, NaN unknown.
    :param valid: at least half of the pixels looked at have depth.
    """

    label: str
    u: float
    v: float
    box: tuple[float, float, float, float] | None
    depth_m: float
    depth_spread_m: float
    point_m: tuple[float, float, float]
    valid: bool


def read_places(text: str) -> list[Place]:
    """
    Return the places in a model's words, in their order.

    JSON may stand alone, in a fence or between other words, as one object, a list, or several.
    One object that is not a place, or JSON that breaks off, makes all of it worthless: no places.

    :param text: the words, of any content.
    :return: the places, empty where there are none or where they cannot be read; never raises.
    """
    decoder = json.JSONDecoder()
    places: list[Place] = []
    at = 0
    while (start := _JSON_START.search(text, at)) is not None:
        try:
            value, at = decoder.raw_decode(text, start.start())
        except (ValueError, RecursionError):
            return []
        for item in value if isinstance(value, list) else [value]:
            place = _place(item)
            if place is None:
                return []
            places.append(place)
    return places


def names_coordinates(text: str) -> bool:
    """Tell whether the words try to point, readable or not."""
    return _COORDINATE_KEY.search(text) is not None


def measure_pixel(
    depth_m: np.ndarray, intrinsics: Intrinsics, u: float, v: float, label: str = '',
) -> Reference:
    """
    Measure a pixel: the median of the finite depths around it.

    :param depth_m: (H, W) metres along the optical axis, NaN invalid.
    :param intrinsics: the depth image's camera.
    :param u: column in px, in [-0.5, width - 0.5).
    :param v: row in px, in [-0.5, height - 0.5).
    :raises ValueError: a pixel outside the image or not finite, a depth image of another size.
    """
    depth_m = checked_depth(depth_m, intrinsics)
    check_pixel(intrinsics, u, v)
    column, row = _nearest_pixel(intrinsics, u, v)
    around = depth_m[
        max(0, row - NEIGHBOURHOOD_PX):row + NEIGHBOURHOOD_PX + 1,
        max(0, column - NEIGHBOURHOOD_PX):column + NEIGHBOURHOOD_PX + 1]
    return _reference(label, float(u), float(v), None, around, intrinsics)


def measure_box(
    depth_m: np.ndarray, intrinsics: Intrinsics, box, label: str = '',
) -> Reference:
    """
    Measure a box: the median of the finite depths of its middle.

    :param depth_m: (H, W) metres along the optical axis, NaN invalid.
    :param intrinsics: the depth image's camera.
    :param box: (u_min, v_min, u_max, v_max) in px, within the image.
    :raises ValueError: a box that is empty, outside the image or not finite, a depth image of
        another size.
    """
    depth_m = checked_depth(depth_m, intrinsics)
    box = check_box(intrinsics, box)
    u, v = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    half_u, half_v = ((box[i + 2] - box[i]) / 2 * BOX_SHARE for i in (0, 1))
    middle = depth_m[
        math.ceil(v - half_v):math.floor(v + half_v) + 1,
        math.ceil(u - half_u):math.floor(u + half_u) + 1]
    if middle.size == 0:
        column, row = _nearest_pixel(intrinsics, u, v)
        middle = depth_m[row:row + 1, column:column + 1]
    return _reference(label, u, v, box, middle, intrinsics)


def references_in(text: str, depth_m: np.ndarray, intrinsics: Intrinsics) -> list[Reference]:
    """
    Return the measured places of a model's words.

    :param text: the words.
    :param depth_m: (H, W) metres along the optical axis, NaN invalid.
    :param intrinsics: the depth image's camera.
    :return: one reference for each place, see read_places; empty where one is no place.
    """
    references = []
    for place in read_places(text):
        if place.box_1000 is not None:
            box = pixels_of(place.box_1000, intrinsics.width, intrinsics.height)
            if not (box[0] < box[2] and box[1] < box[3]):
                return []       # so thin that nothing is left of it in px
            references.append(measure_box(depth_m, intrinsics, box, place.label))
        else:
            u, v = pixels_of(place.point_1000, intrinsics.width, intrinsics.height)
            # 1000 is the image's very edge, half a pixel behind the last centre.
            u, v = min(u, intrinsics.width - 1.0), min(v, intrinsics.height - 1.0)
            references.append(measure_pixel(depth_m, intrinsics, u, v, place.label))
    return references


def distances_m(references: list[Reference]) -> list[float]:
    """
    Return how far it is straight from each place to the next.

    :param references: N measured places.
    :return: N - 1 distances in metres between their points, NaN where an end is not valid.
    """
    return [math.dist(one.point_m, other.point_m) if one.valid and other.valid else math.nan
            for one, other in zip(references, references[1:])]


def check_pixel(intrinsics: Intrinsics, u: float, v: float) -> None:
    """
    Check that a pixel lies in the image.

    :raises ValueError: a pixel outside the image or not finite.
    """
    width, height = intrinsics.width, intrinsics.height
    if not (-0.5 <= u < width - 0.5 and -0.5 <= v < height - 0.5):
        raise ValueError(
            f'pixel (u={u}, v={v}) is outside the depth image, wanted u in [-0.5, {width - 0.5}) '
            f'and v in [-0.5, {height - 0.5})')


def check_box(intrinsics: Intrinsics, box) -> tuple[float, float, float, float]:
    """
    Check that a box lies in the image, and return it as floats.

    :raises ValueError: a box that has not four numbers, is empty, outside the image or not finite.
    """
    box = tuple(float(value) for value in box)
    width, height = intrinsics.width, intrinsics.height
    if len(box) != 4 or not (
            -0.5 <= box[0] < box[2] <= width - 0.5 and -0.5 <= box[1] < box[3] <= height - 0.5):
        raise ValueError(
            f'box {list(box)} is no box in the depth image, wanted [u_min, v_min, u_max, v_max] '
            f'with -0.5 <= u_min < u_max <= {width - 0.5} and '
            f'-0.5 <= v_min < v_max <= {height - 0.5}')
    return box


def _place(item) -> Place | None:
    """Return the place that a JSON value describes, or None."""
    if not isinstance(item, dict):
        return None
    label = item.get('label', '')
    if not isinstance(label, str):
        return None
    point, box = _coordinates(item.get('point_2d'), 2), _coordinates(item.get('bbox_2d'), 4)
    if box is not None and not (box[0] < box[2] and box[1] < box[3]):
        box = None
    if (point is None) == (box is None):
        return None
    # JSON may escape half a character, which cannot be written as UTF-8.
    label = label.encode('utf-8', 'replace').decode()
    return Place(label, point, box)


def pixels_of(coordinates_1000, width: int, height: int) -> tuple[float, ...]:
    """
    Return places that words give, as Qwen3-VL does, as pixels.

    :param coordinates_1000: x, y, x, y, ... from 0 to 1000 across and down the image.
    :param width: of the image; height likewise, in px.
    :return: u, v, u, v, ... in px, the first pixel's centre at (0, 0).
    """
    sizes = width, height
    return tuple(
        value / WORD_SCALE * sizes[i % 2] - 0.5 for i, value in enumerate(coordinates_1000))


def _coordinates(value, count: int) -> tuple[float, ...] | None:
    """Return count numbers from 0 to 1000, or None."""
    if not isinstance(value, list) or len(value) != count:
        return None
    if not all(type(number) in (int, float) and 0 <= number <= WORD_SCALE for number in value):
        return None
    return tuple(float(number) for number in value)


def _nearest_pixel(intrinsics: Intrinsics, u: float, v: float) -> tuple[int, int]:
    """Return the (column, row) whose centre is nearest, within the image."""
    return (min(max(math.floor(u + 0.5), 0), intrinsics.width - 1),
            min(max(math.floor(v + 0.5), 0), intrinsics.height - 1))


def _reference(label, u, v, box, depths_m: np.ndarray, intrinsics: Intrinsics) -> Reference:
    """Return the reference at (u, v) whose depth is told by these depths."""
    finite = depths_m[np.isfinite(depths_m)].astype(float)
    depth_m = spread_m = math.nan
    if finite.size:
        depth_m = float(np.median(finite))
        spread_m = SIGMA_OVER_MAD * float(np.median(np.abs(finite - depth_m)))
    point_m = tuple(float(value) for value in unproject(u, v, depth_m, intrinsics))
    valid = bool(finite.size and finite.size >= VALID_SHARE * depths_m.size)
    return Reference(label, u, v, box, depth_m, spread_m, point_m, valid)
