# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Image messages out of arrays.

They are filled through array.array: given bytes, the setter would take twenty times longer.
"""

from __future__ import annotations

from array import array
import sys

import numpy as np
from sensor_msgs.msg import Image
from std_msgs.msg import Header


def image_message(pixels: np.ndarray, encoding: str, header: Header) -> Image:
    """
    Return pixels as an Image.

    :param pixels: (H, W) or (H, W, C), of the encoding's type, in this machine's byte order.
    """
    height, width = pixels.shape[:2]
    return Image(header=header, height=height, width=width, encoding=encoding,
                 is_bigendian=sys.byteorder == 'big', step=pixels.nbytes // height,
                 data=array_of_bytes(pixels))


def array_of_bytes(values: np.ndarray) -> array:
    """Return an array's bytes in the form that messages take without a copy of each."""
    data = array('B')
    data.frombytes(memoryview(np.ascontiguousarray(values)).cast('B'))
    return data
