# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""One frame's way through the model: a message in, depth in its rectified camera out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from depthvlm_ros.camera import Calibration, Intrinsics
from depthvlm_ros.geometry import valid_range
from depthvlm_ros.nodes.conversions import check_told_size, rgb_from_compressed, rgb_from_image
from depthvlm_ros.nodes.worker import FrameRefusedError
import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

LEAST_LEFT = 0.01       # share of an image that a calibration must leave of it


@dataclass(frozen=True, eq=False)
class Source:
    """
    An image as it arrived, with its calibration.

    :param message: the image.
    :param calibration: its calibration, or the ValueError that says why it has none.
    :param received_s: when it was received, on time.monotonic.
    """

    message: Image | CompressedImage
    calibration: Calibration | ValueError
    received_s: float

    @property
    def header(self) -> Header:
        """Return the image's header, which every output carries."""
        return self.message.header


@dataclass(frozen=True, eq=False)
class Seen:
    """
    What the model saw in an image.

    :param rgb: (H, W, 3) uint8, rectified.
    :param depth_m: (H, W) float32, metres along the optical axis, NaN invalid.
    :param intrinsics: the camera of both.
    :param view: the predictor's view, which questions continue.
    """

    rgb: np.ndarray
    depth_m: np.ndarray
    intrinsics: Intrinsics
    view: Any


def look_together(sources: list[Source], predictor, min_m: float,
                  max_m: float) -> list[Seen | Exception]:
    """
    Give images their pass through the model; those of one size go through it together.

    :param predictor: the depthvlm_ros.model.Predictor.
    :param min_m: nearest depth that is kept, in metres.
    :param max_m: farthest depth that is kept, in metres; 0 for no limit.
    :return: for each image what was seen, or why nothing was: FrameRefusedError for an image or a
        calibration that cannot be used, before the model ran, or what the model raised.
    """
    from depthvlm_ros.model.batching import look_batch  # torch, which the model brought
    pictures: list = []
    for source in sources:
        try:
            pictures.append(_picture(source, predictor))
        except Exception as error:  # of this camera; the others go on
            pictures.append(error.with_traceback(None))
    usable = [picture for picture in pictures if not isinstance(picture, Exception)]
    views = iter(look_batch(predictor, [
        (rgb, source.calibration.intrinsics) for source, rgb, _ in usable]))
    found: list = []
    for picture in pictures:
        view = picture if isinstance(picture, Exception) else next(views)
        if isinstance(view, Exception):
            found.append(view)
            continue
        source, rgb, maps = picture
        depth_m = valid_range(view.depth_m, min_m, max_m)
        if maps is not None:
            depth_m[~maps.valid] = np.nan
        found.append(Seen(rgb, depth_m, source.calibration.intrinsics, view))
    return found


def _picture(source: Source, predictor):
    """
    Decode an image, and rectify it where its calibration says how.

    :return: (source, (H, W, 3) uint8 RGB, the rectification's maps or None).
    :raises FrameRefusedError: an image or a calibration that cannot be used.
    """
    if isinstance(source.calibration, ValueError):
        raise FrameRefusedError(f'camera_info: {source.calibration}')
    read = rgb_from_compressed if isinstance(source.message, CompressedImage) else rgb_from_image
    try:
        check_told_size(source.message, source.calibration)     # before a byte is decoded
        rgb = read(source.message)
    except ValueError as error:
        raise FrameRefusedError(str(error)) from error
    try:
        predictor.plan(source.calibration.intrinsics)
    except ValueError as error:
        raise FrameRefusedError(f'camera_info: the model cannot take this camera: {error}'
                                ) from error
    maps = source.calibration.rectification()
    if maps is not None and np.count_nonzero(maps.valid) < LEAST_LEFT * maps.valid.size:
        raise FrameRefusedError('camera_info: its distortion and rectification (d, r, p) leave '
                                'nothing of the image')
    return source, rgb if maps is None else maps.apply(rgb), maps
