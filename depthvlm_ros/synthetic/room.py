# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The empty room: a box seen from inside, and patterns of a known size on its planes.

Floor tiles, wall panels, ceiling tiles, skirting and door are as large in every room, because they
are what tells a single image's scale. Patterns are averaged over each pixel's footprint, so they
fade to their mean in the distance instead of flickering.
"""

from __future__ import annotations

from dataclasses import dataclass

from depthvlm_ros.synthetic.light import Light
from depthvlm_ros.synthetic.pose import Pose
from depthvlm_ros.synthetic.rays import Rays
from depthvlm_ros.synthetic.vocabulary import DOOR_PAINT
import numpy as np

FLOOR_TILE_M = 0.40
CEILING_TILE_M = 0.60
PANEL_M = 1.0
SKIRTING_M = 0.10
DOOR_WIDTH_M = 0.90
DOOR_HEIGHT_M = 2.0
DOOR_FRAME_M = 0.06
HANDLE_HEIGHT_M = 1.0
HANDLE_RADIUS_M = 0.04

FLOOR, CEILING = 4, 5


@dataclass(frozen=True)
class Finish:
    """
    How a plane is painted.

    :param paint: linear reflectance (red, green, blue).
    :param line_paint: that of its joints.
    :param line_m: width of its joints.
    :param contrast: how much neighbouring tiles differ from the mean, 0 to 1.
    """

    paint: tuple[float, float, float]
    line_paint: tuple[float, float, float]
    line_m: float
    contrast: float


@dataclass(frozen=True)
class Door:
    """
    A door in a wall.

    :param plane: the wall, counted as in Frame.surfaces.
    :param start_m: where it begins along the wall, world coordinate.
    :param handle_first: the handle is at its beginning instead of its end.
    """

    plane: int
    start_m: float
    handle_first: bool


@dataclass(frozen=True)
class Room:
    """
    An empty room, one corner of its floor in the world's origin.

    :param size_m: its edges along x, y, z.
    :param floor: how the floor is painted.
    :param ceiling: how the ceiling is painted.
    :param wall: how the walls are painted.
    :param skirting_paint: linear reflectance of the skirting.
    :param door: its door, or None.
    """

    size_m: tuple[float, float, float]
    floor: Finish
    ceiling: Finish
    wall: Finish
    skirting_paint: tuple[float, float, float]
    door: Door | None

    def bound_m(self, plane: int) -> float:
        """Return where a plane stands on its axis; planes are counted as in SURFACES."""
        return self.size_m[plane // 2] if plane % 2 else 0.0

    def cast(self, rays: Rays, pose: Pose) -> tuple[np.ndarray, np.ndarray]:
        """
        Meet the room's planes from inside.

        The inverse depth of a plane is affine in the pixel, and the plane that is seen has the
        largest one.

        :return: depth_m (H, W) float32 and plane (H, W) uint8.
        """
        inverse = np.zeros(rays.shape, np.float32)
        planes = np.zeros(rays.shape, np.uint8)
        corners = rays.corners()
        for plane in range(6):
            axis = plane // 2
            row = pose.rotation[axis] / (self.bound_m(plane) - pose.position_m[axis])
            if (corners @ row).max() <= 0:
                continue
            candidate = rays.affine(row)
            # A later plane has a larger number, so the last to be in front keeps its own.
            in_front = (candidate > inverse).view(np.uint8)
            np.maximum(planes, in_front * np.uint8(plane), out=planes)
            np.maximum(inverse, candidate, out=inverse)
        return 1 / inverse, planes

    def paint(self, planes, points_m, depth_m, rays, pose, light: Light, radiance):
        """
        Light the empty room.

        :param planes: (H, W) uint8, from cast.
        :param points_m: three arrays (H, W) float32, what is seen, world frame.
        :param depth_m: (H, W) float32, from cast.
        :param rays: the image's Rays.
        :param pose: the camera's Pose.
        :param light: of the room.
        :param radiance: three contiguous arrays (H, W) float32, linear; filled.
        :return: which pixels see the door, (H, W) bool.
        """
        door = np.zeros(planes.shape, bool)
        flat_planes = planes.ravel()
        for plane in np.flatnonzero(np.bincount(flat_planes)):
            index = np.flatnonzero(flat_planes == plane)
            patch = _Patch.of(self, int(plane), index, points_m, depth_m, rays, pose)
            paint = self._plane_paint(patch)
            if self.door is not None and self.door.plane == plane:
                on_door = _paint_door(self.door, patch, paint)
                door.ravel()[index[on_door]] = True
            paint *= light.on_plane(patch)
            for channel in range(3):
                radiance[channel].reshape(-1)[index] = paint[channel]
        return door

    def _plane_paint(self, patch: _Patch) -> np.ndarray:
        """Return the reflectance of a plane's pixels, (3, N) float32."""
        if patch.plane == FLOOR:
            return _tiled(self.floor, patch, FLOOR_TILE_M)
        if patch.plane == CEILING:
            return _tiled(self.ceiling, patch, CEILING_TILE_M)
        paint = _panelled(self.wall, patch)
        cover = np.clip((SKIRTING_M - patch.b) / patch.width_b + np.float32(0.5), 0, 1)
        return _blend(paint, self.skirting_paint, cover)


