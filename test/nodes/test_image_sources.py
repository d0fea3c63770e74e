# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Rooms, photos and videos as cameras: pixels, order, sizes, and every refusal."""

from itertools import islice
import math
from pathlib import Path

import cv2
from depthvlm_ros.nodes.calibration_sources import CameraNumbers
from depthvlm_ros.nodes.image_sources import open_source
from depthvlm_ros.synthetic import Pose, Scene
import numpy as np
from PIL import Image as PilImage
import pytest

CALIBRATION = """
image_width: 64
image_height: 48
camera_name: camera
camera_matrix: {rows: 3, cols: 3, data: [50.0, 0, 31.0, 0, 51.0, 23.0, 0, 0, 1]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [-0.1, 0.01, 0.001, 0.002, 0.0]}
rectification_matrix: {rows: 3, cols: 3, data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}
projection_matrix: {rows: 3, cols: 4, data: [48.0, 0, 32.0, 0, 0, 49.0, 24.0, 0, 0, 0, 1, 0]}
"""
FX_600 = CameraNumbers(fx=600.0)


@pytest.fixture
def photo(tmp_path):
    """Save a lossless photo, 64 x 48 px, red left and blue right."""
    path = tmp_path / 'photo.png'
    rgb = np.zeros((48, 64, 3), np.uint8)
    rgb[:, :32, 0] = rgb[:, 32:, 2] = 255
    cv2.imwrite(str(path), rgb[..., ::-1])
    return path


@pytest.fixture
def calibration(tmp_path):
    """Save a calibration of that photo's camera."""
    path = tmp_path / 'calibration.yaml'
    path.write_text(CALIBRATION)
    return path


def save_grey(path, level, size=(48, 64)):
    cv2.imwrite(str(path), np.full((*size, 3), level, np.uint8))


def test_a_photo_keeps_its_colours_and_is_shown_again_and_again(photo):
    source = open_source(str(photo), FX_600)
    frames = list(islice(source.frames(10.0, loop=True), 3))
    assert len(frames) == 3
    assert frames[2].rgb[10, 5].tolist() == [255, 0, 0]
    assert frames[2].rgb[10, 60].tolist() == [0, 0, 255]
    assert frames[0].depth_m is None
    assert len(list(source.frames(10.0, loop=False))) == 1


def test_given_numbers_become_the_calibration(photo):
    intrinsics = open_source(str(photo), FX_600).calibration.intrinsics
    assert (intrinsics.width, intrinsics.height) == (64, 48)
    assert (intrinsics.fx, intrinsics.fy) == (600.0, 600.0)
    assert (intrinsics.cx, intrinsics.cy) == (31.5, 23.5)
    numbers = CameraNumbers(fx=600.0, fy=610.0, cx=30.0, cy=0.0)
    intrinsics = open_source(str(photo), numbers).calibration.intrinsics
    assert (intrinsics.fy, intrinsics.cx, intrinsics.cy) == (610.0, 30.0, 0.0)


def test_a_calibration_file_is_taken_as_it_is(photo, calibration):
    numbers = CameraNumbers(calibration_file=str(calibration))
    found = open_source(str(photo), numbers).calibration
    assert found.k == (50.0, 0, 31.0, 0, 51.0, 23.0, 0, 0, 1)
    assert found.d == (-0.1, 0.01, 0.001, 0.002, 0.0)
    assert found.p == (48.0, 0, 32.0, 0, 0, 49.0, 24.0, 0, 0, 0, 1, 0)
    assert found.distortion_model == 'plumb_bob'


def test_a_smaller_size_scales_image_and_calibration_alike(photo, calibration):
    numbers = CameraNumbers(calibration_file=str(calibration))
    source = open_source(str(photo), numbers, size=(0, 32))
    assert next(source.frames(10.0, loop=False)).rgb.shape == (24, 32, 3)
    assert (source.calibration.width, source.calibration.height) == (32, 24)
    # A point seen at u = 20 of the photo is seen at (20 + 0.5) / 2 - 0.5 of its half.
    x = (20.0 - 31.0) / 50.0
    k = np.reshape(source.calibration.k, (3, 3))
    assert k[0, 0] * x + k[0, 2] == pytest.approx((20.0 + 0.5) / 2 - 0.5)
    p = np.reshape(source.calibration.p, (3, 4))
    assert (p[0, 0], p[1, 1]) == (24.0, 24.5)


