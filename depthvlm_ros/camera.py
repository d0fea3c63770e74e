# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The camera of an image: rectified pinhole, or as calibrated with its distortion.

Pixels are (u, v), right and down, and pixel centres are whole numbers, so an image covers
[-0.5, width - 0.5) x [-0.5, height - 0.5). Rays and points stand in the optical frame of REP 103:
x right, y down, z forward.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
import functools
import math

import cv2
import numpy as np

# The numbers of distortion coefficients that each model may have. Both polynomials are OpenCV's
# one, in which the number decides, as in image_geometry: some drivers call eight plumb_bob.
POLYNOMIAL_COEFFICIENTS = (4, 5, 8, 12, 14)
DISTORTION_COEFFICIENTS = {
    'plumb_bob': POLYNOMIAL_COEFFICIENTS,
    'rational_polynomial': POLYNOMIAL_COEFFICIENTS,
    'equidistant': (4,),
}
# Larger sizes are taken for corrupt numbers and refused before memory is allocated.
MAX_SIZE_PX = 16384
MAX_PIXELS = 2**26
FOCAL_OF_SIZE = (1e-2, 1e3)     # fx over width, fy over height: 178 degrees to 0.06
MAX_CENTRE_OF_SIZE = 20.0       # how far off the image the principal point may be, in images
ROTATION_TOLERANCE = 0.02       # of R against a rotation matrix, in each number
NOT_SHOWN_PX = -30000.0         # map value of rectified pixels that no raw pixel shows
RADII = 1024                    # distances from the axis at which a distortion is sampled
MOST_MAPS = 16                  # rectification maps that are kept, one per calibration


def check_image_size(height: int, width: int, what: str = 'the image') -> None:
    """
    Check that an image has a bearable size.

    :param height: in px.
    :param width: in px.
    :param what: whose size it is.
    :raises ValueError: zero or absurd sizes.
    """
    if not (0 < height <= MAX_SIZE_PX and 0 < width <= MAX_SIZE_PX):
        raise ValueError(
            f'{what} is {width} x {height}, wanted 1 to {MAX_SIZE_PX} pixels each way')
    if height * width > MAX_PIXELS:
        raise ValueError(f'{what} is {width} x {height}, wanted {MAX_PIXELS} pixels at most')


@dataclass(frozen=True)
class Intrinsics:
    """
    A rectified pinhole camera.

    :param width: image width in px.
    :param height: image height in px.
    :param fx: focal length in px along u.
    :param fy: focal length in px along v.
    :param cx: principal point in px along u, pixel centres being whole numbers.
    :param cy: principal point in px along v.
    :raises ValueError: a size that is no positive integer, a focal length that is not positive
        and finite, or a principal point that is not finite.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float

    def __post_init__(self):
        for name in ('width', 'height'):
            value = getattr(self, name)
            if not (math.isfinite(value) and int(value) == value >= 1):
                raise ValueError(f'{name} is {value!r}, wanted a positive whole number of pixels')
            object.__setattr__(self, name, int(value))
        for name in ('fx', 'fy'):
            value = float(getattr(self, name))
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f'{name} is {value!r}, wanted a positive focal length in pixels')
            object.__setattr__(self, name, value)
        for name in ('cx', 'cy'):
            value = float(getattr(self, name))
            if not math.isfinite(value):
                raise ValueError(f'{name} is {value!r}, wanted a finite principal point in pixels')
            object.__setattr__(self, name, value)

    @classmethod
    def centred(cls, width: int, height: int, fx: float, fy: float | None = None) -> Intrinsics:
        """
        Build a camera whose principal point is the image's centre.

        :param fy: focal length in px along v; fx where left out.
        """
        return cls(width, height, fx, fx if fy is None else fy, (width - 1) / 2, (height - 1) / 2)

    @property
    def matrix(self) -> np.ndarray:
        """Return K, (3, 3) float64."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    def crop(self, u_min: int, v_min: int, width: int, height: int) -> Intrinsics:
        """Return the camera of the crop whose first pixel is (u_min, v_min)."""
        return replace(self, width=width, height=height, cx=self.cx - u_min, cy=self.cy - v_min)

    def resize(self, width: int, height: int) -> Intrinsics:
        """Return the camera of this image resized to (height, width), half-pixel centres."""
        su, sv = width / self.width, height / self.height
        return Intrinsics(
            width, height, self.fx * su, self.fy * sv,
            (self.cx + 0.5) * su - 0.5, (self.cy + 0.5) * sv - 0.5)

    def size_at_focal(self, f_px: float) -> tuple[int, int]:
        """
        Return (width, height) in px at which both focal lengths are f_px.

        Each axis is scaled by its own focal length; rounding is half to even, and at least 1 px.

        :raises ValueError: focal lengths so short that the size is no number.
        """
        sides = self.width * f_px / self.fx, self.height * f_px / self.fy
        if not all(math.isfinite(side) for side in sides):
            raise ValueError(f'fx is {self.fx} and fy {self.fy}, wanted longer ones: at {f_px} px '
                             'the image would be without end')
        return tuple(max(1, round(side)) for side in sides)


