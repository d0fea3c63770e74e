# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
import math

from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.spatial import (
    distances_m,
    measure_box,
    measure_pixel,
    names_coordinates,
    Place,
    read_places,
    references_in,
)
import numpy as np
import pytest

CAMERA = Intrinsics(100, 80, 90.0, 95.0, 48.0, 41.0)


def wall(depth_m=2.0):
    return np.full((80, 100), depth_m, np.float32)


def every_pixel_another_depth():
    return np.random.default_rng(5).permutation(np.linspace(1, 9, 8000, dtype=np.float32)).reshape(
        80, 100)


@pytest.mark.parametrize('text', [
    '{"point_2d": [500, 250], "label": "red box"}',
    '[{"point_2d": [500, 250], "label": "red box"}]',
    '```json\n[\n\t{"point_2d": [500, 250], "label": "red box"}\n]\n```',
    'It is here: {"label": "red box", "point_2d": [500.0, 250]}. Do you see it?',
])
def test_a_point_is_read_however_it_is_wrapped(text):
    assert read_places(text) == [Place('red box', (500.0, 250.0), None)]


def test_several_places_keep_their_order():
    text = ('[{"bbox_2d": [10, 20, 30, 40], "label": "a"}, {"point_2d": [1, 2]}]\n'
            '{"point_2d": [3, 4], "label": "c"}')
    assert read_places(text) == [
        Place('a', None, (10.0, 20.0, 30.0, 40.0)),
        Place('', (1.0, 2.0), None),
        Place('c', (3.0, 4.0), None)]


@pytest.mark.parametrize('text', [
    '', 'The box is 2 m away.', 'Between [3, 4] and {so on}.', '{}', '[]', '[[1, 2]]',
    '{"label": "nothing"}',
    '[{"point_2d": [500, 250], "label": "a"}, {"point_',
    '[{"point_2d": [500, 250]}, {"point_2d": [500]}]',
    '{"point_2d": [500, 1001]}', '{"point_2d": [-1, 10]}', '{"point_2d": [NaN, 10]}',
    '{"point_2d": [1e999, 10]}', '{"point_2d": ["5", 10]}', '{"point_2d": [true, 10]}',
    '{"point_2d": "500, 250"}', '{"point_2d": [1, 2], "label": 3}',
    '{"bbox_2d": [30, 20, 10, 40]}', '{"bbox_2d": [10, 20, 10, 40]}',
    '{"bbox_2d": [10, 40, 30, 20]}', '{"bbox_2d": [10, 20, 30, 20]}',
    '{"bbox_2d": [10, 20, 30, 40], "point_2d": [1, 2]}',
    '{"point_2d": [1, 2]', '{"a":' * 100000, '[{' * 50000, '{"point_2d": [' + '9' * 5000 + ', 1]}',
])
def test_what_cannot_be_read_gives_no_places(text):
    assert read_places(text) == []
    assert references_in(text, wall(), CAMERA) == []


def test_pointing_is_noticed_even_where_it_cannot_be_read():
    assert names_coordinates('[{"point_2d": [1')
    assert names_coordinates('{"bbox_2d": 3}')
    assert names_coordinates("[{'point_2d': [120, 340], 'label': 'x'}]")
    assert not names_coordinates('a point in 2d')


def test_a_pixel_on_a_wall():
    reference = measure_pixel(wall(), CAMERA, 48.0, 41.0, 'wall')
    assert (reference.label, reference.u, reference.v, reference.box) == ('wall', 48, 41, None)
    assert reference.depth_m == 2.0
    assert reference.depth_spread_m == 0.0
    assert reference.point_m == (0.0, 0.0, 2.0)
    assert reference.valid


def test_the_point_is_the_exact_pixels_not_the_nearest_centres():
    reference = measure_pixel(wall(), CAMERA, 48.3, 40.6)
    np.testing.assert_allclose(reference.point_m, [0.3 / 90 * 2, -0.4 / 95 * 2, 2.0])


def test_depth_of_a_pixel_ignores_outliers_and_nan():
    depth_m = wall()
    depth_m[41, 48] = 90.0
    depth_m[40, 47:50] = np.nan
    reference = measure_pixel(depth_m, CAMERA, 48, 41)
    assert reference.depth_m == 2.0
    assert reference.valid


