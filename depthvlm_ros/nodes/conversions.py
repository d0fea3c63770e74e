# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Messages to arrays and back.

What arrives is checked here, once: every function refuses a message that it cannot use with a
ValueError that names what was received. What leaves is filled through array.array, which is many
times faster than bytes.
"""

from __future__ import annotations

from array import array
import sys

import cv2
from depthvlm_ros.camera import Calibration, Intrinsics, Roi
from depthvlm_ros.geometry import organised_points
import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import Header

try:
    from cv_bridge import CvBridge, CvBridgeError
except (ImportError, AttributeError) as error:
    raise ImportError(
        f'cv_bridge does not load ({error}); if it is installed, it was built against another '
        f'NumPy or OpenCV than the {np.__version__} and {cv2.__version__} found here (a cv_bridge '
        'built against NumPy 1 needs numpy < 2, and none works with OpenCV 5)') from error

MAX_SIZE_PX = 16384     # an image side beyond this is taken for a broken message
MM_PER_M = 1000.0
MAX_MM = 65535
POINT_STEP = 32         # bytes of a point: x 0, y 4, z 8, rgb 16, and padding as PCL lays it out
POINT_BYTES = np.dtype({'names': ['xyz', 'rgb'], 'formats': ['V12', 'V4'], 'offsets': [0, 16],
                        'itemsize': POINT_STEP})    # copied as bytes, which is fastest
# The type-named encodings carry no colour order; OpenCV's own is meant by custom.
COLOUR_OF_TYPE = {'8UC1': 'mono8', '8UC3': 'bgr8', '8UC4': 'bgra8'}
BYTES_PER_PIXEL = {
    'mono8': 1, '8UC1': 1, 'bayer_rggb8': 1, 'bayer_bggr8': 1, 'bayer_gbrg8': 1, 'bayer_grbg8': 1,
    'mono16': 2, 'yuv422': 2, 'yuv422_yuy2': 2, 'rgb8': 3, 'bgr8': 3, '8UC3': 3, 'rgba8': 4,
    'bgra8': 4, '8UC4': 4}

_bridge = CvBridge()


def rgb_from_image(message: Image) -> np.ndarray:
    """
    Return the image of a sensor_msgs/Image.

    :return: (H, W, 3) uint8.
    :raises ValueError: no colour or grey image, or data that does not fit the header's numbers.
    """
    _check_image(message)
    message = _without_padding(message)
    encoding = COLOUR_OF_TYPE.get(message.encoding)
    try:
        if encoding is None:
            return np.ascontiguousarray(_bridge.imgmsg_to_cv2(message, 'rgb8'))
        pixels = _bridge.imgmsg_to_cv2(message, 'passthrough')
    except (CvBridgeError, cv2.error, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise ValueError(
            f'an image of encoding {message.encoding!r} cannot be read ({error}), wanted a '
            'colour or grey encoding such as rgb8, bgr8 or mono8') from error
    code = {'mono8': cv2.COLOR_GRAY2RGB, 'bgr8': cv2.COLOR_BGR2RGB,
            'bgra8': cv2.COLOR_BGRA2RGB}[encoding]
    return cv2.cvtColor(np.ascontiguousarray(pixels), code)


def rgb_from_compressed(message: CompressedImage) -> np.ndarray:
    """
    Return the image of a sensor_msgs/CompressedImage.

    :return: (H, W, 3) uint8.
    :raises ValueError: data that is no JPEG or PNG picture.
    """
    wanted = f'a compressed image ({message.format!r}, {len(message.data)} bytes) cannot be read'
    if not len(message.data):
        raise ValueError(f'{wanted}: it is empty')
    try:
        pixels = _bridge.compressed_imgmsg_to_cv2(message, 'bgr8')
    except (CvBridgeError, cv2.error, ValueError, TypeError, KeyError, RuntimeError,
            AttributeError) as error:
        raise ValueError(f'{wanted}, wanted JPEG or PNG: {error}') from error
    if pixels is None or pixels.ndim != 3:
        raise ValueError(f'{wanted}, wanted JPEG or PNG')
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def depth_image(depth_m: np.ndarray, encoding: str, header: Header) -> Image:
    """
    Return the message of a depth image, as REP 118 has it.

    :param depth_m: (H, W) float32, metres along the optical axis, NaN invalid.
    :param encoding: '32FC1' for metres with NaN, or '16UC1' for millimetres with 0, which what
        is too far for 16 bits (65.535 m) gets too.
    :raises ValueError: another encoding.
    """
    if encoding == '32FC1':
        return _image(np.asarray(depth_m, '<f4'), encoding, header)
    if encoding == '16UC1':
        depth_mm = np.rint(np.asarray(depth_m, np.float32) * np.float32(MM_PER_M))
        with np.errstate(invalid='ignore'):
            depth_mm = np.where((depth_mm >= 0) & (depth_mm <= MAX_MM), depth_mm, 0)
        return _image(depth_mm.astype('<u2'), encoding, header)
    raise ValueError(f"depth encoding is {encoding!r}, wanted '32FC1' or '16UC1'")


def colour_picture(depth_m: np.ndarray, header: Header) -> Image:
    """
    Return the bgr8 message of a depth image for people: near red, far blue, invalid black.

    Colours are spread over this image's own depths, evenly in inverse depth.

    :param depth_m: (H, W) float32, metres, NaN invalid.
    """
    finite = np.isfinite(depth_m)
    sample_m = depth_m[::4, ::4][finite[::4, ::4]]
    if not sample_m.size:
        return _image(np.zeros((*depth_m.shape, 3), np.uint8), 'bgr8', header)
    near_m, far_m = np.percentile(sample_m, (2, 98))
    scale = np.float32(255 / max(1 / near_m - 1 / far_m, 1e-6))
    with np.errstate(invalid='ignore', divide='ignore'):
        levels = np.clip((1 / depth_m - np.float32(1 / far_m)) * scale, 0, 255)
    levels[~finite] = 0
    picture = cv2.applyColorMap(levels.astype(np.uint8), cv2.COLORMAP_TURBO)
    picture[~finite] = 0
    return _image(picture, 'bgr8', header)


def cloud(depth_m: np.ndarray, rgb: np.ndarray, intrinsics: Intrinsics, header: Header,
          stride: int = 1) -> PointCloud2:
    """
    Return the organised, coloured cloud of a depth image.

    :param depth_m: (H, W) float32, metres along the optical axis, NaN invalid.
    :param rgb: (H, W, 3) uint8.
    :param intrinsics: the depth image's camera.
    :param header: of the image; the points stand in its optical frame.
    :param stride: take every stride-th pixel of every stride-th row.
    :return: height x width as the (strided) image, NaN where depth is.
    """
    points = np.ascontiguousarray(organised_points(depth_m, intrinsics)[::stride, ::stride])
    height, width = points.shape[:2]
    # Red, green and blue in the low three bytes; the high one, alpha, is 0 as PCL has it.
    bgra = cv2.cvtColor(np.ascontiguousarray(rgb[::stride, ::stride]), cv2.COLOR_RGB2BGRA)
    bgr0 = bgra.view('<u4')[..., 0] & np.uint32(0xFFFFFF)
    data = array('B', b'\0') * (height * width * POINT_STEP)    # filled in place: it is large
    rows = np.frombuffer(data, POINT_BYTES)
    rows['xyz'] = points.view('V12').ravel()
    rows['rgb'] = bgr0.view('V4').ravel()
    message = PointCloud2()
    message.header = header
    message.height, message.width = height, width
    message.fields = [
        PointField(name=name, offset=offset, datatype=PointField.FLOAT32, count=1)
        for name, offset in (('x', 0), ('y', 4), ('z', 8), ('rgb', 16))]
    message.is_bigendian = False
    message.point_step, message.row_step = POINT_STEP, POINT_STEP * width
    message.data = data
    message.is_dense = False
    return message


def calibration_from_info(info: CameraInfo) -> Calibration:
    """
    Return a CameraInfo's numbers.

    :raises ValueError: numbers that describe no camera; the text says what to do.
    """
    roi = info.roi
    return Calibration(
        info.width, info.height, info.distortion_model, tuple(info.d), tuple(info.k),
        tuple(info.r), tuple(info.p), info.binning_x, info.binning_y,
        Roi(roi.x_offset, roi.y_offset, roi.width, roi.height))


def info_from_intrinsics(intrinsics: Intrinsics, header: Header) -> CameraInfo:
    """Return the CameraInfo of a rectified image: no distortion, no rotation, P = [K | 0]."""
    info = CameraInfo()
    info.header = header
    info.width, info.height = intrinsics.width, intrinsics.height
    info.distortion_model = 'plumb_bob'
    info.d = [0.0] * 5
    info.k = intrinsics.matrix.ravel().tolist()
    info.r = np.eye(3).ravel().tolist()
    info.p = np.hstack([intrinsics.matrix, np.zeros((3, 1))]).ravel().tolist()
    return info


def _check_image(message: Image) -> None:
    """Check that a message's data is as long as its numbers say."""
    height, width = message.height, message.width
    if not (0 < height <= MAX_SIZE_PX and 0 < width <= MAX_SIZE_PX):
        raise ValueError(
            f'the image is {width} x {height}, wanted 1 to {MAX_SIZE_PX} pixels each way')
    wanted = message.step * height
    if len(message.data) != wanted:
        raise ValueError(
            f'the image has {len(message.data)} bytes, wanted step x height = {wanted}')