@dataclass(frozen=True, eq=False)
class _Patch:
    """The pixels that see one plane; a and b are its two coordinates, of walls b is height."""

    plane: int
    bound_m: float
    axes: tuple[int, int]
    a: np.ndarray
    b: np.ndarray
    width_a: np.ndarray
    width_b: np.ndarray

    @property
    def axis(self) -> int:
        """Return the world axis that the plane is normal to."""
        return self.plane // 2

    @classmethod
    def of(cls, room, plane, index, points_m, depth_m, rays, pose):
        """Gather a plane's pixels; the widths are their footprints along a and b, metres."""
        axis = plane // 2
        axes = ((1, 2), (0, 2), (0, 1))[axis]
        a, b = (points_m[i].ravel().take(index) for i in axes)
        depth = depth_m.ravel().take(index)
        bound = room.bound_m(plane)
        away = bound - pose.position_m[axis]
        widths = []
        for world_axis, coordinate in zip(axes, (a, b), strict=True):
            # The derivative of the point by the pixel: depth * (row - slope * row of the normal).
            slope = coordinate * np.float32(1 / away)
            slope -= np.float32(pose.position_m[world_axis] / away)
            width = None
            for column, focal in ((0, rays.intrinsics.fx), (1, rays.intrinsics.fy)):
                step = slope * np.float32(-pose.rotation[axis, column] / focal)
                step += np.float32(pose.rotation[world_axis, column] / focal)
                np.abs(step, out=step)
                width = step if width is None else np.add(width, step, out=width)
            width *= depth
            widths.append(np.clip(width, 1e-4, np.inf, out=width))
        return cls(plane, bound, axes, a, b, *widths)


def pattern(x: np.ndarray, width: np.ndarray, joint: float) -> tuple[np.ndarray, np.ndarray]:
    """
    Average alternating tiles and their joints over x +- width / 2.

    :param x: position; a tile begins at each whole number.
    :param width: the pixel's footprint, in tiles.
    :param joint: width of the joints, in tiles.
    :return: the share of the tiles' contrast, -1 to 1, and how much is joint, 0 to 1.
    """
    # The distance to the nearest edge of a tile, at most a half, negative in every second tile.
    shade = x * np.float32(0.5)
    shade += np.float32(0.25)
    shade -= np.rint(shade)
    np.abs(shade, out=shade)
    shade *= 2
    shade -= np.float32(0.5)
    edge = np.abs(shade)
    narrow = np.clip(width, 0, 1)
    scale = 1 / narrow
    shade *= scale
    shade *= 2
    np.clip(shade, -1, 1, out=shade)
    # Averaged over two tiles nothing is left of their contrast.
    shade *= np.clip(2 - width, 0, 1)
    # What footprint and joint have in common, no more than either of them.
    cover = narrow
    cover += np.float32(joint)
    cover *= np.float32(0.5)
    cover -= edge
    np.clip(cover, 0, np.float32(joint), out=cover)
    cover *= scale
    return shade, np.clip(cover, 0, 1, out=cover)


def _blend(paint: np.ndarray, over: tuple[float, float, float], cover: np.ndarray) -> np.ndarray:
    """Put a paint over others where cover is 1."""
    for channel in range(3):
        paint[channel] += (np.float32(over[channel]) - paint[channel]) * cover
    return paint


def _tiled(finish: Finish, patch: _Patch, tile_m: float) -> np.ndarray:
    """Return square tiles of alternating shade with joints."""
    scale = np.float32(1 / tile_m)
    shade, cover = pattern(patch.a * scale, patch.width_a * scale, finish.line_m / tile_m)
    shade_b, cover_b = pattern(patch.b * scale, patch.width_b * scale, finish.line_m / tile_m)
    shade *= shade_b
    cover += cover_b - cover * cover_b
    return _shaded(finish, shade, cover)


def _panelled(finish: Finish, patch: _Patch) -> np.ndarray:
    """Return upright panels with joints between them."""
    scale = np.float32(1 / PANEL_M)
    return _shaded(finish, *pattern(
        patch.a * scale, patch.width_a * scale, finish.line_m / PANEL_M))


def _shaded(finish: Finish, shade: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """Return the reflectance (3, N) of tiles whose joints cover a share of each pixel."""
    shade *= np.float32(finish.contrast)
    shade += 1
    paint = np.empty((3, shade.size), np.float32)
    for channel in range(3):
        np.multiply(shade, np.float32(finish.paint[channel]), out=paint[channel])
    return _blend(paint, finish.line_paint, cover)


def _paint_door(door: Door, patch: _Patch, paint: np.ndarray) -> np.ndarray:
    """Paint the door over its wall; return which of the wall's pixels it covers, (N,) bool."""
    across = patch.a - np.float32(door.start_m)
    inside = (across >= 0) & (across < DOOR_WIDTH_M) & (patch.b < DOOR_HEIGHT_M)
    across, up = across[inside], patch.b[inside]
    border = np.minimum(np.minimum(across, DOOR_WIDTH_M - across), DOOR_HEIGHT_M - up)
    shade = np.where(border < DOOR_FRAME_M, np.float32(1.8), np.float32(1.0))
    handle_m = 0.14 if door.handle_first else DOOR_WIDTH_M - 0.14
    handle = np.hypot(across - np.float32(handle_m), up - np.float32(HANDLE_HEIGHT_M))
    on_handle = handle < HANDLE_RADIUS_M
    for channel in range(3):
        value = shade * np.float32(DOOR_PAINT[channel])
        value[on_handle] = (0.65, 0.60, 0.40)[channel]
        paint[channel, inside] = value
    return inside
