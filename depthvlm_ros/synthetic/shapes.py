# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The four kinds of things that stand in a room, each met by rays in closed form.

A solid has a frame of its own: the origin in the middle of its bounding box, z up, turned by its
yaw. To keep float32 exact, rays are moved to the depth of that origin before they are met.
"""

from __future__ import annotations

from dataclasses import dataclass
import math

import numpy as np

_TINY = np.float32(1e-9)


@dataclass(frozen=True)
class Solid:
    """
    Something that stands upright on the floor or on a box.

    :param colour: name of its paint.
    :param base_m: (x, y, z) of the middle of its underside, world frame.
    :param yaw_rad: its turn about z.
    """

    colour: str
    base_m: tuple[float, float, float]
    yaw_rad: float

    shape = ''

    @property
    def half_m(self) -> tuple[float, float, float]:
        """Return half the edges of its bounding box in its own frame."""
        raise NotImplementedError

    @property
    def reach_m(self) -> float:
        """Return the radius of the circle on the floor that holds it."""
        return max(self.half_m[:2])

    @property
    def t_world_solid(self) -> np.ndarray:
        """Return the (4, 4) float64 transform from its own frame to the world frame."""
        cos_yaw, sin_yaw = math.cos(self.yaw_rad), math.sin(self.yaw_rad)
        x, y, z = self.base_m
        return np.array([
            [cos_yaw, -sin_yaw, 0.0, x],
            [sin_yaw, cos_yaw, 0.0, y],
            [0.0, 0.0, 1.0, z + self.half_m[2]],
            [0.0, 0.0, 0.0, 1.0]])

    def corners_m(self) -> np.ndarray:
        """Return the corners of its bounding box in its own frame, (8, 3) float64."""
        signs = np.array([[i, j, k] for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)])
        return signs * np.array(self.half_m)

    def meet(self, q: list[np.ndarray], d: list[np.ndarray]):
        """
        Meet rays q + s d, in its own frame.

        :param q: three arrays (h, w) float32, points of the rays near the solid.
        :param d: three arrays (h, w) float32, the rays' directions.
        :return: s (h, w), metres of depth from q to where the ray first enters, defined only where
            it hits; hit (h, w) bool; the outward normal there, three arrays of unit length.
        """
        raise NotImplementedError

    def gap_m(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """
        Return how far points of the floor are from what touches it.

        :param x: points in its own frame.
        :param y: points in its own frame.
        """
        return np.clip(np.sqrt(x * x + y * y) - np.float32(self.reach_m), 0, np.inf)


def _slab(q: np.ndarray, d: np.ndarray, half: float) -> tuple[np.ndarray, np.ndarray]:
    """Return where rays enter and leave the slab |coordinate| <= half."""
    inverse = 1 / np.where(np.abs(d) < _TINY, _TINY, d)
    middle = -q * inverse
    width = np.abs(inverse) * np.float32(half)
    return middle - width, middle + width


@dataclass(frozen=True)
class Box(Solid):
    """
    A box.

    :param size_m: its edges along x, y, z of its own frame.
    """

    size_m: tuple[float, float, float] = (0.45, 0.45, 0.45)
    shape = 'box'

    @property
    def half_m(self) -> tuple[float, float, float]:
        """Return half its edges."""
        return tuple(edge / 2 for edge in self.size_m)

    @property
    def reach_m(self) -> float:
        """Return half its diagonal on the floor."""
        return math.hypot(*self.half_m[:2])

    def meet(self, q, d):
        """Meet rays, as Solid.meet says."""
        slabs = [_slab(q[i], d[i], self.half_m[i]) for i in range(3)]
        enter = np.maximum(np.maximum(slabs[0][0], slabs[1][0]), slabs[2][0])
        leave = np.minimum(np.minimum(slabs[0][1], slabs[1][1]), slabs[2][1])
        normal = [np.where(slabs[i][0] == enter, -np.sign(d[i]), np.float32(0)) for i in range(3)]
        return enter, enter <= leave, normal

    def gap_m(self, x, y):
        """Return the distance of floor points to its underside."""
        dx = np.clip(np.abs(x) - np.float32(self.half_m[0]), 0, np.inf)
        dy = np.clip(np.abs(y) - np.float32(self.half_m[1]), 0, np.inf)
        return np.sqrt(dx * dx + dy * dy)


@dataclass(frozen=True)
class Ball(Solid):
    """
    A ball.

    :param radius_m: its radius.
    """

    radius_m: float = 0.2
    shape = 'ball'

    @property
    def half_m(self) -> tuple[float, float, float]:
        """Return its radius three times."""
        return (self.radius_m,) * 3

    def meet(self, q, d):
        """Meet rays, as Solid.meet says."""
        a = d[0] * d[0] + d[1] * d[1] + d[2] * d[2]
        closest = -(q[0] * d[0] + q[1] * d[1] + q[2] * d[2]) / a
        p = [q[i] + closest * d[i] for i in range(3)]
        inside = np.float32(self.radius_m ** 2) - (p[0] * p[0] + p[1] * p[1] + p[2] * p[2])
        back = np.sqrt(np.clip(inside, 0, np.inf) / a)
        scale = np.float32(1 / self.radius_m)
        normal = [(p[i] - back * d[i]) * scale for i in range(3)]
        return closest - back, inside >= 0, normal

    def gap_m(self, x, y):
        """Return the distance of floor points to the part of the ball that is near the floor."""
        return np.clip(np.sqrt(x * x + y * y) - np.float32(0.5 * self.radius_m), 0, np.inf)


@dataclass(frozen=True)
class Cylinder(Solid):
    """
    An upright cylinder.

    :param radius_m: its radius.
    :param height_m: its height.
    """

    radius_m: float = 0.15
    height_m: float = 0.6
    shape = 'cylinder'

    @property
    def half_m(self) -> tuple[float, float, float]:
        """Return its radius twice and half its height."""
        return self.radius_m, self.radius_m, self.height_m / 2

    def meet(self, q, d):
        """Meet rays, as Solid.meet says."""
        a = np.maximum(d[0] * d[0] + d[1] * d[1], _TINY)
        closest = -(q[0] * d[0] + q[1] * d[1]) / a
        px, py = q[0] + closest * d[0], q[1] + closest * d[1]
        inside = np.float32(self.radius_m ** 2) - (px * px + py * py)
        back = np.sqrt(np.clip(inside, 0, np.inf) / a)
        side = closest - back
        cap, cap_leave = _slab(q[2], d[2], self.height_m / 2)
        enter = np.maximum(side, cap)
        hit = (inside >= 0) & (enter <= np.minimum(closest + back, cap_leave))
        on_side = side >= cap
        scale = np.where(on_side, np.float32(1 / self.radius_m), np.float32(0))
        normal = [(px - back * d[0]) * scale, (py - back * d[1]) * scale,
                  np.where(on_side, np.float32(0), -np.sign(d[2]))]
        return enter, hit, normal


@dataclass(frozen=True)
class Cone(Solid):
    """
    An upright cone, its tip up.

    :param radius_m: radius of its base.
    :param height_m: its height.
    """

    radius_m: float = 0.2
    height_m: float = 0.5
    shape = 'cone'

    @property
    def half_m(self) -> tuple[float, float, float]:
        """Return its radius twice and half its height."""
        return self.radius_m, self.radius_m, self.height_m / 2

    def meet(self, q, d):
        """Meet rays, as Solid.meet says."""
        half = np.float32(self.height_m / 2)
        k2 = np.float32((self.radius_m / self.height_m) ** 2)
        below_tip = half - q[2]
        a = d[0] * d[0] + d[1] * d[1] - k2 * d[2] * d[2]
        a = np.where(np.abs(a) < _TINY, _TINY, a)
        b = q[0] * d[0] + q[1] * d[1] + k2 * below_tip * d[2]
        c = q[0] * q[0] + q[1] * q[1] - k2 * below_tip * below_tip
        inside = b * b - a * c
        root = np.sqrt(np.clip(inside, 0, np.inf))
        far = np.float32(np.inf)
        side = np.full_like(a, far)
        for s in ((-b - root) / a, (-b + root) / a):
            on_cone = (inside >= 0) & (np.abs(q[2] + s * d[2]) <= half)
            side = np.minimum(side, np.where(on_cone, s, far))
        base = (-half - q[2]) / np.where(np.abs(d[2]) < _TINY, _TINY, d[2])
        x, y = q[0] + base * d[0], q[1] + base * d[1]
        base = np.where(x * x + y * y <= np.float32(self.radius_m ** 2), base, far)
        enter = np.minimum(side, base)
        hit = enter < far
        s = np.where(hit, enter, np.float32(0))
        nx, ny, nz = q[0] + s * d[0], q[1] + s * d[1], k2 * (below_tip - s * d[2])
        length = 1 / np.sqrt(nx * nx + ny * ny + nz * nz + _TINY)
        on_side = side <= base
        flat = np.float32(0)
        normal = [np.where(on_side, nx * length, flat), np.where(on_side, ny * length, flat),
                  np.where(on_side, nz * length, np.float32(-1))]
        return enter, hit, normal
