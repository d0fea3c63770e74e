# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Compressed pictures: JPEG and PNG, and nothing else.

cv_bridge's own way takes whatever OpenCV decodes for bgr8, so that a grey picture, one of 16 bits
or one with alpha would come out as something else, and asks for the memory of whatever size the
picture's header claims. Here the header is read first.
"""

from __future__ import annotations

import cv2
from depthvlm_ros.camera import check_image_size
from depthvlm_ros.nodes.encodings import MOSAICS
import numpy as np

PNG_START = b'\x89PNG\r\n\x1a\n'
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}   # by colour type
JPEG_START, JPEG_END = b'\xff\xd8', b'\xff\xd9'
JPEG_SCAN = 0xDA
JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}     # the segments that tell the size
JPEG_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
JPEG_MAX_SEGMENTS = 4096
JPEG_MISSING = 128      # what libjpeg shows where a scan has ended too early
JPEG_FILLER = bytes(range(1, 0xFF))     # 0xFF would begin a marker
# No more comes out of a byte: zlib's own bound, and eight blocks of 8 x 8 pixels at one bit each.
PNG_BYTES_PER_BYTE = 1032
JPEG_PIXELS_PER_BYTE = 512


def compressed_size(data: bytes) -> tuple[int, int]:
    """
    Return the (height, width) in px that a picture's header tells, decoding nothing.

    :raises ValueError: no JPEG or PNG, a size that is zero or absurd, or more pixels than so few
        bytes can hold.
    """
    if data.startswith(PNG_START):
        height, width, least_bytes = _png_header(data)
    elif data.startswith(JPEG_START):
        height, width = _jpeg_size(data)
        least_bytes = height * width / JPEG_PIXELS_PER_BYTE
    else:
        raise ValueError(f'it begins with {data[:8].hex(" ")!r}, wanted JPEG or PNG')
    check_image_size(height, width)
    if len(data) < least_bytes:
        raise ValueError(f'it is {width} x {height} px in {len(data)} bytes, wanted at least '
                         f'{int(least_bytes)}')
    return height, width


def rgb_from_bytes(data: bytes, format_name: str) -> np.ndarray:
    """
    Decode a JPEG or PNG picture of any depth, grey, colour, with alpha or as a mosaic.

    Alpha is left out, and the orientation that a photo's notes tell too: the calibration is of
    the pixels as they lie.

    :param format_name: the message's format; 'bayer_rggb8; png' and such name a mosaic.
    :return: (H, W, 3) uint8.
    :raises ValueError: what compressed_size refuses, or data that is cut off or corrupt, as far
        as the decoder sees it: a JPEG has no checksum, and a progressive one that is cut off is a
        coarser picture.
    """
    size = compressed_size(data)
    is_jpeg = data.startswith(JPEG_START)
    if is_jpeg and data.rfind(JPEG_END) < data.rfind(b'\xff\xda'):
        raise ValueError('its end is missing')
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ValueError(f'it cannot be decoded: {error}') from error
    if pixels is None or pixels.shape[:2] != size:
        raise ValueError('it is cut off or corrupt')
    if is_jpeg and (pixels[-1, -1] == JPEG_MISSING).all() and _is_scan_cut(data):
        raise ValueError('it is cut off: its last rows are missing')
    if pixels.dtype != np.uint8:
        pixels = cv2.convertScaleAbs(pixels, alpha=255 / 65535)
    if pixels.ndim == 2:
        source, _, kept = format_name.partition(';')
        # For JPEG the compressing plugin makes a mosaic grey first, and says so behind it.
        mosaic = None if kept.split()[-1:] == ['mono8'] else MOSAICS.get(
            source.strip().rstrip('0123456789'))
        return cv2.cvtColor(
            pixels, getattr(cv2, f'COLOR_Bayer{mosaic}2RGB') if mosaic else cv2.COLOR_GRAY2RGB)
    return cv2.cvtColor(
        pixels, cv2.COLOR_BGRA2RGB if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB)


def _is_scan_cut(data: bytes) -> bool:
    """
    Tell whether a JPEG's scan ends before the picture does, though an end mark stands behind it.

    Bytes too many before the mark change nothing in a picture that is whole, and are taken for
    the picture's in one that is cut.
    """
    at = data.rfind(JPEG_END)
    shown, padded = (cv2.imdecode(np.frombuffer(part, np.uint8), cv2.IMREAD_GRAYSCALE)
                     for part in (data, data[:at].rstrip(b'\xff') + JPEG_FILLER + data[at:]))
    return not np.array_equal(shown, padded)


def _png_header(data: bytes) -> tuple[int, int, float]:
    """Return a PNG's height, width, and the fewest bytes that can hold it."""
    if len(data) < 33 or data[12:16] != b'IHDR':
        raise ValueError('it is cut off or corrupt: a PNG without its header')
    width, height = (int.from_bytes(data[at:at + 4], 'big') for at in (16, 20))
    if data[25] not in PNG_CHANNELS:
        raise ValueError(f'it is corrupt: a PNG of colour type {data[25]}')
    row_bytes = width * data[24] * PNG_CHANNELS[data[25]] / 8 + 1
    return height, width, row_bytes * height / PNG_BYTES_PER_BYTE


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Return the (height, width) of a JPEG's first frame."""
    at = len(JPEG_START)
    for _ in range(JPEG_MAX_SEGMENTS):
        if at + 4 > len(data) or data[at] != 0xFF:
            break
        marker = data[at + 1]
        if marker == 0xFF or marker in JPEG_WITHOUT_LENGTH:     # a byte of padding, or no content
            at += 1 if marker == 0xFF else 2
            continue
        if marker in JPEG_FRAMES and at + 9 <= len(data):
            return (int.from_bytes(data[at + 5:at + 7], 'big'),
                    int.from_bytes(data[at + 7:at + 9], 'big'))
        if marker == JPEG_SCAN:
            break
        at += 2 + max(2, int.from_bytes(data[at + 2:at + 4], 'big'))
    raise ValueError('it is cut off or corrupt: a JPEG without its size')