def _without_padding(message: Image) -> Image:
    """
    Return the message with rows that are as long as their pixels.

    cv_bridge takes the padding of rows for pixels where it is no multiple of their size.
    """
    pixel_bytes = BYTES_PER_PIXEL.get(message.encoding)
    if pixel_bytes is None:
        return message
    row_bytes = message.width * pixel_bytes
    if message.step < row_bytes:
        raise ValueError(f'a row of {message.width} pixels of {message.encoding} is '
                         f'{message.step} bytes long, wanted at least {row_bytes}')
    if message.step == row_bytes:
        return message
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    return Image(header=message.header, height=message.height, width=message.width,
                 encoding=message.encoding, is_bigendian=message.is_bigendian, step=row_bytes,
                 data=_bytes(rows[:, :row_bytes]))


def _image(pixels: np.ndarray, encoding: str, header: Header) -> Image:
    """Return the message of little-endian pixels, (H, W) or (H, W, C)."""
    message = Image()
    message.header = header
    message.height, message.width = pixels.shape[:2]
    message.encoding = encoding
    message.is_bigendian = 0
    message.step = pixels.nbytes // message.height
    message.data = _bytes(pixels)
    return message


def _bytes(values: np.ndarray) -> array:
    """Return an array's bytes in the form that messages take without a copy per element."""
    data = array('B')
    data.frombytes(memoryview(np.ascontiguousarray(values)).cast('B'))
    return data


assert sys.byteorder == 'little', 'messages are filled from little-endian arrays'
