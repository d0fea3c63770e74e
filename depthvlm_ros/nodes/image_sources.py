# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
What the camera node shows: synthetic rooms, photos, videos.

Nothing here knows ROS. A source has a calibration, its own rate, and frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
import itertools
import math
from pathlib import Path
from typing import Protocol

import cv2
from depthvlm_ros.camera import Calibration
from depthvlm_ros.nodes.calibration_sources import (
    calibration_of,
    CameraNumbers,
    pinhole_calibration,
    read_calibration,
    scaled,
)
from depthvlm_ros.synthetic import Scene
import numpy as np

SYNTHETIC = 'synthetic'
ROOM_SIZE = (480, 640)          # (height, width) where none is asked for
ROOM_FOV_RAD = math.radians(60)  # across, where no focal length is asked for
RATE_HZ = 10.0                  # of everything that has no rate of its own
PHOTO_SUFFIXES = frozenset(['.bmp', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp'])
VIDEO_SUFFIXES = frozenset(
    ['.avi', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.ogv', '.webm'])


@dataclass(frozen=True)
class CameraFrame:
    """
    One image and, from a synthetic room, the truth about it.

    :param rgb: (H, W, 3) uint8.
    :param depth_m: (H, W) float32 metres along the optical axis; None where not known.
    :param t_world_optical: (4, 4) float64, takes points of the optical frame to the room's; None
        where not known.
    """

    rgb: np.ndarray
    depth_m: np.ndarray | None = None
    t_world_optical: np.ndarray | None = None


class ImageSource(Protocol):
    """
    Something that can stand in for a camera.

    `calibration` is that of its frames, `rate_hz` its own rate, `words` say what it is.
    """

    calibration: Calibration
    rate_hz: float
    words: str

    def frames(self, rate_hz: float, loop: bool) -> Iterator[CameraFrame]:
        """
        Yield the frames in order.

        :param rate_hz: how many frames will be taken a second.
        :param loop: begin again after the last one.
        :raises ValueError: a frame that cannot be read or has another size than the first.
        """


class RoomSource:
    """A camera in a synthetic room, at rest or walking."""

    rate_hz = RATE_HZ

    def __init__(self, seed: int, split: str, numbers: CameraNumbers, size: tuple[int, int],
                 moving: bool):
        """
        Furnish the room.

        :param seed: the room's number.
        :param split: 'train' or 'held_out'.
        :param numbers: the camera; 60 degrees across where they hold no focal length.
        :param size: (height, width) in px; 0 for 480 and 640, or for what the
            calibration file says.
        :raises ValueError: a calibration with distortion, which the renderer does not have.
        """
        height, width = size
        if numbers.calibration_file:
            calibration = read_calibration(numbers.calibration_file)
            if calibration.distorted:
                raise ValueError(f'{numbers.calibration_file} has distortion {calibration.d}, '
                                 'wanted none: synthetic rooms are seen through a pinhole')
            height, width = size_wanted(size, calibration.size)
            intrinsics = scaled(calibration, width, height).intrinsics
        else:
            height, width = height or ROOM_SIZE[0], width or ROOM_SIZE[1]
            intrinsics = numbers.at_focal(width, height, width / 2 / math.tan(ROOM_FOV_RAD / 2))
        self.calibration = pinhole_calibration(intrinsics)
        self.words = f'synthetic room {seed} ({split}), fx {intrinsics.fx:.0f} px'
        self._intrinsics = intrinsics
        self._moving = moving
        self._scene = Scene.random(seed, split=split)

    def frames(self, rate_hz: float, loop: bool = True) -> Iterator[CameraFrame]:
        """Yield the room without end, a step of the walk further each time."""
        if not self._moving:
            yield from itertools.repeat(self._render(self._scene.pose))
        for index in itertools.count():
            yield self._render(self._scene.pose_at(index / rate_hz))

    def _render(self, pose) -> CameraFrame:
        frame = self._scene.render(self._intrinsics, pose)
        return CameraFrame(frame.rgb, frame.depth_m, np.asarray(pose.t_world_optical))


class PhotoSource:
    """One photo, or a folder of photos in the order of their names."""

    rate_hz = RATE_HZ

    def __init__(self, path: Path, numbers: CameraNumbers, size: tuple[int, int]):
        """
        Read the first photo.

        :param path: a file, or a folder whose photos all come from the same camera.
        :param size: (height, width) in px to bring the photos to; 0 for their own.
        :raises ValueError: an empty folder, an unreadable photo, or a camera that is not known.
        """
        self._paths = photos_of(path) if path.is_dir() else [path]
        first = read_photo(self._paths[0])
        self._file_size = first.shape[:2]
        height, width = self._file_size
        calibration, words = calibration_of(numbers, width, height, self._paths[0])
        self._size = size_wanted(size, self._file_size)
        self.calibration = scaled(calibration, self._size[1], self._size[0])
        number = f' ({len(self._paths)} photos)' if path.is_dir() else ''
        self.words = f'{path}{number}, {width} x {height} px, {words}'

    def frames(self, rate_hz: float, loop: bool = True) -> Iterator[CameraFrame]:
        """Yield the photos; a single one is read once."""
        if len(self._paths) == 1:
            frame = self._read(self._paths[0])
            yield from itertools.repeat(frame) if loop else [frame]
            return
        while True:
            yield from map(self._read, self._paths)
            if not loop:
                return

    def _read(self, path: Path) -> CameraFrame:
        rgb = read_photo(path)
        if rgb.shape[:2] != self._file_size:
            raise ValueError(
                f'{path} has {rgb.shape[1]} x {rgb.shape[0]} px, wanted {self._file_size[1]} x '
                f'{self._file_size[0]} px like {self._paths[0]}: one camera took all of them')
        return CameraFrame(resized(rgb, self._size))


class VideoSource:
    """A video file."""

    def __init__(self, path: Path, numbers: CameraNumbers, size: tuple[int, int]):
        """
        Read the first frame.

        :param path: a file that OpenCV can decode.
        :param size: (height, width) in px to bring the frames to; 0 for their own.
        :raises ValueError: an unreadable file, or a camera that is not known.
        """
        self._path = path
        capture = self._open()
        known, first = capture.read()
        rate_hz = capture.get(cv2.CAP_PROP_FPS)
        capture.release()
        if not known:
            raise ValueError(f'{path} is no video that OpenCV can decode, wanted one with frames')
        height, width = first.shape[:2]
        calibration, words = calibration_of(numbers, width, height)
        self._size = size_wanted(size, (height, width))
        self.calibration = scaled(calibration, self._size[1], self._size[0])
        self.rate_hz = rate_hz if 0 < rate_hz <= 1000 else RATE_HZ
        self.words = f'{path}, {width} x {height} px at {self.rate_hz:g} Hz, {words}'

    def frames(self, rate_hz: float, loop: bool = True) -> Iterator[CameraFrame]:
        """Yield the video's frames, every one of them whatever the rate."""
        while True:
            capture = self._open()
            known, bgr = capture.read()
            if not known:
                raise ValueError(f'{self._path} has become unreadable, wanted a video')
            while known:
                yield CameraFrame(resized(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), self._size))
                known, bgr = capture.read()
            capture.release()
            if not loop:
                return

    def _open(self) -> cv2.VideoCapture:
        return cv2.VideoCapture(str(self._path))


def open_source(source: str, numbers: CameraNumbers, size: tuple[int, int] = (0, 0),
                seed: int = 0, split: str = 'held_out', moving: bool = False) -> ImageSource:
    """
    Open what a source's name means.

    :param source: 'synthetic', or the path of a photo, a folder of photos or a video.
    :param numbers: what is known of the camera.
    :param size: (height, width) of the frames in px; 0 for the source's own.
    :param seed: which synthetic room.
    :param split: 'train' or 'held_out' synthetic rooms.
    :param moving: walk through the synthetic room.
    :raises ValueError: in one line, what is wrong and what was wanted.
    """
    if min(size) < 0:
        raise ValueError(f'width {size[1]} and height {size[0]}, wanted pixels or 0')
    if source == SYNTHETIC:
        return RoomSource(seed, split, numbers, size, moving)
    try:
        path = Path(source).expanduser()
        exists = bool(source) and path.exists()
    except (OSError, RuntimeError) as error:    # a name too long, or a person without a home
        raise ValueError(f'source {source!r} cannot be looked for: {error}') from error
    if not exists:
        raise ValueError(f'source {source!r} does not exist, wanted {SYNTHETIC!r} or the path of '
                         'a photo, a folder of photos or a video')
    if path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES:
        return VideoSource(path, numbers, size)
    return PhotoSource(path, numbers, size)


def photos_of(folder: Path) -> list[Path]:
    """
    Return a folder's photos, sorted by name.

    :raises ValueError: a folder without any, or one that cannot be looked into.
    """
    try:
        photos = sorted(path for path in folder.iterdir()
                        if path.suffix.lower() in PHOTO_SUFFIXES)
    except OSError as error:
        raise ValueError(f'folder {folder} cannot be looked into ({error.strerror}), wanted one '
                         'with photos') from error
    if not photos:
        raise ValueError(f'folder {folder} holds no photo, wanted files ending in one of '
                         f'{" ".join(sorted(PHOTO_SUFFIXES))}')
    return photos


def read_photo(path: Path) -> np.ndarray:
    """
    Read a photo, turned upright as its EXIF says.

    :return: (H, W, 3) uint8 RGB.
    :raises ValueError: a file that OpenCV cannot decode.
    """
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise ValueError(f'{path} cannot be read ({error.strerror}), wanted a photo') from error
    bgr = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if bgr is None:
        raise ValueError(f'{path} is no photo that OpenCV can decode, wanted one (for instance '
                         'JPEG or PNG)')
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def size_wanted(size: tuple[int, int], own: tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) in px; a side that is 0 keeps the picture's proportions."""
    height, width = size
    if not height and not width:
        return own
    return (height or max(1, round(own[0] * width / own[1])),
            width or max(1, round(own[1] * height / own[0])))


def resized(rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return an (H, W, 3) uint8 image at (height, width), averaging where it shrinks."""
    if rgb.shape[:2] == size:
        return rgb
    shrinks = size[0] * size[1] < rgb.shape[0] * rgb.shape[1]
    return cv2.resize(rgb, size[::-1], interpolation=cv2.INTER_AREA if shrinks
                      else cv2.INTER_LINEAR)
