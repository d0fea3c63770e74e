# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Images between sensor_msgs and OpenCV, as cv_bridge's CvBridge turns them."""

import array

import cv2
from cv_bridge import encodings
import numpy as np
from sensor_msgs.msg import CompressedImage, Image

OPENCV_DEPTHS = {dtype: depth for depth, dtype in encodings.DEPTHS.items()}


class CvBridgeError(TypeError):
    """A message or an image that cannot be turned as asked."""


def _converted(image, source, target):
    try:
        return encodings.convert(image, source, target)
    except ValueError as error:
        raise CvBridgeError(str(error)) from error


class CvBridge:
    """
    Turn image messages into arrays and arrays into image messages.

    Arrays are (H, W) for one channel and (H, W, C) for more. Encodings are named as in
    sensor_msgs/image_encodings.hpp; 'passthrough' leaves things as they are.
    """

    def encoding_to_dtype_with_channels(self, encoding):
        """
        Return how an encoding is stored: its dtype's name, and its number of channels.

        :raises CvBridgeError: an unknown encoding.
        """
        try:
            parsed = encodings.parse(encoding)
        except ValueError as error:
            raise CvBridgeError(str(error)) from error
        return parsed.dtype.name, parsed.channels

    def dtype_with_channels_to_cvtype2(self, dtype, n_channels):
        """Return the generic encoding, such as 8UC3, of a dtype and a number of channels."""
        return f'{OPENCV_DEPTHS[dtype.name]}C{n_channels}'

    def imgmsg_to_cv2(self, img_msg, desired_encoding='passthrough'):
        """
        Return the pixels of an Image, native byte order and without the rows' padding.

        :raises CvBridgeError: an unknown encoding, too little data, or a way between encodings
            that makes no sense.
        """
        name, channels = self.encoding_to_dtype_with_channels(img_msg.encoding)
        stored = np.dtype(name).newbyteorder('>' if img_msg.is_bigendian else '<')
        pixel_size = stored.itemsize * channels
        width = min(img_msg.width, img_msg.step // pixel_size)
        if len(img_msg.data) < img_msg.height * img_msg.step:
            raise CvBridgeError(
                f'data has {len(img_msg.data)} bytes, wanted {img_msg.height} rows of '
                f'{img_msg.step}')
        image = np.ndarray(
            (img_msg.height, width, channels), stored, img_msg.data,
            strides=(img_msg.step, pixel_size, stored.itemsize))
        image = np.ascontiguousarray(image, np.dtype(name))
        if channels == 1:
            image = image[..., 0]
        if desired_encoding == 'passthrough':
            return image
        return _converted(image, img_msg.encoding, desired_encoding)

    def cv2_to_imgmsg(self, cvim, encoding='passthrough', header=None):
        """
        Return an array as an Image.

        :raises TypeError: cvim is no array.
        :raises CvBridgeError: an unknown encoding, or one that is stored otherwise than cvim.
        """
        if not isinstance(cvim, np.ndarray):
            raise TypeError(f'cvim is a {type(cvim).__name__}, wanted a numpy array')
        channels = 1 if cvim.ndim < 3 else cvim.shape[2]
        generic = self.dtype_with_channels_to_cvtype2(cvim.dtype, channels)
        if encoding != 'passthrough':
            wanted = self.encoding_to_dtype_with_channels(encoding)
            if wanted != (cvim.dtype.name, channels):
                raise CvBridgeError(f'encoding is {encoding!r}, but the image is {generic}')
        message = Image(height=cvim.shape[0], width=cvim.shape[1],
                        encoding=generic if encoding == 'passthrough' else encoding,
                        is_bigendian=int(cvim.dtype.byteorder == '>'))
        if header is not None:
            message.header = header
        message.data = array.array('B', cvim.tobytes())
        message.step = len(message.data) // message.height
        return message

    def compressed_imgmsg_to_cv2(self, cmprs_img_msg, desired_encoding='passthrough'):
        """
        Return the pixels of a CompressedImage, which count as bgr8 whatever they are.

        :return: the array, or None where OpenCV cannot decode the data and nothing is converted.
        :raises CvBridgeError: a way from bgr8 that makes no sense.
        """
        data = np.asarray(cmprs_img_msg.data, np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
        if desired_encoding == 'passthrough':
            return image
        return _converted(image, 'bgr8', desired_encoding)

    def cv2_to_compressed_imgmsg(self, cvim, dst_format='jpg'):
        """
        Return an array as a CompressedImage.

        :param dst_format: the file ending of an image format of OpenCV.
        :raises TypeError: cvim is no array.
        """
        if not isinstance(cvim, np.ndarray):
            raise TypeError(f'cvim is a {type(cvim).__name__}, wanted a numpy array')
        message = CompressedImage(format=dst_format)
        message.data = array.array('B', cv2.imencode(f'.{dst_format}', cvim)[1].tobytes())
        return message
