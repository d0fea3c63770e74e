# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
from dataclasses import astuple, replace
import math

import cv2
from depthvlm_ros.camera import (
    Calibration,
    check_image_size,
    Intrinsics,
    Rectification,
    Roi,
)
import numpy as np
import pytest

K = (300.0, 0.0, 161.0, 0.0, 310.0, 118.0, 0.0, 0.0, 1.0)
EYE = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
P = (280.0, 0.0, 158.0, 0.0, 0.0, 285.0, 121.0, 0.0, 0.0, 0.0, 1.0, 0.0)
NO_P = (0.0,) * 12
PLUMB_BOB = (-0.25, 0.08, 0.001, -0.0005, 0.0)
RATIONAL = (0.5, -0.2, 0.0005, 0.0002, 0.01, 0.75, -0.15, 0.002)
EQUIDISTANT = (-0.02, 0.004, -0.001, 0.0002)


def calibration(**changed):
    numbers = {'width': 320, 'height': 240, 'distortion_model': 'plumb_bob', 'd': PLUMB_BOB,
               'k': K, 'r': EYE, 'p': P}
    return Calibration(**{**numbers, **changed})


def test_intrinsics_refuse_what_is_no_camera():
    for changed, named in (({'width': 0}, 'width is 0'), ({'height': 2.5}, 'height is 2.5'),
                           ({'fx': -1.0}, 'fx is -1.0'), ({'fy': float('nan')}, 'fy is nan'),
                           ({'cx': float('inf')}, 'cx is inf'),
                           ({'width': float('inf')}, 'width is inf')):
        numbers = {'width': 4, 'height': 3, 'fx': 5.0, 'fy': 5.0, 'cx': 1.5, 'cy': 1.0}
        with pytest.raises(ValueError, match=named):
            Intrinsics(**{**numbers, **changed})


def test_numbers_of_any_type_become_whole_pixels_and_floats():
    camera = Intrinsics(np.int64(4), 3.0, np.float32(5.0), 5, 1, np.float32(1.0))
    assert camera == Intrinsics(4, 3, 5.0, 5.0, 1.0, 1.0)
    assert [type(value) for value in astuple(camera)] == [int] * 2 + [float] * 4
    assert Intrinsics(1, 1, 5.0, 5.0, 0.0, 0.0).width == 1


def test_the_centre_of_an_image_lies_between_its_outermost_pixels():
    assert Intrinsics.centred(5, 4, 7.0) == Intrinsics(5, 4, 7.0, 7.0, 2.0, 1.5)
    assert Intrinsics.centred(5, 4, 7.0, 8.0).fy == 8.0


@pytest.mark.parametrize(('height', 'width'), [
    (1, 1), (1, 16384), (16384, 1), (4096, 16384), (8192, 8192)])
def test_sizes_at_the_limits_are_borne(height, width):
    check_image_size(height, width)


@pytest.mark.parametrize(('height', 'width'), [
    (0, 5), (5, 0), (-1, 5), (1, 16385), (16385, 1), (4097, 16384)])
def test_sizes_beyond_the_limits_are_named(height, width):
    with pytest.raises(ValueError, match=f'the photo is {width} x {height}, wanted'):
        check_image_size(height, width, 'the photo')


def test_crop_and_resize_keep_the_rays():
    camera = Intrinsics(320, 240, 300.0, 310.0, 161.0, 118.0)
    cropped = camera.crop(20, 10, 100, 80)
    assert cropped == Intrinsics(100, 80, 300.0, 310.0, 141.0, 108.0)
    # The image's edges stay where they are in the world.
    resized = camera.resize(160, 480)
    assert (resized.width, resized.height, resized.fx, resized.fy) == (160, 480, 150.0, 620.0)
    for u, u_resized in ((-0.5, -0.5), (319.5, 159.5)):
        assert (u - camera.cx) / camera.fx == pytest.approx(
            (u_resized - resized.cx) / resized.fx)
    for v, v_resized in ((-0.5, -0.5), (239.5, 479.5)):
        assert (v - camera.cy) / camera.fy == pytest.approx(
            (v_resized - resized.cy) / resized.fy)


def test_the_size_at_a_focal_length_scales_each_axis_by_its_own():
    camera = Intrinsics(320, 240, 300.0, 310.0, 161.0, 118.0)
    assert camera.size_at_focal(600.0) == (640, 465)
    assert Intrinsics(5, 7, 2.0, 2.0, 0.0, 0.0).size_at_focal(1.0) == (2, 4), 'half to even'
    assert camera.size_at_focal(0.01) == (1, 1)
    with pytest.raises(ValueError, match='fx is 1e-300 and fy 1.0, wanted longer ones'):
        Intrinsics(5, 7, 1e-300, 1.0, 0.0, 0.0).size_at_focal(1e300)


