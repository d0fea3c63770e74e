# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
What sensor_msgs' image encodings mean: storage, and the ways from one to another.

An encoding with a colour format (mono, rgb, bgr, bayer, yuv422) names what its channels are; a
generic one (8UC3, 16UC1, 32FC1) names only how they are stored.
"""

from dataclasses import dataclass
import re

import cv2
import numpy as np

DEPTHS = {'8U': 'uint8', '8S': 'int8', '16U': 'uint16', '16S': 'int16',
          '32S': 'int32', '32F': 'float32', '64F': 'float64'}
GENERIC = re.compile(r'(8U|8S|16U|16S|32S|32F|64F)(?:C([0-9]+))?')
CHANNELS = {'mono': 1, 'rgb': 3, 'bgr': 3, 'rgba': 4, 'bgra': 4, 'yuv422': 2, 'yuv422_yuy2': 2,
            'bayer_rggb': 1, 'bayer_bggr': 1, 'bayer_gbrg': 1, 'bayer_grbg': 1}
# OpenCV names a mosaic after its second row's second and third pixel, ROS after its first four.
OPENCV_MOSAIC = {'bayer_rggb': 'BayerBG', 'bayer_bggr': 'BayerRG',
                 'bayer_gbrg': 'BayerGR', 'bayer_grbg': 'BayerGB'}
OPENCV_YUV = {'yuv422': 'UYVY', 'yuv422_yuy2': 'YUY2'}


@dataclass(frozen=True)
class Encoding:
    """
    How an encoding stores its pixels, and what they are.

    :param dtype: of one channel, native byte order.
    :param channels: how many a pixel has.
    :param colour: the colour format (a key of CHANNELS), or None for a generic encoding.
    """

    dtype: np.dtype
    channels: int
    colour: str | None


def parse(name):
    """
    Read an encoding's name.

    :raises ValueError: a name that is no encoding.
    """
    if name in OPENCV_YUV:
        return Encoding(np.dtype(np.uint8), 2, name)
    colour, bits = re.fullmatch(r'(.*?)(8|16|)', name).groups()
    if bits and colour in CHANNELS and colour not in OPENCV_YUV:
        return Encoding(np.dtype(f'uint{bits}'), CHANNELS[colour], colour)
    if match := GENERIC.fullmatch(name):
        return Encoding(np.dtype(DEPTHS[match[1]]), int(match[2] or 1), None)
    raise ValueError(f'encoding is {name!r}, wanted one of sensor_msgs/image_encodings.hpp')


def colour_conversion(source, target):
    """
    Return OpenCV's code for the way from one colour format to another.

    :raises ValueError: there is no such way.
    """
    if source in OPENCV_MOSAIC:
        known = target in ('mono', 'rgb', 'bgr')
        name = f'COLOR_{OPENCV_MOSAIC[source]}2'
    elif source in OPENCV_YUV:
        known = target in ('mono', 'rgb', 'bgr', 'rgba', 'bgra')
        name = f'COLOR_YUV2{{}}_{OPENCV_YUV[source]}'
    else:
        known = target in ('mono', 'rgb', 'bgr', 'rgba', 'bgra')
        name = f'COLOR_{"GRAY" if source == "mono" else source.upper()}2'
    if not known:
        raise ValueError(f'target encoding is {target}, which {source} cannot become')
    target = 'GRAY' if target == 'mono' else target.upper()
    return getattr(cv2, name.format(target) if '{}' in name else name + target)


def rescale(image, dtype):
    """
    Store an image in another depth.

    Between 8 and 16 bits the whole range maps to the whole range; otherwise values stay, rounded
    half to even and saturated. NaN becomes the lowest integer.
    """
    bits = image.dtype.itemsize * 8, dtype.itemsize * 8
    factor = {(8, 16): 257.0, (16, 8): 1 / 257.0}.get(bits, 1.0)
    if dtype.kind == 'f':
        return (image * factor).astype(dtype)
    limits = np.iinfo(dtype)
    values = np.rint(image * np.float64(factor))
    values[np.isnan(values)] = limits.min
    return values.clip(limits.min, limits.max).astype(dtype)


def convert(image, source_name, target_name):
    """
    Convert an image, (H, W) or (H, W, C), from one encoding to another.

    A generic encoding can become another generic one with as many channels, never a colour; a
    colour can become both.

    :raises ValueError: an unknown encoding, or a way that makes no sense.
    """
    if source_name == target_name:
        return None if image is None else image.copy()
    if image is None:
        raise ValueError(f'there is no image to turn from {source_name} into {target_name}')
    source, target = parse(source_name), parse(target_name)
    if source.colour is None and target.colour is not None:
        raise ValueError(f'{source_name} has no colour format, so it cannot become {target_name}')
    if source.colour is None or target.colour is None:
        if source.channels != target.channels:
            raise ValueError(f'{source_name} has {source.channels} channels, but {target_name} '
                             f'has {target.channels}')
        return rescale(image, target.dtype)
    if source.colour == target.colour and source.colour not in OPENCV_MOSAIC:
        return rescale(image, target.dtype)
    try:
        image = cv2.cvtColor(image, colour_conversion(source.colour, target.colour))
    except cv2.error as error:
        raise ValueError(f'OpenCV cannot turn this image from {source_name} into {target_name}: '
                         f'{error}') from error
    return image if source.dtype == target.dtype else rescale(image, target.dtype)
