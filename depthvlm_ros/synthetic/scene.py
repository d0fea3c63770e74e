# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Rooms with things in them, and how a camera sees them."""

from __future__ import annotations

from dataclasses import dataclass

from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.synthetic.frame import Frame, measure_object, VisibleObject
from depthvlm_ros.synthetic.layout import (
    draw_light,
    draw_room,
    draw_sensor,
    draw_solids,
    draw_walk,
    SPLITS,
)
from depthvlm_ros.synthetic.light import Light
from depthvlm_ros.synthetic.pose import Pose
from depthvlm_ros.synthetic.rays import NEAREST_M, Rays
from depthvlm_ros.synthetic.room import FLOOR, Room
from depthvlm_ros.synthetic.sensor import Sensor
from depthvlm_ros.synthetic.shapes import Solid
from depthvlm_ros.synthetic.vocabulary import DOOR, DOOR_COLOUR, PAINTS
from depthvlm_ros.synthetic.walk import Walk
import numpy as np

# The empty room is drawn in bands of about so many pixels, which stay in a processor's cache.
_BAND_PIXELS = 80000

# Share of the light that is lost next to a thing's underside, and how far that shadow reaches.
_SHADOW = 0.55
_SHADOW_REACH_M = 0.24


@dataclass(frozen=True, eq=False)
class Scene:
    """
    A room, what stands in it, its light, and a camera.

    :param room: the empty room.
    :param solids: what stands in it; their order numbers them in Frame.object_ids, and the door,
        where there is one, has the number after the last.
    :param light: its light.
    :param sensor: the camera's sensor.
    :param walk: how the camera walks.
    :param key: what the noise of the images depends on, besides camera and pose.
    """

    room: Room
    solids: tuple[Solid, ...]
    light: Light
    sensor: Sensor
    walk: Walk
    key: str = ''

    @classmethod
    def random(cls, seed: int, split: str = 'held_out') -> Scene:
        """
        Draw a scene by lot.

        :param seed: the same seed and split give the same scene.
        :param split: 'train' or 'held_out', which have no room in common.
        :raises ValueError: a seed below 0 or another split.
        """
        if split not in SPLITS:
            raise ValueError(f'split is {split!r}, wanted one of {sorted(SPLITS)}')
        if int(seed) != seed or seed < 0:
            raise ValueError(f'seed is {seed!r}, wanted a whole number from 0')
        rng = np.random.default_rng([SPLITS[split], int(seed)])
        while True:
            room = draw_room(rng, split)
            try:
                walk = draw_walk(rng, room.size_m)
            except ValueError:      # in one small room of thousands there is none to be found
                continue
            solids = draw_solids(rng, room.size_m, walk)
            if len(solids) >= 2:
                break
        return cls(room, solids, draw_light(rng, room.size_m), draw_sensor(rng), walk,
                   f'{split} {int(seed)}')

    @property
    def pose(self) -> Pose:
        """Return where the camera stands when nothing else is said: the walk's beginning."""
        return self.pose_at(0.0)

    def pose_at(self, t_s: float) -> Pose:
        """Return the pose at a time of a closed walk that meets no wall and no thing."""
        return self.walk.pose_at(t_s)

    def render(self, intrinsics: Intrinsics, pose: Pose | None = None) -> Frame:
        """
        See the scene with a camera.

        The same scene, camera and pose give the same frame to the bit.

        :param intrinsics: the camera.
        :param pose: where it stands; the scene's own where left out.
        :raises ValueError: the camera is not inside the room.
        """
        pose = self.pose if pose is None else pose
        position = pose.position_m
        if not all(0 < position[i] < self.room.size_m[i] for i in range(3)):
            raise ValueError(f'the camera is at {position.tolist()} m, wanted a place inside the '
                             f'room of {self.room.size_m} m')
        rays = Rays(intrinsics)
        canvas = _Canvas.of_room(self, rays, pose)
        for index, solid in enumerate(self.solids):
            canvas.add(index, solid, self.light)
        key = f'{self.key} {intrinsics}'.encode() + pose.t_world_optical.tobytes()
        rgb = self.sensor.develop(canvas.radiance, key)
        return Frame(rgb, canvas.depth_m, canvas.object_ids, canvas.surfaces,
                     canvas.objects(self), intrinsics, pose)