@pytest.mark.parametrize('u', [-0.5, 0, 1.4, 2.5, 50.5, 96.6, 98, 99.4])
@pytest.mark.parametrize('v', [-0.5, 1.5, 30.49, 77.4, 79.4])
def test_depth_of_a_pixel_is_the_median_of_the_five_by_five_around_it(u, v):
    depth_m = every_pixel_another_depth()
    column, row = math.floor(u + 0.5), math.floor(v + 0.5)
    around = [depth_m[y, x] for y in range(80) for x in range(100)
              if abs(y - row) <= 2 and abs(x - column) <= 2]
    reference = measure_pixel(depth_m, CAMERA, u, v)
    assert reference.depth_m == pytest.approx(np.median(around), rel=1e-6)
    assert reference.depth_spread_m == pytest.approx(
        1.4826 * np.median(np.abs(np.array(around, float) - np.median(around))), rel=1e-5)


def test_spread_is_the_standard_deviation_of_noise():
    depth_m = wall() + np.random.default_rng(3).normal(0, 0.05, (80, 100)).astype(np.float32)
    reference = measure_box(depth_m, CAMERA, (10, 10, 90, 70))
    assert reference.depth_m == pytest.approx(2.0, abs=0.01)
    assert reference.depth_spread_m == pytest.approx(0.05, rel=0.1)


def test_a_hole_has_no_depth():
    depth_m = wall()
    depth_m[30:50, 40:60] = np.nan
    reference = measure_pixel(depth_m, CAMERA, 50, 40)
    assert math.isnan(reference.depth_m)
    assert math.isnan(reference.depth_spread_m)
    assert all(math.isnan(value) for value in reference.point_m)
    assert not reference.valid


def test_a_place_with_little_depth_is_not_valid():
    depth_m = np.full((80, 100), np.nan, np.float32)
    depth_m[40, 49] = 3.0
    reference = measure_pixel(depth_m, CAMERA, 50, 40)
    assert reference.depth_m == 3.0
    assert not reference.valid


@pytest.mark.parametrize(('holes', 'valid'), [(2, True), (3, False)])
def test_a_place_is_valid_from_half_of_its_pixels_on(holes, valid):
    depth_m = wall()
    depth_m[40, 50:50 + holes] = np.nan
    assert measure_box(depth_m, CAMERA, (48.5, 39, 54.5, 41)).valid == valid   # its middle: 4 px


@pytest.mark.parametrize('pixel', [
    (-0.51, 5), (99.5, 5), (5, -0.6), (5, 79.5), (math.nan, 5), (5, math.inf)])
def test_a_pixel_outside_is_refused(pixel):
    with pytest.raises(ValueError, match='outside the depth image, wanted u'):
        measure_pixel(wall(), CAMERA, *pixel)


def test_the_refusal_of_a_pixel_says_where_the_image_ends():
    with pytest.raises(ValueError, match=(
            r'pixel \(u=99.5, v=3\) .* wanted u in \[-0.5, 99.5\) and v in \[-0.5, 79.5\)')):
        measure_pixel(wall(), CAMERA, 99.5, 3)


@pytest.mark.parametrize('pixel', [(-0.5, -0.5), (99.49, 79.49), (0, 79), (99, 0)])
def test_pixels_at_the_border_are_inside(pixel):
    assert measure_pixel(wall(), CAMERA, *pixel).depth_m == 2.0


def test_a_box_is_measured_in_its_middle():
    depth_m = wall(5.0)
    depth_m[28:53, 38:63] = 1.5  # what the box is around fills five eighths of each side
    reference = measure_box(depth_m, CAMERA, (30, 20, 70, 60), 'ball')
    assert (reference.u, reference.v) == (50.0, 40.0)
    assert reference.box == (30.0, 20.0, 70.0, 60.0)
    assert reference.depth_m == 1.5
    np.testing.assert_allclose(reference.point_m, [2 / 90 * 1.5, -1 / 95 * 1.5, 1.5])
    assert reference.valid