def test_intrinsics_are_p_or_k_where_p_is_zero():
    assert calibration().intrinsics == Intrinsics(320, 240, 280.0, 285.0, 158.0, 121.0)
    assert calibration(p=NO_P).intrinsics == Intrinsics(320, 240, 300.0, 310.0, 161.0, 118.0)


def test_roi_and_binning_are_folded_in():
    camera = calibration(roi=Roi(40, 20, 200, 160), binning_x=2, binning_y=4)
    assert camera.size == (40, 100)
    assert camera.intrinsics == Intrinsics(
        100, 40, 280 / 2, 285 / 4, (158 - 40) / 2, (121 - 20) / 4)
    assert camera.rectification().map_u.shape == (40, 100)


@pytest.mark.parametrize(('changed', 'named'), [
    ({'k': (0.0,) * 9}, 'uncalibrated'),
    ({'k': (-300.0, *K[1:])}, 'K has focal lengths -300.0'),
    ({'k': (0.0, *K[1:])}, 'K has focal lengths 0.0 and 310.0, wanted positive ones'),
    ({'k': (*K[:4], -310.0, *K[5:])}, 'K has focal lengths 300.0 and -310.0, wanted positive'),
    ({'p': (-280.0, *P[1:])}, 'P has focal lengths -280.0'),
    ({'k': (float('nan'), *K[1:])}, 'k is'),
    ({'d': (float('inf'), 0, 0, 0)}, 'd is'),
    ({'r': EYE[:8]}, 'r has 8 numbers, wanted 9'),
    ({'distortion_model': 'heavy'}, "model is 'heavy', wanted one of"),
    ({'d': (0.1, 0.2)}, 'plumb_bob has 2 coefficients, wanted 4, 5, 8, 12 or 14'),
    ({'d': (*PLUMB_BOB, 0.1)}, 'plumb_bob has 6 coefficients'),
    ({'d': (*EQUIDISTANT, 0.1), 'distortion_model': 'equidistant'},
     'equidistant has 5 coefficients, wanted 4, and zeros behind'),
    ({'width': 0}, 'size is 0 x 240'),
    ({'width': 2**32 - 1}, 'size is 4294967295 x 240, wanted 1 to 16384'),
    ({'width': 16000, 'height': 16000}, 'wanted 67108864 pixels at most'),
    ({'k': (1e-300, *K[1:])}, 'K has focal lengths 1e-300'),
    ({'k': (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)}, 'wanted pixels, 0.01 to'),
    ({'p': (1.0, 0, 0, 0, 0, 1.0, 0, 0, 0, 0, 1.0, 0)}, 'P has focal lengths 1.0'),
    ({'k': (320100.0, *K[1:])}, 'to 1000.0 of the size'),
    ({'k': (*K[:4], 2.3, *K[5:])}, 'K has focal lengths 300.0 and 2.3, wanted pixels'),
    ({'p': (280.0, 0, -1e9, *P[3:])}, 'P has the principal point'),
    ({'p': (280.0, 0, 6401.0, *P[3:])}, 'P has the principal point'),
    ({'r': (2.0, *EYE[1:])}, 'wanted a rotation matrix'),
    ({'r': (1.0, *EYE[1:8], -1.0)}, 'wanted a rotation matrix'),
    ({'r': (1e300,) * 9}, 'wanted a rotation matrix'),
    ({'roi': Roi(300, 0, 100, 100)}, 'outside the calibrated'),
    ({'roi': Roi(40, 20, 0, 0)}, 'outside the calibrated'),
    ({'roi': Roi(0, 0, 2, 2), 'binning_x': 4}, 'binning 4 x 1'),
])
def test_numbers_that_are_no_calibration_are_named(changed, named):
    with pytest.raises(ValueError, match=named):
        calibration(**changed)


@pytest.mark.parametrize('changed', [
    {'k': (3.2, 0, 161, 0, 2.4, 118, 0, 0, 1)},
    {'k': (320000.0, 0, 161, 0, 240000.0, 118, 0, 0, 1)},
    {'p': (280.0, 0, -6400.0, 0, 0, 285.0, 4800.0, 0, 0, 0, 1, 0)},
    {'r': (1.0, 0.0199, *EYE[2:])}, {'r': (0.0,) * 9},
    {'roi': Roi(0, 0, 320, 240)}, {'roi': Roi(0, 0, 2, 2), 'binning_x': 2, 'binning_y': 2}])
