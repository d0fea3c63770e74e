# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The encodings of colour and grey images, and how their bytes lie."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
from depthvlm_ros.camera import check_image_size
import numpy as np


@dataclass(frozen=True)
class Encoding:
    """
    How an encoding stores an image.

    :param plain: what cv_bridge calls it.
    :param pixel_bytes: bytes of a pixel in a row.
    :param channel_bytes: bytes of a number, whose order the message's is_bigendian tells.
    :param code: OpenCV's conversion to RGB, where cv_bridge has none in some distribution.
    :param multiple: of what (height, width) in px must be a multiple.
    :param chroma: half as many rows again hold the colours, behind those of the image.
    """

    plain: str
    pixel_bytes: int
    channel_bytes: int = 1
    code: int | None = None
    multiple: tuple[int, int] = (1, 1)
    chroma: bool = False

    @property
    def channels(self) -> int:
        """Return how many numbers make a pixel of a row."""
        return self.pixel_bytes // self.channel_bytes

    def rows(self, height: int) -> int:
        """Return how many rows of data an image of a height has."""
        return height + height // 2 if self.chroma else height


MOSAICS = {'bayer_rggb': 'BG', 'bayer_bggr': 'RG', 'bayer_gbrg': 'GR', 'bayer_grbg': 'GB'}
# The type-named encodings carry no colour order; OpenCV's own is meant by custom.
ENCODINGS = {
    **{name: Encoding(plain, pixel_bytes) for name, plain, pixel_bytes in (
        ('mono8', 'mono8', 1), ('8UC1', 'mono8', 1), ('rgb8', 'rgb8', 3), ('bgr8', 'bgr8', 3),
        ('8UC3', 'bgr8', 3), ('rgba8', 'rgba8', 4), ('bgra8', 'bgra8', 4),
        ('8UC4', 'bgra8', 4))},
    **{name: Encoding(name, pixel_bytes, 2) for name, pixel_bytes in (
        ('mono16', 2), ('rgb16', 6), ('bgr16', 6), ('rgba16', 8), ('bgra16', 8))},
    **{f'{name}8': Encoding(f'{name}8', 1) for name in MOSAICS},
    **{f'{name}16': Encoding(f'{name}16', 2, 2) for name in MOSAICS},
    **{name: Encoding(name, 2, code=code, multiple=(1, 2)) for name, code in (
        ('yuv422', cv2.COLOR_YUV2RGB_UYVY), ('uyvy', cv2.COLOR_YUV2RGB_UYVY),
        ('yuv422_yuy2', cv2.COLOR_YUV2RGB_YUY2), ('yuyv', cv2.COLOR_YUV2RGB_YUY2))},
    **{name: Encoding(name, 1, code=code, multiple=(2, 2), chroma=True) for name, code in (
        ('nv12', cv2.COLOR_YUV2RGB_NV12), ('nv21', cv2.COLOR_YUV2RGB_NV21))},
}


def encoding_named(name: str) -> Encoding:
    """
    Return the encoding of a name.

    :raises ValueError: a name that is none of a colour or grey image.
    """
    if name not in ENCODINGS:
        raise ValueError(f'an image of encoding {name[:40]!r} cannot be used, wanted one of '
                         f'{", ".join(ENCODINGS)}')
    return ENCODINGS[name]


def packed_rows(data, encoding: str, height: int, width: int, step: int,
                big_endian: bool) -> np.ndarray:
    """
    Return an image's bytes without the padding of its rows, little-endian.

    :param data: the bytes; what is returned shares them where nothing has to change.
    :param encoding: as the message names it.
    :param height: in px.
    :param width: in px.
    :param step: bytes from one row to the next.
    :param big_endian: the order of numbers of two bytes.
    :return: (rows, bytes of a row) uint8.
    :raises ValueError: numbers that do not fit each other, or the data.
    """
    kind = encoding_named(encoding)
    check_image_size(height, width)
    for name, size, multiple in zip(('height', 'width'), (height, width), kind.multiple):
        if size % multiple:
            raise ValueError(f'the {name} of an image of {encoding} is {size} px, wanted a '
                             f'multiple of {multiple}')
    row_bytes = width * kind.pixel_bytes
    if step < row_bytes:
        raise ValueError(f'a row of {width} pixels of {encoding} is {step} bytes long, wanted at '
                         f'least {row_bytes}')
    rows = kind.rows(height)
    if len(data) != step * rows:
        raise ValueError(f'the image has {len(data)} bytes, wanted step x '
                         f'{"height x 3/2" if kind.chroma else "height"} = {step * rows}')
    packed = np.frombuffer(data, np.uint8).reshape(rows, step)[:, :row_bytes]
    if big_endian and kind.channel_bytes == 2:
        packed = np.ascontiguousarray(packed).view('>u2').astype('<u2').view(np.uint8)
    return packed
