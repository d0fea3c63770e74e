# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
from array import array

from builtin_interfaces.msg import Time
import cv2
from cv_bridge import CvBridge
from depthvlm_ros.camera import Calibration, Intrinsics, Roi
from depthvlm_ros.geometry import organised_points
from depthvlm_ros.nodes.conversions import (
    calibration_from_info,
    check_told_size,
    cloud,
    colour_picture,
    depth_image,
    image_size,
    info_from_intrinsics,
    rgb_from_compressed,
    rgb_from_image,
)
import numpy as np
import pytest
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from sensor_msgs_py import point_cloud2
from std_msgs.msg import Header

pytestmark = pytest.mark.ros

HEADER = Header(stamp=Time(sec=3, nanosec=4), frame_id='optical')
RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
CAMERA = Intrinsics(7, 5, 10.0, 11.0, 3.2, 1.7)


def message(pixels, encoding, padding=0):
    """Return an image message, with some bytes behind each row."""
    rows = pixels.reshape(len(pixels), -1).view(np.uint8)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    return Image(header=HEADER, height=pixels.shape[0], width=pixels.shape[1], encoding=encoding,
                 step=rows.shape[1], data=array('B', rows.tobytes()))


@pytest.mark.parametrize('padding', [0, 5])
@pytest.mark.parametrize(('encoding', 'pixels'), [
    ('rgb8', RGB), ('bgr8', RGB[..., ::-1]), ('8UC3', RGB[..., ::-1]),
    ('rgba8', np.dstack([RGB, RGB[..., 0]])),
    ('bgra8', np.dstack([RGB[..., ::-1], RGB[..., 0]])),
    ('8UC4', np.dstack([RGB[..., ::-1], RGB[..., 0]]))])
def test_colour_encodings_become_rgb(encoding, pixels, padding):
    rgb = rgb_from_image(message(np.ascontiguousarray(pixels), encoding, padding))
    assert rgb.dtype == np.uint8
    assert rgb.flags.c_contiguous
    np.testing.assert_array_equal(rgb, RGB)


@pytest.mark.parametrize('encoding', ['mono8', '8UC1'])
def test_grey_becomes_rgb(encoding):
    grey = RGB[..., 0].copy()
    np.testing.assert_array_equal(
        rgb_from_image(message(grey, encoding)), np.dstack([grey] * 3))


@pytest.mark.parametrize(('changed', 'named'), [
    ({'data': array('B', b'123')}, '3 bytes, wanted step x height = 105'),
    ({'height': 0}, '7 x 0, wanted 1 to'), ({'width': 10**6}, '1000000 x 5'),
    ({'step': 3, 'data': array('B', bytes(15))}, 'a row of 7 pixels of rgb8 is 3 bytes'),
    ({'step': 10, 'data': array('B', bytes(50))}, 'wanted at least 21'),
    ({'encoding': ''}, "encoding ''"), ({'encoding': 'smell8'}, "encoding 'smell8'"),
    ({'encoding': '32FC1'}, "encoding '32FC1'")])
def test_images_that_cannot_be_used_are_named(changed, named):
    broken = message(RGB, 'rgb8')
    for name, value in changed.items():
        setattr(broken, name, value)
    with pytest.raises(ValueError, match=named):
        rgb_from_image(broken)


def compressed(kind, pixels):
    data = cv2.imencode(f'.{kind}', pixels)[1].tobytes()
    return CompressedImage(header=HEADER, format=kind, data=array('B', data))


def test_png_and_jpeg_become_rgb():
    np.testing.assert_array_equal(rgb_from_compressed(compressed('png', RGB[..., ::-1])), RGB)
    smooth = np.full((16, 24, 3), (200, 100, 50), np.uint8)
    rgb = rgb_from_compressed(compressed('jpg', smooth[..., ::-1]))
    np.testing.assert_allclose(rgb.astype(int), smooth.astype(int), atol=3)


@pytest.mark.parametrize('data', [b'', b'nonsense', compressed('png', RGB).data.tobytes()[:40]])
def test_compressed_images_that_cannot_be_read_are_named(data):
    with pytest.raises(ValueError, match='cannot be read'):
        rgb_from_compressed(CompressedImage(format='jpeg', data=array('B', data)))


def test_the_size_that_an_image_tells_is_held_against_its_calibration():
    calibration = calibration_from_info(info_from_intrinsics(CAMERA, HEADER))
    png = compressed('png', RGB)
    for told in (message(RGB, 'rgb8'), png):
        assert image_size(told) == (5, 7)
        check_told_size(told, calibration)
    for told in (message(RGB[:4], 'rgb8'), compressed('png', RGB[:4])):
        with pytest.raises(ValueError, match='image is 7 x 4 px, but camera_info is for 7 x 5'):
            check_told_size(told, calibration)
    png.data = png.data[:10]
    with pytest.raises(ValueError, match=r"a compressed image \('png', 10 bytes\) cannot be read"):
        image_size(png)


def test_depth_in_metres_keeps_nan():
    depth_m = np.array([[1.5, np.nan, 0.25]], np.float32)
    image = depth_image(depth_m, '32FC1', HEADER)
    assert (image.header, image.encoding, image.step) == (HEADER, '32FC1', 12)
    np.testing.assert_array_equal(CvBridge().imgmsg_to_cv2(image), depth_m)