def test_numbers_at_the_limits_are_taken(changed):
    calibration(**changed)


def test_of_a_rectified_image_only_the_rectified_camera_counts():
    broken = {'rectified': True, 'd': (math.nan,), 'r': (5.0,) * 9}
    assert calibration(**broken, k=(math.inf,) * 9).intrinsics == calibration().intrinsics
    assert calibration(**broken, p=NO_P).intrinsics == calibration(p=NO_P).intrinsics
    assert calibration(**broken).rectification() is None
    with pytest.raises(ValueError, match='uncalibrated'):
        calibration(**broken, k=(0.0,) * 9, p=NO_P)


@pytest.mark.parametrize('distortion', [
    {'d': ()}, {'d': (0.0,) * 5}, {'d': (0.0,) * 8, 'distortion_model': 'whatever'}])
def test_no_maps_where_nothing_is_distorted(distortion):
    assert calibration(p=NO_P, **distortion).rectification() is None
    assert calibration(**distortion).rectification() is not None, 'P is another camera than K'


@pytest.mark.parametrize(('model', 'sent', 'other', 'meant'), [
    ('plumb_bob', RATIONAL, 'rational_polynomial', RATIONAL),       # as Orbbec's driver sends it
    ('plumb_bob', (*PLUMB_BOB, 0.0), 'plumb_bob', PLUMB_BOB),
    ('plumb_bob', (*PLUMB_BOB, 0.0, 0.0, 0.0), 'plumb_bob', PLUMB_BOB),
    ('rational_polynomial', PLUMB_BOB, 'plumb_bob', PLUMB_BOB),
    ('equidistant', (*EQUIDISTANT, 0.0, 0.0, 0.0, 0.0), 'equidistant', EQUIDISTANT)])
def test_the_number_of_coefficients_decides_and_zeros_behind_do_not_count(
        model, sent, other, meant):
    maps, expected = (calibration(distortion_model=name, d=d).rectification()
                      for name, d in ((model, sent), (other, meant)))
    np.testing.assert_allclose(maps.map_u, expected.map_u, atol=1e-3)
    np.testing.assert_allclose(maps.map_v, expected.map_v, atol=1e-3)


def test_maps_are_cached():
    assert calibration().rectification() is calibration().rectification()


def test_the_maps_of_as_many_cameras_in_turn_are_cached():
    bent = [{'d': (0.1 + number / 100, 0, 0, 0)} for number in range(8)]
    first, again = ([calibration(**d).rectification() for d in bent] for _ in range(2))
    assert all(one is other for one, other in zip(first, again))


@pytest.mark.parametrize(('model', 'd'), [
    ('plumb_bob', PLUMB_BOB), ('rational_polynomial', RATIONAL), ('equidistant', EQUIDISTANT)])
@pytest.mark.parametrize('rotated', [False, True])
def test_maps_lead_each_rectified_pixel_to_where_the_lens_puts_it(model, d, rotated):
    rotation = cv2.Rodrigues(np.array([0.01, -0.02, 0.015]))[0] if rotated else np.eye(3)
    camera = calibration(distortion_model=model, d=d, r=tuple(rotation.ravel()))
    maps = camera.rectification()
    u, v = np.array([20, 160, 300]), np.array([30, 120, 200])
    rays = np.stack([(u - 158) / 280, (v - 121) / 285, np.ones(3)], axis=-1) @ rotation
    raw_matrix, d = np.array(K).reshape(3, 3), np.array(d)
    if model == 'equidistant':
        expected = cv2.fisheye.distortPoints(
            (rays[:, None, :2] / rays[:, None, 2:]), raw_matrix, d)[:, 0]
    else:
        expected = cv2.projectPoints(rays, np.zeros(3), np.zeros(3), raw_matrix, d)[0][:, 0]
    np.testing.assert_allclose(maps.map_u[v, u], expected[:, 0], atol=1e-2)
    np.testing.assert_allclose(maps.map_v[v, u], expected[:, 1], atol=1e-2)


def test_apply_remaps_and_knows_what_the_raw_image_does_not_show():
    # P shows more of the world than K: the rectified image has borders without a picture.
    camera = calibration(d=(), p=(150.0, 0, 161.0, 0, 0, 155.0, 118.0, 0, 0, 0, 1, 0))
    maps = camera.rectification()
    raw = np.full((240, 320, 3), 200, np.uint8)
    rectified = maps.apply(raw)
    assert (rectified[118, 161] == 200).all()
    assert (rectified[0, 0] == 0).all()
    assert maps.valid[118, 161]
    assert not maps.valid[0, 0]
    assert maps.valid.mean() == pytest.approx(0.25, abs=0.01)
    with pytest.raises(ValueError, match='10 x 20, wanted 320 x 240'):
        maps.apply(raw[:20, :10])


