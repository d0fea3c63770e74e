# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Drawing a room by lot: size, paints, light, a camera's walk, and what stands in it."""

from __future__ import annotations

import math

from depthvlm_ros.synthetic.light import Light
from depthvlm_ros.synthetic.room import Door, DOOR_WIDTH_M, Finish, Room
from depthvlm_ros.synthetic.sensor import Sensor
from depthvlm_ros.synthetic.shapes import Ball, Box, Cone, Cylinder, Solid
from depthvlm_ros.synthetic.vocabulary import COLOURS, SHAPES
from depthvlm_ros.synthetic.walk import Walk
import numpy as np

SPLITS = {'train': 0, 'held_out': 1}

# What the camera keeps clear of.
WALL_CLEARANCE_M = 0.4
SOLID_CLEARANCE_M = 0.3
AHEAD_CLEARANCE_M = 1.2

# A usual lens's angles of view, across and down, to place things where they will be seen.
LENS_RAD = (1.0, 0.75)

_PHASES = np.linspace(0, math.tau, 32, endpoint=False)


def draw_room(rng: np.random.Generator, split: str) -> Room:
    """
    Draw an empty room.

    Its length along x is a whole number of millimetres, even in training rooms and odd in
    held-out ones, so that no room can be in both.
    """
    length_mm = 2 * int(rng.integers(1500, 4500)) + SPLITS[split]
    size_m = (length_mm / 1000, float(rng.uniform(3, 9)), float(rng.uniform(2.4, 3.2)))
    floor_shade = rng.uniform(0.12, 0.45)
    wall_shade = rng.uniform(0.28, 0.65)
    return Room(
        size_m,
        floor=_finish(rng, floor_shade, 0.10, (0.12, 0.45), (0.008, 0.02)),
        ceiling=_finish(rng, rng.uniform(0.5, 0.8), 0.03, (0.0, 0.06), (0.01, 0.025)),
        wall=_finish(rng, wall_shade, 0.10, (0.02, 0.12), (0.01, 0.025)),
        skirting_paint=_tint(rng, wall_shade * rng.choice([0.35, 0.5, 1.4]), 0.08),
        door=_draw_door(rng, size_m) if rng.random() < 0.6 else None)


def _tint(rng, shade: float, spread: float) -> tuple[float, float, float]:
    """Return a reflectance near grey."""
    paint = shade * (1 + rng.uniform(-spread, spread, 3))
    return tuple(float(min(value, 0.92)) for value in paint)


def _finish(rng, shade, spread, contrast, line_m) -> Finish:
    """Draw how a plane is painted."""
    line_shade = shade * rng.choice([0.45, 0.6, 1.35])
    return Finish(_tint(rng, shade, spread), _tint(rng, line_shade, spread),
                  float(rng.uniform(*line_m)), float(rng.uniform(*contrast)))


def _draw_door(rng, size_m) -> Door:
    """Put a door in one of the walls."""
    plane = int(rng.integers(4))
    length_m = size_m[1] if plane < 2 else size_m[0]
    start_m = float(rng.uniform(0.15, length_m - DOOR_WIDTH_M - 0.15))
    return Door(plane, start_m, bool(rng.random() < 0.5))


def draw_light(rng: np.random.Generator, size_m) -> Light:
    """Draw a lamp below the ceiling."""
    lamp_m = (float(rng.uniform(0.2, 0.8) * size_m[0]), float(rng.uniform(0.2, 0.8) * size_m[1]),
              float(size_m[2] - rng.uniform(0.15, 0.5)))
    return Light(lamp_m, float(rng.uniform(0.30, 0.55)), float(rng.uniform(0.6, 1.1)),
                 float(rng.uniform(2.5, 5.0)))


def draw_sensor(rng: np.random.Generator) -> Sensor:
    """Draw exposure, white balance, lens and noise."""
    gains = rng.uniform(0.75, 1.15) * (1 + rng.uniform(-0.07, 0.07, 3))
    return Sensor(tuple(float(gain) for gain in gains), float(rng.uniform(0, 0.25)),
                  float(rng.uniform(0.35, 0.7)), float(rng.uniform(0.8, 4.0)))


def draw_walk(rng: np.random.Generator, size_m) -> Walk:
    """
    Draw a walk that keeps clear of the walls.

    :raises ValueError: none was found in a bounded number of draws.
    """
    room = np.array(size_m[:2])
    for _ in range(1000):
        x, y = rng.uniform(WALL_CLEARANCE_M, room - WALL_CLEARANCE_M)
        yaw_rad = rng.uniform(-math.pi, math.pi)
        if _ahead_m(x, y, yaw_rad, room) < max(1.8, 0.5 * room.min()):
            continue
        reach_m = rng.uniform(0.45, 0.8) * _ahead_m(x, y, yaw_rad, room)
        height_m = rng.uniform(0.5, 1.8)
        likely_pitch_deg = -5 - 9 * (height_m - 0.5)
        walk = Walk(
            start_m=(float(x), float(y), float(height_m)),
            target_m=(float(x + reach_m * math.cos(yaw_rad)),
                      float(y + reach_m * math.sin(yaw_rad))),
            heading_rad=float(rng.uniform(-math.pi, math.pi)),
            semi_axes_m=(float(rng.uniform(0.2, 1.0)), float(rng.uniform(0.2, 1.0))),
            rise_m=float(rng.uniform(0.0, 0.06)),
            pitch_rad=math.radians(rng.triangular(-25, likely_pitch_deg, 10)),
            roll_rad=math.radians(rng.triangular(-6, 0, 6)),
            sway_rad=math.radians(rng.uniform(0.5, 2.5)))
        ahead_m = _ahead_m(x, y, yaw_rad, room)
        if _first_floor_m(walk) + 1.0 < ahead_m and _is_clear(walk, room):
            return walk
    raise ValueError(f'no walk found in a room of {size_m} m, wanted one clear of its walls')


