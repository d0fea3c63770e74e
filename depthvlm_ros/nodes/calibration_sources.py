# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Where the numbers of a photo's or a video's camera come from.

From a ROS calibration file (the YAML that camera_calibration writes and camera_info_manager
reads), from a focal length that a person gives, or from a photo's own EXIF.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
import math
from pathlib import Path

from depthvlm_ros.camera import Calibration, Intrinsics
import numpy as np
import yaml

FILM_DIAGONAL_MM = math.hypot(36.0, 24.0)   # what EXIF's 35 mm equivalent refers to (CIPA DCG-001)
EXIF_IFD = 0x8769
EXIF_FOCAL_35MM = 0xA405
MATRICES = {'camera_matrix': 9, 'rectification_matrix': 9, 'projection_matrix': 12}


@dataclass(frozen=True)
class CameraNumbers:
    """
    What a person says about the camera of their images.

    :param fx: focal length along u in px of the image file; 0 where not known.
    :param fy: focal length along v in px of the image file; 0 for fx.
    :param cx: principal point along u in px of the image file; negative for the centre.
    :param cy: principal point along v in px of the image file; negative for the centre.
    :param calibration_file: a ROS calibration YAML; '' where there is none.
    :raises ValueError: numbers that are not finite, a negative focal length, an fy without fx, or
        numbers beside a calibration file.
    """

    fx: float = 0.0
    fy: float = 0.0
    cx: float = -1.0
    cy: float = -1.0
    calibration_file: str = ''

    def __post_init__(self):
        for name in ('fx', 'fy', 'cx', 'cy'):
            value = getattr(self, name)
            if not math.isfinite(value) or (name[0] == 'f' and value < 0):
                raise ValueError(f'{name} is {value}, wanted a number of pixels')
        if self.fy > 0 and self.fx == 0:
            raise ValueError(f'fy is {self.fy} without fx, wanted fx too')
        if self.fx > 0 and self.calibration_file:
            raise ValueError(f'both fx ({self.fx}) and calibration_file '
                             f'({self.calibration_file}) are given, wanted one of them')
        if max(self.cx, self.cy) >= 0 and self.calibration_file:
            raise ValueError(f'cx {self.cx} and cy {self.cy} are given beside calibration_file '
                             f'{self.calibration_file}, wanted one or the other')

    def at_focal(self, width: int, height: int, f_px: float) -> Intrinsics:
        """Return the camera of a (height, width) image, with f_px where no fx is given."""
        fx = self.fx or f_px
        return Intrinsics(
            width, height, fx, self.fy or fx,
            self.cx if self.cx >= 0 else (width - 1) / 2,
            self.cy if self.cy >= 0 else (height - 1) / 2)


def pinhole_calibration(intrinsics: Intrinsics) -> Calibration:
    """Return the calibration of a camera without distortion."""
    k = intrinsics.matrix
    p = np.hstack([k, np.zeros((3, 1))])
    return Calibration(
        width=intrinsics.width, height=intrinsics.height, distortion_model='plumb_bob',
        d=(0.0,) * 5, k=_numbers(k), r=_numbers(np.eye(3)), p=_numbers(p))


def calibration_of(numbers: CameraNumbers, width: int, height: int,
                   photo: Path | None = None) -> tuple[Calibration, str]:
    """
    Find the calibration of a (height, width) image file.

    :param numbers: what a person said.
    :param photo: the file whose EXIF may hold a focal length; None for a video.
    :return: the calibration, and in words where its scale comes from.
    :raises ValueError: no focal length to be had, or a calibration of another size.
    """
    if numbers.calibration_file:
        calibration = read_calibration(numbers.calibration_file)
        if (calibration.width, calibration.height) != (width, height):
            raise ValueError(
                f'{numbers.calibration_file} is a calibration for '
                f'{calibration.width} x {calibration.height} px, wanted one for the images, '
                f'{width} x {height} px')
        return calibration, f'calibration from {numbers.calibration_file}'
    if numbers.fx > 0:
        intrinsics = numbers.at_focal(width, height, numbers.fx)
        return pinhole_calibration(intrinsics), f'fx {numbers.fx:g} px as given'
    f_35mm = exif_focal_35mm(photo) if photo is not None else None
    if f_35mm is None:
        raise ValueError(
            f'the camera of the {width} x {height} px images is unknown, and metres need it: '
            'wanted its focal length in px (fx) or its ROS calibration YAML (calibration_file)')
    f_px = f_35mm / FILM_DIAGONAL_MM * math.hypot(width, height)
    words = (f'fx {f_px:.0f} px from the EXIF of {photo} (like {f_35mm:g} mm on 35 mm film); '
             'a calibration is more exact')
    return pinhole_calibration(numbers.at_focal(width, height, f_px)), words