def test_exif_gives_the_focal_length_where_nothing_else_does(tmp_path):
    exif = PilImage.Exif()
    exif.get_ifd(0x8769)[0xA405] = 28
    path = tmp_path / 'exif.jpg'
    PilImage.new('RGB', (90, 60)).save(path, exif=exif)
    source = open_source(str(path), CameraNumbers())
    assert source.calibration.k[0] == pytest.approx(28 / 36 * 90)   # 3 : 2, as film is
    assert 'EXIF' in source.words
    assert open_source(str(path), FX_600).calibration.k[0] == 600.0


def test_a_folder_is_shown_in_the_order_of_names(tmp_path):
    for name, level in (('b.png', 20), ('a.png', 10), ('c.bmp', 30)):
        save_grey(tmp_path / name, level)
    (tmp_path / 'notes.txt').write_text('no photo')
    source = open_source(str(tmp_path), FX_600)
    assert [frame.rgb[0, 0, 0] for frame in source.frames(1.0, loop=False)] == [10, 20, 30]
    endless = source.frames(1.0, loop=True)
    assert [frame.rgb[0, 0, 0] for frame in islice(endless, 5)] == [10, 20, 30, 10, 20]


def test_a_folder_of_several_sizes_is_refused_at_the_photo_that_differs(tmp_path):
    save_grey(tmp_path / 'a.png', 10)
    save_grey(tmp_path / 'b.png', 10, size=(50, 64))
    frames = open_source(str(tmp_path), FX_600).frames(1.0, loop=False)
    next(frames)
    with pytest.raises(ValueError, match=r'b\.png has 64 x 50 px, wanted 64 x 48 px'):
        next(frames)


def test_a_video_is_shown_frame_by_frame(tmp_path):
    path = tmp_path / 'video.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 12.0, (64, 48))
    for level in (40, 120, 200):
        writer.write(np.full((48, 64, 3), (0, 0, level), np.uint8))
    writer.release()
    source = open_source(str(path), FX_600)
    assert source.rate_hz == 12.0
    reds = [int(frame.rgb[20, 20, 0]) for frame in source.frames(12.0, loop=False)]
    assert reds == pytest.approx([40, 120, 200], abs=8)
    assert len(list(islice(source.frames(12.0, loop=True), 7))) == 7


def test_a_room_comes_with_its_truth():
    source = open_source('synthetic', CameraNumbers(fx=60.0), size=(48, 64), seed=3, moving=True)
    first, second = islice(source.frames(5.0, loop=True), 2)
    assert not np.array_equal(first.t_world_optical, second.t_world_optical)
    scene = Scene.random(3)
    drawn = scene.render(source.calibration.intrinsics, scene.pose_at(0.2))
    assert np.array_equal(second.rgb, drawn.rgb)
    assert np.array_equal(second.depth_m, drawn.depth_m)
    again = scene.render(source.calibration.intrinsics, Pose(second.t_world_optical))
    assert np.array_equal(again.depth_m, second.depth_m)


def test_a_camera_at_rest_and_its_default_view():
    source = open_source('synthetic', CameraNumbers(), size=(48, 64), seed=3, moving=False)
    first, second = islice(source.frames(5.0, loop=True), 2)
    assert np.array_equal(first.t_world_optical, second.t_world_optical)
    k = source.calibration.intrinsics
    assert 2 * math.atan(k.width / 2 / k.fx) == pytest.approx(math.radians(60))
    assert open_source('synthetic', CameraNumbers()).calibration.size == (480, 640)