def _ahead_m(x, y, yaw_rad, room) -> float:
    """Return how far the wall ahead is."""
    cos_yaw, sin_yaw = np.cos(yaw_rad), np.sin(yaw_rad)
    along_x = np.where(cos_yaw > 0, room[0] - x, -x) / np.where(cos_yaw == 0, 1e-9, cos_yaw)
    along_y = np.where(sin_yaw > 0, room[1] - y, -y) / np.where(sin_yaw == 0, 1e-9, sin_yaw)
    return np.minimum(along_x, along_y)


def _first_floor_m(walk: Walk) -> float:
    """Return how far ahead the floor begins for a lens of a usual height."""
    below_rad = 0.5 * LENS_RAD[1] - walk.pitch_rad
    return walk.start_m[2] / math.tan(below_rad) if below_rad > 0.05 else math.inf


def _is_clear(walk: Walk, room: np.ndarray) -> bool:
    """Tell whether a walk stays off the walls and never has one just ahead."""
    x, y = walk.path_m(_PHASES)
    if min(x.min(), y.min()) < WALL_CLEARANCE_M:
        return False
    if x.max() > room[0] - WALL_CLEARANCE_M or y.max() > room[1] - WALL_CLEARANCE_M:
        return False
    to_x, to_y = walk.target_m[0] - x, walk.target_m[1] - y
    if np.hypot(to_x, to_y).min() < 0.6:
        return False
    return bool(_ahead_m(x, y, np.arctan2(to_y, to_x), room).min() >= AHEAD_CLEARANCE_M)


def draw_solids(rng: np.random.Generator, size_m, walk: Walk) -> tuple[Solid, ...]:
    """Draw two to seven things that neither meet each other nor the camera's walk."""
    kinds = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    wanted = int(rng.integers(2, 8))
    chosen = rng.choice(len(kinds), size=wanted, replace=False)
    path = np.stack(walk.path_m(_PHASES), axis=1)
    placed: list[Solid] = []
    for index in chosen:
        colour, shape = kinds[index]
        build = _draw_shape(rng, colour, shape)
        solid = _stand_on_box(build, placed) if rng.random() < 0.2 else None
        if solid is None:
            solid = _stand_on_floor(rng, build, placed, size_m, walk, path)
        if solid is not None:
            placed.append(solid)
    return tuple(placed)


def _draw_shape(rng, colour: str, shape: str):
    """Draw a solid's size; return a function that places it."""
    yaw_rad = float(rng.uniform(-math.pi, math.pi))
    scale = rng.uniform(0.75, 1.25, 3)
    if shape == 'box':
        size_m = tuple(float(0.45 * value) for value in scale)
        return lambda base_m: Box(colour, base_m, yaw_rad, size_m)
    if shape == 'ball':
        return lambda base_m: Ball(colour, base_m, yaw_rad, float(0.20 * scale[0]))
    if shape == 'cylinder':
        radius_m, height_m = float(0.15 * scale[0]), float(0.60 * scale[1])
        return lambda base_m: Cylinder(colour, base_m, yaw_rad, radius_m, height_m)
    radius_m, height_m = float(0.20 * scale[0]), float(0.50 * scale[1])
    return lambda base_m: Cone(colour, base_m, yaw_rad, radius_m, height_m)


def _stand_on_box(build, placed: list[Solid]) -> Solid | None:
    """Put a solid on a box that carries nothing yet and is wide enough."""
    solid = build((0.0, 0.0, 0.0))
    footprint_m = 0.5 * solid.reach_m if isinstance(solid, Ball) else solid.reach_m
    taken = {other.base_m[:2] for other in placed if other.base_m[2] > 0}
    for box in placed:
        if not isinstance(box, Box) or box.base_m[2] > 0 or box.base_m[:2] in taken:
            continue
        if footprint_m <= min(box.half_m[:2]):
            return build((box.base_m[0], box.base_m[1], box.size_m[2]))
    return None


def _stand_on_floor(rng, build, placed, size_m, walk, path) -> Solid | None:
    """Put a solid on the floor, more often than not in the camera's view."""
    reach_m = build((0.0, 0.0, 0.0)).reach_m
    margin_m = reach_m + 0.03
    to_x, to_y = walk.target_m[0] - walk.start_m[0], walk.target_m[1] - walk.start_m[1]
    yaw_rad = math.atan2(to_y, to_x)
    nearest_m = max(0.9, _first_floor_m(walk))
    farthest_m = min(6.5, _ahead_m(*walk.start_m[:2], yaw_rad, size_m))
    for _ in range(25):
        if rng.random() < 0.9 and nearest_m < farthest_m:
            away_m = rng.uniform(nearest_m, farthest_m)
            bearing_rad = yaw_rad + rng.uniform(-0.5, 0.5) * LENS_RAD[0]
            x = walk.start_m[0] + away_m * math.cos(bearing_rad)
            y = walk.start_m[1] + away_m * math.sin(bearing_rad)
        else:
            x, y = rng.uniform(0, size_m[0]), rng.uniform(0, size_m[1])
        if not (margin_m < x < size_m[0] - margin_m and margin_m < y < size_m[1] - margin_m):
            continue
        if any(math.hypot(x - other.base_m[0], y - other.base_m[1])
               < reach_m + other.reach_m + 0.02 for other in placed):
            continue
        gap_m = np.hypot(path[:, 0] - x, path[:, 1] - y).min() - reach_m
        if gap_m > SOLID_CLEARANCE_M:
            return build((float(x), float(y), 0.0))
    return None