def scaled(calibration: Calibration, width: int, height: int) -> Calibration:
    """Return the calibration of the images resized to (height, width), half-pixel centres."""
    su, sv = width / calibration.width, height / calibration.height
    resize = np.array([[su, 0.0, (su - 1) / 2], [0.0, sv, (sv - 1) / 2], [0.0, 0.0, 1.0]])
    k = resize @ np.reshape(calibration.k, (3, 3))
    p = resize @ np.reshape(calibration.p, (3, 4))
    return replace(calibration, width=width, height=height, k=_numbers(k), p=_numbers(p))


def read_calibration(path: str) -> Calibration:
    """
    Read a ROS calibration YAML.

    :param path: a file with image_width, image_height, camera_matrix and, where the camera has
        them, distortion_model, distortion_coefficients, rectification_matrix and
        projection_matrix (by default none, plumb_bob, I and [K | 0]).
    :raises ValueError: naming the file and what is missing or wrong in it.
    """
    try:
        content = yaml.safe_load(Path(path).expanduser().read_text(encoding='utf-8'))
    except (OSError, RuntimeError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f'calibration file {path} cannot be read: {error}') from error
    if not isinstance(content, dict):
        raise ValueError(f'{path} holds {type(content).__name__}, wanted a ROS calibration YAML')
    width, height = (_size(path, content, key) for key in ('image_width', 'image_height'))
    k = _matrix(path, content, 'camera_matrix')
    if k is None:
        raise ValueError(f'{path} has no camera_matrix, wanted a ROS calibration YAML')
    d = _matrix(path, content, 'distortion_coefficients') or (0.0,) * 5
    r = _matrix(path, content, 'rectification_matrix') or _numbers(np.eye(3))
    p = _matrix(path, content, 'projection_matrix') or _numbers(
        np.hstack([np.reshape(k, (3, 3)), np.zeros((3, 1))]))
    model = content.get('distortion_model') or 'plumb_bob'
    try:
        return Calibration(width=width, height=height, distortion_model=str(model),
                           d=d, k=k, r=r, p=p)
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error


def exif_focal_35mm(photo: Path) -> float | None:
    """Return the focal length of a photo in mm on 35 mm film, None where its EXIF has none."""
    try:
        from PIL import Image
        with Image.open(photo) as image:
            f_35mm = float(image.getexif().get_ifd(EXIF_IFD).get(EXIF_FOCAL_35MM, 0))
    except ImportError:
        return None
    except (OSError, SyntaxError, TypeError, ValueError, Image.DecompressionBombError):
        return None     # a photo without readable EXIF is an ordinary photo
    return f_35mm if math.isfinite(f_35mm) and f_35mm > 0 else None


def _size(path: str, content: dict, key: str) -> int:
    value = content.get(key)
    if not isinstance(value, int) or value < 1:
        raise ValueError(f'{path} has {key} {value!r}, wanted a positive whole number of pixels')
    return value


def _matrix(path: str, content: dict, key: str) -> tuple[float, ...] | None:
    """Return a matrix's numbers row by row, None where the file does not have it."""
    matrix = content.get(key)
    if matrix is None:
        return None
    data = matrix.get('data') if isinstance(matrix, dict) else matrix
    try:
        numbers = tuple(float(number) for number in data)
    except (TypeError, ValueError) as error:
        raise ValueError(f'{path} has {key} {data!r}, wanted a list of numbers') from error
    wanted = MATRICES.get(key, len(numbers))
    if len(numbers) != wanted or not all(map(math.isfinite, numbers)):
        raise ValueError(f'{path} has {key} {data!r}, wanted {wanted} finite numbers')
    return numbers


def _numbers(matrix: np.ndarray) -> tuple[float, ...]:
    return tuple(float(number) for number in np.ravel(matrix))