def test_a_pixel_is_shown_up_to_the_outer_edges_of_the_outermost_ones():
    u = np.array([[-0.5, -0.51, 2.5], [2.51, 1.0, 0.0], [1.0, 1.0, np.nan]], np.float32)
    v = np.array([[-0.5, 0.0, 2.5], [1.0, 2.51, -0.51], [1.0, np.nan, 1.0]], np.float32)
    np.testing.assert_array_equal(Rectification(u, v).valid, [
        [True, False, True], [False, False, False], [True, False, False]])


@pytest.mark.parametrize(('model', 'd', 'reach'), [
    # Where r (1 + k1 r^2), r (1 + k2 r^4), r (1 + k3 r^6) and their rational likes stop growing.
    ('plumb_bob', (-0.4, 0, 0, 0), (1 / 1.2)**(1 / 2)),
    ('plumb_bob', (0, -0.1, 0, 0), (1 / 0.5)**(1 / 4)),
    ('plumb_bob', (0, 0, 0, 0, -0.05), (1 / 0.35)**(1 / 6)),
    ('rational_polynomial', (0, 0, 0, 0, 0, 0.5, 0, 0), (1 / 0.5)**(1 / 2)),
    ('rational_polynomial', (0, 0, 0, 0, 0, 0, 0.1, 0), (1 / 0.3)**(1 / 4)),
    ('rational_polynomial', (0, 0, 0, 0, 0, 0, 0, 0.05), (1 / 0.25)**(1 / 6)),
    ('equidistant', (-0.3, 0, 0, 0), math.tan((1 / 0.9)**(1 / 2))),
    ('equidistant', (0, -0.2, 0, 0), math.tan((1 / 1.0)**(1 / 4))),
    ('equidistant', (0, 0, -0.2, 0), math.tan((1 / 1.4)**(1 / 6))),
    ('equidistant', (0, 0, 0, -0.2), math.tan((1 / 1.8)**(1 / 8))),
])
def test_a_lens_reaches_to_where_its_polynomial_stops_growing(model, d, reach):
    maps = calibration(distortion_model=model, d=d, k=(40.0, 0, 160.0, 0, 40.0, 120.0, 0, 0, 1),
                       p=(60.0, 0, 160.0, 0, 0, 60.0, 120.0, 0, 0, 0, 1, 0)).rectification()
    shown = np.flatnonzero(maps.valid[120])
    assert (shown[-1] - 160) / 60 == pytest.approx(reach, abs=0.02)
    assert (160 - shown[0]) / 60 == pytest.approx(reach, abs=0.02)


@pytest.mark.parametrize(('model', 'd'), [
    ('plumb_bob', (-0.4, 0.0, 0.0, 0.0, 0.0)),
    ('rational_polynomial', (-0.4, 0.0, 0.0, 0.0, 0.0, 0.01, 0.0, 0.0)),
    ('equidistant', (-0.3, 0.0, 0.0, 0.0))])
def test_nothing_is_shown_from_where_the_polynomials_turn_back(model, d):
    wide = (60.0, 0, 160.0, 0, 0, 60.0, 120.0, 0, 0, 0, 1, 0)
    maps = calibration(distortion_model=model, d=d, p=wide,
                       k=(80.0, 0, 160.0, 0, 80.0, 120.0, 0, 0, 1)).rectification()
    row = maps.valid[120]
    assert 0.2 < row.mean() < 0.95
    assert (np.diff(np.flatnonzero(row)) == 1).all(), 'one stretch, without a ghost beyond'
    assert (np.diff(maps.map_u[120][row]) > 0).all()
    rectified = maps.apply(np.full((240, 320), 200, np.uint8))
    assert not rectified[cv2.dilate(maps.valid.astype(np.uint8), np.ones((3, 3))) == 0].any()


def test_a_camera_that_is_turned_away_shows_nothing_behind_it():
    away = cv2.Rodrigues(np.array([0.0, 2.5, 0.0]))[0]
    for model, d in (('plumb_bob', PLUMB_BOB), ('equidistant', EQUIDISTANT)):
        maps = calibration(distortion_model=model, d=d, r=tuple(away.ravel())).rectification()
        assert not maps.valid.any()
        assert not maps.apply(np.full((240, 320, 3), 200, np.uint8)).any()


def test_calibrations_of_the_same_numbers_are_equal():
    assert calibration() == calibration(k=list(K))
    assert replace(calibration(), binning_x=0) == calibration()