def _band_rows(rays: Rays) -> int:
    """Return how many rows are drawn at once."""
    return max(1, _BAND_PIXELS // rays.shape[1])


class _Canvas:
    """An image in the making."""

    def __init__(self, rays: Rays, pose: Pose):
        self.rays = rays
        self.pose = pose
        self.t_optical_world = np.linalg.inv(pose.t_world_optical)
        self.depth_m = np.empty(rays.shape, np.float32)
        self.surfaces = np.empty(rays.shape, np.uint8)
        self.object_ids = np.full(rays.shape, -1, np.int16)
        self.radiance = np.empty((3, *rays.shape), np.float32)
        self.outlines: dict[int, tuple[int, tuple[slice, slice]]] = {}

    @classmethod
    def of_room(cls, scene: Scene, rays: Rays, pose: Pose) -> _Canvas:
        """Begin with the empty room and the shadows on its floor."""
        canvas = cls(rays, pose)
        door = np.zeros(rays.shape, bool)
        for start in range(0, rays.shape[0], _band_rows(rays)):
            band = slice(start, start + _band_rows(rays))
            door[band] = canvas._fill_band(scene, band)
        if door.any():
            index = len(scene.solids)
            canvas.object_ids[door] = index
            canvas.outlines[index] = (int(np.count_nonzero(door)), rays.whole)
        for solid in scene.solids:
            if solid.base_m[2] == 0:
                canvas._shade_floor(solid)
        return canvas

    def _fill_band(self, scene: Scene, band: slice) -> np.ndarray:
        """Fill some rows with the empty room; return which of their pixels see the door."""
        rays = self.rays.band(band)
        depth_m, planes = scene.room.cast(rays, self.pose)
        self.depth_m[band], self.surfaces[band] = depth_m, planes
        points_m = []
        for axis in range(3):
            points = rays.affine(self.pose.rotation[axis])
            points *= depth_m
            points += np.float32(self.pose.position_m[axis])
            points_m.append(points)
        return scene.room.paint(planes, points_m, depth_m, rays, self.pose, scene.light,
                                [channel[band] for channel in self.radiance])

    def _window(self, t_optical_solid: np.ndarray, corners: np.ndarray):
        """Return the rows and columns that a solid's corners span."""
        return self.rays.window(corners @ t_optical_solid[:3, :3].T + t_optical_solid[:3, 3])

    def _shade_floor(self, solid: Solid):
        """Darken the floor about a solid's underside."""
        t_solid_optical = np.linalg.inv(solid.t_world_solid) @ self.pose.t_world_optical
        corners = solid.corners_m()
        corners[:, :2] += np.sign(corners[:, :2]) * _SHADOW_REACH_M
        corners[:, 2] = -solid.half_m[2]
        window = self._window(np.linalg.inv(t_solid_optical), corners)
        if window is None:
            return
        x, y = (self.rays.affine(t_solid_optical[i, :3], window) * self.depth_m[window]
                + np.float32(t_solid_optical[i, 3]) for i in range(2))
        near = np.clip(1 - solid.gap_m(x, y) * np.float32(1 / _SHADOW_REACH_M), 0, np.inf)
        near *= near
        near *= self.surfaces[window] == FLOOR
        self.radiance[(slice(None), *window)] *= 1 - np.float32(_SHADOW) * near

    def add(self, index: int, solid: Solid, light: Light):
        """Draw a solid where it is nearer than what is there."""
        t_world_solid = solid.t_world_solid
        t_solid_world = np.linalg.inv(t_world_solid)
        window = self._window(self.t_optical_world @ t_world_solid, solid.corners_m())
        if window is None:
            return
        t_solid_optical = t_solid_world @ self.pose.t_world_optical
        origin_depth = float((self.t_optical_world @ t_world_solid)[2, 3])
        d = [self.rays.affine(t_solid_optical[i, :3], window) for i in range(3)]
        q = [self.rays.affine(origin_depth * t_solid_optical[i, :3]
                              + (0, 0, t_solid_optical[i, 3]), window) for i in range(3)]
        s, hit, normal = solid.meet(q, d)
        s = np.where(hit, s, np.float32(0))
        depth_m = s + np.float32(origin_depth)
        hit &= depth_m > NEAREST_M
        self.outlines[index] = int(np.count_nonzero(hit)), window
        seen = hit & (depth_m < self.depth_m[window])
        np.copyto(self.depth_m[window], depth_m, where=seen)
        np.copyto(self.object_ids[window], np.int16(index), where=seen)
        lamp = t_solid_world[:3, :3] @ light.lamp_m + t_solid_world[:3, 3]
        points = [q[i] + s * d[i] for i in range(3)]
        brightness = light.on_solid(points, normal, lamp)
        for channel, value in enumerate(PAINTS[solid.colour]):
            np.copyto(self.radiance[channel][window], brightness * np.float32(value), where=seen)

    def objects(self, scene: Scene) -> list[VisibleObject]:
        """Describe what is in view."""
        described = []
        for index, (outline, window) in sorted(self.outlines.items()):
            is_door = index == len(scene.solids)
            colour = DOOR_COLOUR if is_door else scene.solids[index].colour
            shape = DOOR if is_door else scene.solids[index].shape
            found = measure_object(index, colour, shape, outline, window, self.object_ids,
                                   self.depth_m, self.rays)
            if found is not None:
                described.append(found)
        return described