@pytest.mark.parametrize('numbers, words', [
    ({'fx': -1.0}, 'fx is -1.0'),
    ({'fx': math.nan}, 'fx is nan'),
    ({'fy': 500.0}, 'wanted fx too'),
    ({'fx': 500.0, 'calibration_file': 'camera.yaml'}, 'wanted one of them'),
    ({'cx': 10.0, 'calibration_file': 'camera.yaml'}, 'wanted one or the other'),
])
def test_numbers_that_make_no_camera(numbers, words):
    with pytest.raises(ValueError, match=words):
        CameraNumbers(**numbers)


def test_a_photo_of_an_unknown_camera_is_refused_with_what_to_give(photo):
    with pytest.raises(ValueError, match=r'focal length in px \(fx\).*calibration_file'):
        open_source(str(photo), CameraNumbers())


@pytest.mark.parametrize('name, content, words', [
    ('missing.jpg', None, r'missing\.jpg.* does not exist'),
    ('n' * 300 + '.jpg', None, 'cannot be looked for: .*too long|does not exist'),
    ('broken.jpg', b'\xff\xd8\xff\xe0 no jpeg', r'broken\.jpg is no photo'),
    ('empty.png', b'', r'empty\.png is no photo'),
    ('broken.mp4', b'no video', r'broken\.mp4 is no video'),
])
def test_a_file_that_cannot_be_shown(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=words):
        open_source(str(tmp_path / name), FX_600)


def test_a_folder_that_cannot_be_looked_into(tmp_path, monkeypatch):
    def refuse(folder):     # root may look into any
        raise PermissionError(13, 'Permission denied', str(folder))
    monkeypatch.setattr(Path, 'iterdir', refuse)
    with pytest.raises(ValueError, match=r'cannot be looked into \(Permission denied\)'):
        open_source(str(tmp_path), FX_600)


def test_a_folder_without_photos(tmp_path):
    with pytest.raises(ValueError, match='holds no photo'):
        open_source(str(tmp_path), FX_600)


@pytest.mark.parametrize('change, words', [
    (('image_width: 64', 'image_width: 640'), r'for 640 x 48 px, wanted .* 64 x 48 px'),
    (('image_width: 64', 'image_width: wide'), "image_width 'wide'"),
    (('camera_matrix:', 'matrix_of_camera:'), 'no camera_matrix'),
    (('[50.0, 0, 31.0,', '[50.0,'), 'camera_matrix .*wanted 9 finite numbers'),
    (('[50.0, 0, 31.0, 0, 51.0, 23.0, 0, 0, 1]', '[0, 0, 0, 0, 0, 0, 0, 0, 0]'), 'uncalibrated'),
    (('[50.0, 0,', '[.nan, 0,'), 'wanted 9 finite numbers'),
    (('model: plumb_bob', 'model: fisheye_eye'), 'fisheye_eye'),
    (('camera_name: camera', '{broken'), 'cannot be read'),
])
def test_a_calibration_that_does_not_fit_is_named(photo, calibration, change, words):
    calibration.write_text(CALIBRATION.replace(*change))
    with pytest.raises(ValueError, match=words) as raised:
        open_source(str(photo), CameraNumbers(calibration_file=str(calibration)))
    assert str(calibration) in str(raised.value)


def test_a_missing_calibration_is_named(photo):
    with pytest.raises(ValueError, match=r'nowhere\.yaml cannot be read'):
        open_source(str(photo), CameraNumbers(calibration_file='nowhere.yaml'))


def test_rooms_refuse_a_calibration_with_distortion(calibration):
    numbers = CameraNumbers(calibration_file=str(calibration))
    with pytest.raises(ValueError, match='wanted none'):
        open_source('synthetic', numbers)
    calibration.write_text(CALIBRATION.replace('[-0.1, 0.01, 0.001, 0.002, 0.0]', '[0, 0, 0, 0]'))
    k = open_source('synthetic', numbers).calibration.intrinsics
    assert (k.width, k.height, k.fx, k.fy, k.cx, k.cy) == (64, 48, 48.0, 49.0, 32.0, 24.0)
    k = open_source('synthetic', numbers, size=(0, 32)).calibration.intrinsics
    assert (k.width, k.height, k.fx, k.cx) == (32, 24, 24.0, 15.75)