@dataclass(frozen=True)
class Roi:
    """
    The part of the sensor that an image shows, in px of the full sensor before binning.

    A width or height of 0 means the full sensor.
    """

    x_offset: int = 0
    y_offset: int = 0
    width: int = 0
    height: int = 0


@dataclass(frozen=True)
class Calibration:
    """
    The numbers of a sensor_msgs/CameraInfo, without ROS.

    :param width: calibrated width in px, before ROI and binning.
    :param height: calibrated height in px, before ROI and binning.
    :param distortion_model: 'plumb_bob', 'rational_polynomial' or 'equidistant'.
    :param d: distortion coefficients, in OpenCV's order.
    :param k: camera matrix of the raw image, 9 numbers row by row.
    :param r: rotation to the rectified camera, 9 numbers; all zeros for none.
    :param p: projection of the rectified camera, 12 numbers; all zeros for the camera matrix.
    :param binning_x: raw columns that make one column of the image; 0 for 1.
    :param binning_y: raw rows that make one row of the image; 0 for 1.
    :param roi: the part of the sensor that the image shows.
    :param rectified: the image is rectified already: what tells how to do that (the distortion, R,
        and K where there is a P) does not count and may be anything.
    :raises ValueError: numbers that describe no camera, named, with what was wanted.
    """

    width: int
    height: int
    distortion_model: str
    d: tuple[float, ...]
    k: tuple[float, ...]
    r: tuple[float, ...]
    p: tuple[float, ...]
    binning_x: int = 1
    binning_y: int = 1
    roi: Roi = Roi()
    rectified: bool = False

    def __post_init__(self):
        ignored = self._ignored()
        for name, count in (('d', None), ('k', 9), ('r', 9), ('p', 12)):
            numbers = tuple(
                0.0 if name in ignored else float(number) for number in getattr(self, name))
            if count is not None and len(numbers) != count:
                raise ValueError(f'{name} has {len(numbers)} numbers, wanted {count}')
            if not all(math.isfinite(number) for number in numbers):
                raise ValueError(f'{name} is {list(numbers)}, wanted finite numbers')
            object.__setattr__(self, name, numbers)
        for name in ('binning_x', 'binning_y'):
            object.__setattr__(self, name, max(1, int(getattr(self, name))))
        if 'k' not in ignored and not any(self.k):
            raise ValueError(
                'K is all zeros, which means uncalibrated: calibrate the camera '
                '(for example with camera_calibration) and publish its CameraInfo')
        self._check_size()
        if 'k' not in ignored:
            self._check_matrix('K', self._raw_matrix())
        self._check_matrix('P', self._rectified_matrix())
        if not self.rectified:
            self._check_rotation()
            self._check_distortion()

    @property
    def size(self) -> tuple[int, int]:
        """Return the (height, width) in px of the image, ROI and binning folded in."""
        return ((self.roi.height or self.height) // self.binning_y,
                (self.roi.width or self.width) // self.binning_x)

    @property
    def distorted(self) -> bool:
        """Tell whether any distortion coefficient is not zero."""
        return any(self.d)

    @property
    def intrinsics(self) -> Intrinsics:
        """
        Return the camera of the rectified image, ROI and binning folded in.

        It is P, or K where P is zero, whether the image is remapped to it or has come rectified.
        As in image_geometry, a region of interest shifts the principal point and binning then
        divides it, without a half-pixel term.
        """
        height, width = self.size
        return Intrinsics(width, height, *self._folded(self._rectified_matrix()))

    def rectification(self) -> Rectification | None:
        """Return the maps from the rectified image to the raw one, or None where they agree."""
        return None if self.rectified else _rectification(self)

    @property
    def coefficients(self) -> tuple[float, ...] | None:
        """Return D without zeros behind what its model has; None where no number of them fits."""
        counts = DISTORTION_COEFFICIENTS.get(self.distortion_model, ())
        fitting = [n for n in counts if n <= len(self.d) and not any(self.d[n:])]
        return self.d[:fitting[0]] if fitting else None

    def _ignored(self) -> tuple[str, ...]:
        """Return the names of the numbers that do not count."""
        if not self.rectified:
            return ()
        return ('d', 'r', 'k') if any(self.p) else ('d', 'r')

    def _rectified_matrix(self) -> tuple[float, float, float, float]:
        """Return (fx, fy, cx, cy) of P, or of K where P is zero, on the full sensor."""
        if any(self.p):
            return self.p[0], self.p[5], self.p[2], self.p[6]
        return self._raw_matrix()

    def _raw_matrix(self) -> tuple[float, float, float, float]:
        """Return (fx, fy, cx, cy) of K, on the full sensor."""
        return self.k[0], self.k[4], self.k[2], self.k[5]

    def _rotation(self) -> np.ndarray:
        """Return R, (3, 3); the identity where R or P is zero."""
        rotated = any(self.r) and any(self.p)
        return np.array(self.r).reshape(3, 3) if rotated else np.eye(3)

    def _folded(self, matrix: tuple[float, float, float, float]) -> tuple[float, ...]:
        """Return (fx, fy, cx, cy) with ROI and binning folded in."""
        fx, fy, cx, cy = matrix
        return (fx / self.binning_x, fy / self.binning_y,
                (cx - self.roi.x_offset) / self.binning_x,
                (cy - self.roi.y_offset) / self.binning_y)

    def _check_distortion(self):
        """Check that the coefficients are those of a known model."""
        if not self.distorted:
            return
        if self.distortion_model not in DISTORTION_COEFFICIENTS:
            raise ValueError(
                f'the distortion model is {self.distortion_model!r}, wanted one of '
                f'{sorted(DISTORTION_COEFFICIENTS)}, or coefficients that are all zero')
        if self.coefficients is None:
            *counts, most = map(str, DISTORTION_COEFFICIENTS[self.distortion_model])
            raise ValueError(
                f'{self.distortion_model} has {len(self.d)} coefficients, wanted '
                f'{", ".join(counts)}{" or " if counts else ""}{most}, and zeros behind')

    def _check_size(self):
        """Check that the calibrated size holds the region of interest and a pixel or more."""
        roi = self.roi
        check_image_size(self.height, self.width, 'the calibrated size')
        if (min(roi.x_offset, roi.y_offset, roi.width, roi.height) < 0
                or roi.x_offset + (roi.width or self.width) > self.width
                or roi.y_offset + (roi.height or self.height) > self.height):
            raise ValueError(f'{roi} lies outside the calibrated {self.width} x {self.height}')
        if min(self.size) < 1:
            raise ValueError(
                f'binning {self.binning_x} x {self.binning_y} leaves nothing of the image')

    def _check_matrix(self, name: str, matrix: tuple[float, float, float, float]):
        """Check that a camera matrix is one of a camera of this size."""
        fx, fy, cx, cy = matrix
        least, most = FOCAL_OF_SIZE
        if not (fx > 0 and fy > 0):
            raise ValueError(f'{name} has focal lengths {fx} and {fy}, wanted positive ones')
        if not (least <= fx / self.width <= most and least <= fy / self.height <= most):
            raise ValueError(f'{name} has focal lengths {fx} and {fy}, wanted pixels, {least} to '
                             f'{most} of the size {self.width} x {self.height}')
        if max(abs(cx) / self.width, abs(cy) / self.height) > MAX_CENTRE_OF_SIZE:
            raise ValueError(f'{name} has the principal point ({cx}, {cy}), wanted pixels of an '
                             f'image of {self.width} x {self.height}')

    def _check_rotation(self):
        """Check that R, where it counts, is a rotation that looks the camera's way."""
        rotation = self._rotation()
        with np.errstate(over='ignore', invalid='ignore'):
            off = np.abs(rotation @ rotation.T - np.eye(3)).max()
        if not off <= ROTATION_TOLERANCE or np.linalg.det(rotation) < 0:
            raise ValueError(f'R is {list(self.r)}, wanted a rotation matrix, or all zeros')


@dataclass(frozen=True, eq=False)
class Rectification:
    """
    The way from a raw image to the rectified one.

    :param map_u: (H, W) float32, the raw column that each rectified pixel shows, in px;
        NOT_SHOWN_PX where it shows none, because the lens does not reach so far from its axis.
    :param map_v: (H, W) float32, the raw row that each rectified pixel shows, in px; as map_u.
    """

    map_u: np.ndarray
    map_v: np.ndarray

    @functools.cached_property
    def valid(self) -> np.ndarray:
        """Return (H, W) bool: the pixels that the raw image shows."""
        height, width = self.map_u.shape
        with np.errstate(invalid='ignore'):
            return ((self.map_u >= -0.5) & (self.map_u <= width - 0.5)
                    & (self.map_v >= -0.5) & (self.map_v <= height - 0.5))

    @functools.cached_property
    def _fixed_point(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the maps in the form that remaps fastest."""
        return cv2.convertMaps(self.map_u, self.map_v, cv2.CV_16SC2)

    def apply(self, raw: np.ndarray) -> np.ndarray:
        """
        Return the rectified image, black where the raw one shows nothing.

        :param raw: (H, W) or (H, W, C), uint8 or float32.
        :raises ValueError: an image of another size than the maps'.
        """
        if raw.shape[:2] != self.map_u.shape:
            raise ValueError(
                f'the image is {raw.shape[1]} x {raw.shape[0]}, wanted '
                f'{self.map_u.shape[1]} x {self.map_u.shape[0]} as calibrated')
        return cv2.remap(raw, *self._fixed_point, cv2.INTER_LINEAR)


def forget_rectifications() -> None:
    """Free the maps that are kept, some 15 bytes a pixel each."""
    _rectification.cache_clear()


@functools.lru_cache(maxsize=MOST_MAPS)
def _rectification(calibration: Calibration) -> Rectification | None:
    """Return the calibration's maps, or None where raw and rectified image agree."""
    raw = _matrix(calibration._folded(calibration._raw_matrix()))
    rectified = calibration.intrinsics.matrix
    rotation = calibration._rotation()
    if (not calibration.distorted and np.allclose(raw, rectified, atol=1e-9)
            and np.allclose(rotation, np.eye(3), atol=1e-12)):
        return None
    height, width = calibration.size
    d = np.array(calibration.coefficients if calibration.distorted else (0.0,) * 4)
    fisheye = calibration.distorted and calibration.distortion_model == 'equidistant'
    make = cv2.fisheye.initUndistortRectifyMap if fisheye else cv2.initUndistortRectifyMap
    map_u, map_v = make(raw, d, rotation, rectified, (width, height), cv2.CV_32FC1)
    radius = _radii(calibration, rotation)
    beyond = ~(radius < _reach(calibration, radius[np.isfinite(radius)].max(initial=0.0)))
    for each in (map_u, map_v):
        each[beyond | ~(np.abs(each) < -NOT_SHOWN_PX)] = NOT_SHOWN_PX
    return Rectification(map_u, map_v)


def _radii(calibration: Calibration, rotation: np.ndarray) -> np.ndarray:
    """
    Return how far from the lens's axis each rectified pixel's ray is.

    :return: (H, W) float32, the tangent of the angle; infinite for rays that look back.
    """
    camera = calibration.intrinsics
    across = (np.arange(camera.width) - camera.cx) / camera.fx
    down = (np.arange(camera.height) - camera.cy) / camera.fy
    x, y, z = (np.add.outer(down * row[1] + row[2], across * row[0], dtype=np.float32)
               for row in rotation.T)
    with np.errstate(divide='ignore', invalid='ignore'):
        return np.where(z > 0, np.hypot(x, y) / z, np.inf)


def _reach(calibration: Calibration, farthest: float) -> float:
    """
    Return how far from the axis the distortion's polynomials hold.

    Beyond the distance at which the distorted one stops growing they describe no lens: the same
    raw pixel would be shown twice.

    :param farthest: distance up to which it is sampled.
    :return: the distance, the tangent of the angle; infinite where they hold all the way.
    """
    if not calibration.distorted:
        return math.inf
    radius = np.linspace(0.0, farthest, RADII)[1:]
    d = np.array(calibration.coefficients)
    with np.errstate(over='ignore', invalid='ignore', divide='ignore'):
        if calibration.distortion_model == 'equidistant':
            angle = np.arctan(radius)
            shown = angle * (1 + np.polyval([*d[3::-1], 0.0], angle**2))
        else:
            k1, k2, k3 = d[0], d[1], d[4] if len(d) > 4 else 0.0
            shown = radius * (1 + np.polyval([k3, k2, k1, 0.0], radius**2))
            if len(d) >= 8:
                shown /= 1 + np.polyval([d[7], d[6], d[5], 0.0], radius**2)
        turns = np.flatnonzero(~(np.diff(shown, prepend=0.0) > 0))
    return radius[turns[0]] if turns.size else math.inf


def _matrix(numbers: tuple[float, ...]) -> np.ndarray:
    """Return the (3, 3) camera matrix of (fx, fy, cx, cy)."""
    fx, fy, cx, cy = numbers
    return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