def test_depth_in_millimetres_has_0_for_what_is_not_known_or_too_far():
    depth_m = np.array([[1.5, np.nan, 0.0006, 65.535, 65.536, 1000.0, np.inf]], np.float32)
    image = depth_image(depth_m, '16UC1', HEADER)
    np.testing.assert_array_equal(
        CvBridge().imgmsg_to_cv2(image), [[1500, 0, 1, 65535, 0, 0, 0]])


def test_another_depth_encoding_is_refused():
    with pytest.raises(ValueError, match="'8UC1', wanted '32FC1' or '16UC1'"):
        depth_image(np.ones((1, 1)), '8UC1', HEADER)


def test_the_picture_for_people():
    depth_m = np.linspace(1, 5, 35, dtype=np.float32).reshape(5, 7)
    depth_m[4, 6] = np.nan
    picture = CvBridge().imgmsg_to_cv2(colour_picture(depth_m, HEADER))
    assert picture.shape == (5, 7, 3)
    assert (picture[4, 6] == 0).all()
    blue, red = 0, 2
    assert picture[0, 0, red] > picture[0, 0, blue], 'near is red'
    assert picture[4, 4, blue] > picture[4, 4, red], 'far is blue'
    nothing = CvBridge().imgmsg_to_cv2(colour_picture(np.full((2, 3), np.nan), HEADER))
    assert not nothing.any()


def test_the_picture_spreads_its_colours_evenly_over_inverse_depth():
    depth_m = np.random.default_rng(2).uniform(0.5, 6, (60, 80)).astype(np.float32)
    depth_m[::3, 5] = np.nan
    sample_m = [depth_m[v, u] for v in range(0, 60, 4) for u in range(0, 80, 4)
                if not np.isnan(depth_m[v, u])]
    near, far = (1 / np.percentile(sample_m, share) for share in (2, 98))
    share = np.clip((1 / depth_m - far) / (near - far), 0, 1)
    turbo = cv2.applyColorMap(np.arange(256, dtype=np.uint8), cv2.COLORMAP_TURBO)[:, 0].astype(int)
    picture = CvBridge().imgmsg_to_cv2(colour_picture(depth_m, HEADER))
    for v, u in np.argwhere(~np.isnan(depth_m)):
        near_by = (int(share[v, u] * 255 - 0.01), int(share[v, u] * 255 + 0.01))
        assert any((picture[v, u] == turbo[level]).all() for level in near_by)
    assert (picture[::3, 5] == 0).all()


def test_the_picture_of_a_wall_has_one_colour():
    picture = CvBridge().imgmsg_to_cv2(colour_picture(np.full((8, 8), 2.0, np.float32), HEADER))
    assert (picture == picture[0, 0]).all() and picture.any()


@pytest.mark.parametrize('stride', [1, 2])
def test_the_cloud_reads_back_as_the_unprojected_depth(stride):
    depth_m = np.random.default_rng(1).uniform(0.5, 5, (5, 7)).astype(np.float32)
    depth_m[2, 4] = np.nan
    sent = cloud(depth_m, RGB, CAMERA, HEADER, stride)
    got = deserialize_message(serialize_message(sent), PointCloud2)
    expected = organised_points(depth_m, CAMERA)[::stride, ::stride]
    assert (got.height, got.width) == expected.shape[:2]
    assert (got.point_step, got.row_step) == (32, 32 * got.width)
    assert (got.is_dense, got.is_bigendian, got.header) == (False, False, HEADER)
    points = point_cloud2.read_points(got)
    for i, name in enumerate('xyz'):
        np.testing.assert_array_equal(points[name].reshape(expected.shape[:2]), expected[..., i])
    packed = np.ascontiguousarray(points['rgb']).view(np.uint32)
    np.testing.assert_array_equal(packed >> 16 & 255, RGB[::stride, ::stride, 0].ravel())
    np.testing.assert_array_equal(packed >> 8 & 255, RGB[::stride, ::stride, 1].ravel())
    np.testing.assert_array_equal(packed & 255, RGB[::stride, ::stride, 2].ravel())
    np.testing.assert_array_equal(packed >> 24, 0)


def test_info_of_intrinsics_is_a_plain_camera():
    info = info_from_intrinsics(CAMERA, HEADER)
    assert info.header == HEADER
    calibration = calibration_from_info(info)
    assert calibration.intrinsics == CAMERA
    assert calibration.rectification() is None
    assert (info.distortion_model, list(info.d)) == ('plumb_bob', [0.0] * 5)
    assert list(info.p) == [10, 0, 3.2, 0, 0, 11, 1.7, 0, 0, 0, 1, 0]


def test_all_numbers_of_an_info_are_taken():
    info = CameraInfo(
        width=320, height=240, distortion_model='plumb_bob', d=[0.1, 0.2, 0.3, 0.4, 0.5],
        k=[300.0, 0.0, 161.0, 0.0, 310.0, 118.0, 0.0, 0.0, 1.0],
        r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        p=[280.0, 0.0, 158.0, 0.0, 0.0, 285.0, 121.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        binning_x=2, binning_y=4)
    roi = info.roi
    roi.x_offset, roi.y_offset, roi.width, roi.height = 40, 20, 200, 160
    assert calibration_from_info(info) == Calibration(
        320, 240, 'plumb_bob', info.d, info.k, info.r, info.p, 2, 4, Roi(40, 20, 200, 160))
    with pytest.raises(ValueError, match='uncalibrated'):
        calibration_from_info(CameraInfo(width=3, height=2))
