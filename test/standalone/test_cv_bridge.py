# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What cv_bridge does, be it the real one or the stand-in."""

import array
from importlib.util import find_spec

import cv2
from cv_bridge import CvBridge, CvBridgeError
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

pytestmark = pytest.mark.ros

# One pixel of pure colour a row, in the channel order of the encoding.
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
RGB = np.array([[RED] * 3, [GREEN] * 3, [BLUE] * 3], np.uint8)


def message(image, encoding, padding=0):
    """Return an Image whose rows end in bytes that are no pixels."""
    height, width = image.shape[:2]
    rows = np.frombuffer(image.tobytes(), np.uint8).reshape(height, -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    result = Image(height=height, width=width, encoding=encoding, step=rows.shape[1],
                   is_bigendian=int(image.dtype.byteorder == '>'))
    result.data = array.array('B', rows.tobytes())
    return result


@pytest.mark.parametrize(('encoding', 'dtype', 'channels'), [
    ('mono8', 'uint8', 1), ('mono16', 'uint16', 1), ('rgb8', 'uint8', 3), ('bgr8', 'uint8', 3),
    ('rgba8', 'uint8', 4), ('bgra8', 'uint8', 4), ('rgb16', 'uint16', 3), ('8UC1', 'uint8', 1),
    ('8UC3', 'uint8', 3), ('8SC2', 'int8', 2), ('16UC1', 'uint16', 1), ('16SC1', 'int16', 1),
    ('32SC1', 'int32', 1), ('32FC1', 'float32', 1), ('64FC4', 'float64', 4),
    ('bayer_rggb8', 'uint8', 1), ('bayer_gbrg16', 'uint16', 1), ('yuv422', 'uint8', 2),
    ('yuv422_yuy2', 'uint8', 2)])
def test_an_encoding_is_stored_as_sensor_msgs_says(encoding, dtype, channels):
    assert CvBridge().encoding_to_dtype_with_channels(encoding) == (dtype, channels)
    shape = (4, 6) if channels == 1 else (4, 6, channels)
    image = np.random.default_rng(1).integers(0, 100, shape).astype(dtype)
    read = CvBridge().imgmsg_to_cv2(message(image, encoding))
    assert read.dtype == image.dtype
    np.testing.assert_array_equal(read, image)
    written = CvBridge().cv2_to_imgmsg(image, encoding)
    assert (written.encoding, written.height, written.width) == (encoding, 4, 6)
    assert written.step == 6 * channels * image.dtype.itemsize
    assert written.data.tobytes() == image.tobytes()


@pytest.mark.parametrize('encoding', ['', 'rgb', 'rgb24', 'RGB8', '8UC', 'mono', '12UC1', 'jpeg'])
def test_an_unknown_encoding_is_an_error_in_both_directions(encoding):
    with pytest.raises(CvBridgeError):
        CvBridge().imgmsg_to_cv2(message(RGB, encoding))
    with pytest.raises(CvBridgeError):
        CvBridge().cv2_to_imgmsg(RGB, encoding)


def test_padding_at_the_end_of_rows_is_left_out():
    np.testing.assert_array_equal(
        CvBridge().imgmsg_to_cv2(message(RGB, 'rgb8', padding=6), 'rgb8'), RGB)
    grey = np.arange(20, dtype=np.uint8).reshape(4, 5)
    read = CvBridge().imgmsg_to_cv2(message(grey, 'mono8', padding=3))
    np.testing.assert_array_equal(read, grey)
    assert read.flags.c_contiguous


def test_missing_data_is_a_type_error():
    short = message(RGB, 'rgb8')
    short.data = short.data[:-1]
    with pytest.raises(TypeError):
        CvBridge().imgmsg_to_cv2(short)


@pytest.mark.skipif(
    np.lib.NumpyVersion(np.__version__) >= '2.0.0' and find_spec('cv_bridge.boost') is not None,
    reason='the real cv_bridge turns byte orders with a method that NumPy 2 has dropped')
@pytest.mark.parametrize('dtype', ['>u2', '>f4'])
def test_big_endian_pixels_come_out_in_native_order(dtype):
    image = np.array([[1, 258], [770, 3]], dtype)
    encoding = {'>u2': '16UC1', '>f4': '32FC1'}[dtype]
    read = CvBridge().imgmsg_to_cv2(message(image, encoding))
    assert read.dtype.isnative
    np.testing.assert_array_equal(read, image.astype(read.dtype))


def test_a_big_endian_array_makes_a_big_endian_message():
    sent = CvBridge().cv2_to_imgmsg(np.array([[1, 258]], '>u2'), '16UC1')
    assert sent.is_bigendian
    assert sent.data.tobytes() == b'\x00\x01\x01\x02'


@pytest.mark.parametrize(('target', 'red'), [
    ('rgb8', (255, 0, 0)), ('bgr8', (0, 0, 255)), ('rgba8', (255, 0, 0, 255)),
    ('bgra8', (0, 0, 255, 255)), ('mono8', 76), ('rgb16', (65535, 0, 0)), ('8UC3', (255, 0, 0)),
    ('bgr16', (0, 0, 65535)), ('mono16', 76 * 257), ('32FC3', (255.0, 0.0, 0.0))])
def test_red_stays_red_from_rgb8(target, red):
    read = CvBridge().imgmsg_to_cv2(message(RGB, 'rgb8'), target)
    np.testing.assert_array_equal(read[0, 0], red)
    assert read.dtype == CvBridge().encoding_to_dtype_with_channels(target)[0]


@pytest.mark.parametrize(('source', 'value', 'target', 'expected'), [
    ('bgr8', (0, 0, 255), 'rgb8', (255, 0, 0)),
    ('bgra8', (0, 0, 255, 9), 'rgb8', (255, 0, 0)),
    ('rgba8', (255, 0, 0, 9), 'bgra8', (0, 0, 255, 9)),
    ('rgba8', (255, 0, 0, 9), 'bgr8', (0, 0, 255)),
    ('mono8', 90, 'rgb8', (90, 90, 90)), ('mono8', 90, 'bgra8', (90, 90, 90, 255)),
    ('mono8', 90, 'mono16', 90 * 257), ('mono8', 90, '8UC1', 90), ('8UC1', 90, '16UC1', 90 * 257),
    ('mono16', 65535, 'mono8', 255), ('mono16', 1000, 'mono8', 4),
    ('mono16', 65535, 'rgb8', (255, 255, 255)), ('rgb16', (65535, 257, 0), 'rgb8', (255, 1, 0)),
    ('16UC1', 1500, '32FC1', 1500.0), ('32FC1', 2.5, '16UC1', 2), ('32FC1', -3.0, '16UC1', 0),
    ('32FC1', 3.5, '8UC1', 4), ('yuv422', (128, 200), 'mono8', 200),
    ('yuv422_yuy2', (200, 128), 'mono8', 200)])
def test_one_colour_from_encoding_to_encoding(source, value, target, expected):
    dtype, channels = CvBridge().encoding_to_dtype_with_channels(source)
    image = np.empty((4, 4) if channels == 1 else (4, 4, channels), dtype)
    image[:] = value
    read = CvBridge().imgmsg_to_cv2(message(image, source), target)
    np.testing.assert_array_equal(read, np.broadcast_to(expected, read.shape))
    assert read.dtype == CvBridge().encoding_to_dtype_with_channels(target)[0]


@pytest.mark.parametrize(('pattern', 'red_at'), [
    ('rggb', (0, 0)), ('bggr', (1, 1)), ('gbrg', (1, 0)), ('grbg', (0, 1))])
@pytest.mark.parametrize('bits', [8, 16])
def test_a_mosaic_of_a_red_wall_is_red(pattern, red_at, bits):
    full = 2**bits - 1
    mosaic = np.zeros((8, 8), f'uint{bits}')
    mosaic[red_at[0]::2, red_at[1]::2] = full
    sent = message(mosaic, f'bayer_{pattern}{bits}')
    np.testing.assert_array_equal(
        CvBridge().imgmsg_to_cv2(sent, 'rgb8')[2:-2, 2:-2], np.full((4, 4, 3), RED))
    np.testing.assert_array_equal(
        CvBridge().imgmsg_to_cv2(sent, 'bgr8')[2:-2, 2:-2], np.full((4, 4, 3), BLUE))


@pytest.mark.parametrize(('source', 'target'), [
    ('8UC3', 'bgr8'), ('8UC1', 'mono8'), ('16UC1', 'mono16'), ('32FC1', 'mono8'),
    ('32FC1', '32FC3'), ('rgb8', '8UC1'), ('rgb8', 'bayer_rggb8'), ('bayer_rggb8', 'rgba8'),
    ('rgb8', 'yuv422'), ('rgb8', 'nonsense')])
def test_a_way_that_makes_no_sense_is_an_error(source, target):
    dtype, channels = CvBridge().encoding_to_dtype_with_channels(source)
    image = np.ones((4, 4) if channels == 1 else (4, 4, channels), dtype)
    with pytest.raises(CvBridgeError):
        CvBridge().imgmsg_to_cv2(message(image, source), target)


def test_an_array_without_an_encoding_is_generic():
    assert CvBridge().cv2_to_imgmsg(RGB).encoding == '8UC3'
    assert CvBridge().cv2_to_imgmsg(np.zeros((2, 3), np.float32)).encoding == '32FC1'
    assert CvBridge().cv2_to_imgmsg(np.zeros((2, 3, 1), np.uint16)).encoding == '16UC1'


def test_an_array_stored_otherwise_than_the_encoding_is_an_error():
    for encoding in ('mono8', 'rgba8', 'rgb16', '32FC3'):
        with pytest.raises(CvBridgeError):
            CvBridge().cv2_to_imgmsg(RGB, encoding)
    with pytest.raises(TypeError):
        CvBridge().cv2_to_imgmsg([[1, 2], [3, 4]])


def test_a_slice_and_a_header_arrive_whole():
    header = Header(frame_id='camera')
    header.stamp.sec, header.stamp.nanosec = 7, 999999999
    sent = CvBridge().cv2_to_imgmsg(RGB[:, ::-1], 'rgb8', header)
    assert sent.header == header
    np.testing.assert_array_equal(CvBridge().imgmsg_to_cv2(sent), RGB[:, ::-1])


def test_a_png_comes_back_as_it_was():
    sent = CvBridge().cv2_to_compressed_imgmsg(RGB, 'png')
    assert sent.format == 'png'
    assert isinstance(sent.data, array.array)
    np.testing.assert_array_equal(CvBridge().compressed_imgmsg_to_cv2(sent), RGB)
    np.testing.assert_array_equal(
        CvBridge().compressed_imgmsg_to_cv2(sent, 'rgb8'), RGB[..., ::-1])


def test_a_jpeg_is_the_default_and_comes_back_nearly():
    grey = np.full((16, 16, 3), 100, np.uint8)
    sent = CvBridge().cv2_to_compressed_imgmsg(grey)
    assert sent.format == 'jpg'
    assert sent.data.tobytes()[:2] == b'\xff\xd8'
    read = CvBridge().compressed_imgmsg_to_cv2(sent, 'bgr8').astype(int)
    assert np.abs(read - grey).max() <= 2


def test_a_compressed_picture_keeps_depth_and_channels_unless_asked():
    deep = np.array([[0, 1000, 65535]], np.uint16)
    sent = CvBridge().cv2_to_compressed_imgmsg(deep, 'png')
    np.testing.assert_array_equal(CvBridge().compressed_imgmsg_to_cv2(sent), deep)
    with_alpha = np.dstack([RGB, np.full((3, 3), 9, np.uint8)])
    sent = CvBridge().cv2_to_compressed_imgmsg(with_alpha, 'png')
    np.testing.assert_array_equal(CvBridge().compressed_imgmsg_to_cv2(sent), with_alpha)


def test_data_that_is_no_picture_gives_none():
    broken = CompressedImage(format='jpeg')
    broken.data = array.array('B', b'no picture at all')
    assert CvBridge().compressed_imgmsg_to_cv2(broken) is None
    with pytest.raises(CvBridgeError):
        CvBridge().compressed_imgmsg_to_cv2(broken, 'rgb8')


def test_opencv_is_one_that_cv_bridge_can_stand_on():
    assert int(cv2.__version__.split('.')[0]) < 5
