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
from collections.abc import Callable
import sys

import cv2
from depthvlm_ros.camera import Calibration, Intrinsics, Roi
from depthvlm_ros.geometry import checked_depth, ray_slopes
from depthvlm_ros.nodes.compression import compressed_size, rgb_from_bytes
from depthvlm_ros.nodes.encodings import ENCODINGS, packed_rows
from depthvlm_ros.nodes.filling import array_of_bytes, image_message
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

MM_PER_M = 1000.0
MAX_MM = 65535
POINT_STEP = 32         # bytes of a point: x 0, y 4, z 8, rgb 16, and padding as PCL lays it out
ROWS_AT_ONCE = 16

_bridge = CvBridge()


def rgb_from_image(message: Image) -> np.ndarray:
    """
    Return the image of a sensor_msgs/Image, of any encoding in encodings.ENCODINGS.

    What cv_bridge gets has neither padding, of which it takes bytes for pixels where it is no
    multiple of their size, nor big-endian numbers, which it cannot turn under NumPy 2.

    :return: (H, W, 3) uint8; numbers of 16 bits are scaled to 8, alpha is left out.
    :raises ValueError: no colour or grey image, or data that does not fit the header's numbers.
    """
    height, width = message.height, message.width
    rows = packed_rows(message.data, message.encoding, height, width, message.step,
                       bool(message.is_bigendian))
    kind = ENCODINGS[message.encoding]
    if kind.code is not None:
        pixels = np.ascontiguousarray(rows)
        return cv2.cvtColor(
            pixels if kind.chroma else pixels.reshape(height, width, kind.channels), kind.code)
    whole = rows.size == len(message.data) and not message.is_bigendian
    plain = Image(height=height, width=width, encoding=kind.plain, step=rows.shape[1],
                  data=message.data if whole else array_of_bytes(rows))
    try:
        return np.ascontiguousarray(_bridge.imgmsg_to_cv2(plain, 'rgb8'))
    except (CvBridgeError, cv2.error, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise ValueError(
            f'an image of encoding {message.encoding!r} cannot be read: {error}') from error


def rgb_from_compressed(message: CompressedImage) -> np.ndarray:
    """
    Return the image of a sensor_msgs/CompressedImage.

    :return: (H, W, 3) uint8; numbers of 16 bits are scaled to 8, alpha is left out.
    :raises ValueError: data that is no whole JPEG or PNG picture of a bearable size.
    """
    try:
        return rgb_from_bytes(bytes(message.data), message.format)
    except ValueError as error:
        raise ValueError(_unreadable(message, error)) from error


def image_size(message: Image | CompressedImage) -> tuple[int, int]:
    """
    Return the (height, width) in px that a message tells of, decoding nothing.

    :raises ValueError: a compressed image that tells none.
    """
    if isinstance(message, Image):
        return message.height, message.width
    try:
        return compressed_size(bytes(message.data))
    except ValueError as error:
        raise ValueError(_unreadable(message, error)) from error


def check_told_size(message: Image | CompressedImage, calibration: Calibration) -> None:
    """
    Hold the size that an image tells against that of its calibration, decoding nothing.

    :raises ValueError: they differ, or a compressed image that tells none.
    """
    (height, width), wanted = image_size(message), calibration.size
    if (height, width) != wanted:
        raise ValueError(f'the image is {width} x {height} px, but camera_info is for '
                         f'{wanted[1]} x {wanted[0]}: publish the one of this image')


def depth_image(depth_m: np.ndarray, encoding: str, header: Header) -> Image:
    """
    Return the message of a depth image, as REP 118 has it.

    :param depth_m: (H, W) float32, metres along the optical axis, NaN invalid.
    :param encoding: '32FC1' for metres with NaN, or '16UC1' for millimetres with 0, which what
        is too far for 16 bits (65.535 m) gets too.
    :raises ValueError: another encoding.
    """
    if encoding == '32FC1':
        return image_message(np.asarray(depth_m, '<f4'), encoding, header)
    if encoding == '16UC1':
        depth_mm = np.rint(np.asarray(depth_m, np.float32) * np.float32(MM_PER_M))
        with np.errstate(invalid='ignore'):
            depth_mm = np.where((depth_mm >= 0) & (depth_mm <= MAX_MM), depth_mm, 0)
        return image_message(depth_mm.astype('<u2'), encoding, header)
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
        return image_message(np.zeros((*depth_m.shape, 3), np.uint8), 'bgr8', header)
    near_m, far_m = np.percentile(sample_m, (2, 98))
    scale = np.float32(255 / max(1 / near_m - 1 / far_m, 1e-6))
    with np.errstate(invalid='ignore', divide='ignore'):
        levels = np.clip((1 / depth_m - np.float32(1 / far_m)) * scale, 0, 255)
    levels[~finite] = 0
    picture = cv2.applyColorMap(levels.astype(np.uint8), cv2.COLORMAP_TURBO)
    picture[~finite] = 0
    return image_message(picture, 'bgr8', header)


def cloud(depth_m: np.ndarray, rgb: np.ndarray, intrinsics: Intrinsics, header: Header,
          stride: int = 1, fill: Callable[..., None] | None = None) -> PointCloud2:
    """
    Return the organised, coloured cloud of a depth image.

    :param depth_m: (H, W) float32, metres along the optical axis, NaN invalid.
    :param rgb: (H, W, 3) uint8.
    :param intrinsics: the depth image's camera.
    :param header: of the image; the points stand in its optical frame.
    :param stride: take every stride-th pixel of every stride-th row.
    :param fill: what works out the points, as fill_points, which None means.
    :return: height x width as the (strided) image, NaN where depth is.
    """
    depth_m = checked_depth(depth_m, intrinsics)[::stride, ::stride]
    height, width = depth_m.shape
    x_of_z, y_of_z = (slopes[::stride] for slopes in ray_slopes(intrinsics))
    # Red, green and blue in the low three bytes; the high one, alpha, is 0 as PCL has it.
    bgr0 = cv2.cvtColor(np.ascontiguousarray(rgb[::stride, ::stride]), cv2.COLOR_RGB2BGRA)
    bgr0[..., 3] = 0
    data = array('B', b'\0') * (height * width * POINT_STEP)
    points = np.frombuffer(data, '<f4').reshape(height, width, POINT_STEP // 4)
    (fill or fill_points)(points, depth_m, bgr0.view('<f4')[..., 0], x_of_z, y_of_z)
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


def fill_points(points: np.ndarray, depth_m: np.ndarray, colours: np.ndarray,
                x_of_z: np.ndarray, y_of_z: np.ndarray) -> None:
    """
    Fill the points of a cloud in place, a few rows at a time, which stay in the CPU's cache.

    :param points: (H, W, 8) float32 zeros: x, y, z, 0, rgb, and padding.
    :param depth_m: (H, W) float32, metres along the optical axis, NaN invalid.
    :param colours: (H, W) float32, of which the bytes count.
    :param x_of_z: (W,) float32, of geometry.ray_slopes; y_of_z (H,) likewise.
    """
    for top in range(0, len(points), ROWS_AT_ONCE):
        rows = slice(top, top + ROWS_AT_ONCE)
        part, z_m = points[rows], depth_m[rows]
        np.multiply(z_m, x_of_z, out=part[..., 0])
        np.multiply(z_m, y_of_z[rows, None], out=part[..., 1])
        part[..., 2] = z_m
        part[..., 4] = colours[rows]


def calibration_from_info(info: CameraInfo, rectified: bool = False) -> Calibration:
    """
    Return a CameraInfo's numbers.

    :param rectified: the images are rectified already, see Calibration.
    :raises ValueError: numbers that describe no camera; the text says what to do.
    """
    roi = info.roi
    return Calibration(
        info.width, info.height, info.distortion_model, tuple(info.d), tuple(info.k),
        tuple(info.r), tuple(info.p), info.binning_x, info.binning_y,
        Roi(roi.x_offset, roi.y_offset, roi.width, roi.height), rectified)


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


def _unreadable(message: CompressedImage, error: ValueError) -> str:
    """Return why a compressed image cannot be used."""
    return (f'a compressed image ({message.format[:40]!r}, {len(message.data)} bytes) cannot be '
            f'read: {error}')


assert sys.byteorder == 'little', 'messages are filled from little-endian arrays'