@pytest.mark.parametrize('box', [
    (30, 20, 70, 60), (-0.5, -0.5, 99.5, 79.5), (3.2, 5.9, 11.7, 9.1), (90.5, 70.5, 99.5, 79.5),
    (0, 0, 4, 8), (10, 60, 90, 61.5)])
def test_depth_of_a_box_is_the_median_of_the_middle_half_of_each_side(box):
    depth_m = every_pixel_another_depth()
    u, v = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    middle = [depth_m[y, x] for y in range(80) for x in range(100)
              if abs(x - u) <= (box[2] - box[0]) / 4 and abs(y - v) <= (box[3] - box[1]) / 4]
    reference = measure_box(depth_m, CAMERA, box)
    assert (reference.u, reference.v, reference.box) == (u, v, box)
    assert reference.depth_m == pytest.approx(np.median(middle), rel=1e-6)


def test_a_box_between_pixel_centres_takes_the_nearest():
    depth_m = wall()
    depth_m[10, 20] = 7.0
    assert measure_box(depth_m, CAMERA, (20.1, 10.1, 20.3, 10.3)).depth_m == 7.0


@pytest.mark.parametrize('box', [
    (1, 2, 3), (5, 5, 5, 9), (5, 9, 9, 5), (5, 9, 9, 9), (-0.6, 0, 5, 5), (0, -0.6, 5, 5),
    (0, 0, 99.6, 5), (0, 0, 5, 79.6), (0, 0, math.nan, 5)])
def test_what_is_no_box_in_the_image_is_refused(box):
    with pytest.raises(ValueError, match=(
            'no box in the depth image, wanted .* '
            '-0.5 <= u_min < u_max <= 99.5 and -0.5 <= v_min < v_max <= 79.5')):
        measure_box(wall(), CAMERA, box)


def test_references_turn_thousandths_into_pixels():
    text = ('[{"point_2d": [500, 500], "label": "p"}, {"point_2d": [1000, 0]},'
            ' {"point_2d": [0, 1000]}, {"bbox_2d": [0, 0, 1000, 1000], "label": "all"}]')
    middle, right, bottom, everything = references_in(text, wall(), CAMERA)
    assert (middle.label, middle.u, middle.v) == ('p', 49.5, 39.5)
    assert (right.u, right.v) == (99.0, -0.5)
    assert (bottom.u, bottom.v) == (-0.5, 79.0)
    assert everything.box == (-0.5, -0.5, 99.5, 79.5)
    assert everything.depth_m == 2.0


@pytest.mark.parametrize('text', [
    '{"bbox_2d": [0, 0, 1e-300, 500]}', '{"bbox_2d": [10, 999.9999999999999, 20, 1000]}'])
def test_a_box_too_thin_for_pixels_never_raises(text):
    assert len(references_in(text, wall(), CAMERA)) <= 1


def test_a_label_with_half_a_character_can_be_written():
    place, = read_places('{"point_2d": [500, 250], "label": "\\ud83d"}')
    assert place.label.encode('utf-8') == b'?'


def test_distances_run_straight_from_each_place_to_the_next():
    depth_m = wall()
    depth_m[60:, :] = np.nan
    places = [measure_pixel(depth_m, CAMERA, u, v) for u, v in (
        (48.0, 41.0), (93.0, 41.0), (48.0, 70.0), (48.0, 3.0), (48.0, 41.0))]
    distances = distances_m(places)
    np.testing.assert_allclose(distances, [1.0, np.nan, np.nan, 0.8])
    assert distances_m(places[:1]) == distances_m([]) == []


def test_a_distance_needs_both_ends_valid_even_if_both_have_a_depth():
    depth_m = wall()
    depth_m[41, 94:97] = depth_m[39:41, 91:97] = depth_m[42:, 91:97] = np.nan
    one, other = (measure_pixel(depth_m, CAMERA, u, 41.0) for u in (48.0, 93.0))
    assert other.depth_m == 2.0 and not other.valid
    assert all(math.isnan(distance) for distance in distances_m([one, other, one]))


def test_depth_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r'\(100, 80\)'):
        measure_pixel(wall().T, CAMERA, 1, 1)
