# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0

import json
import math
import pickle

from depthvlm_ros.benchmark import annotations
from depthvlm_ros.benchmark.annotations import (
    dataset_of,
    FIELD_TYPES,
    read_annotations,
    read_depth,
    read_rgb,
    RecordError,
)
from depthvlm_ros.camera import Intrinsics
import numpy as np
from PIL import Image
import pytest


@pytest.mark.parametrize(('file', 'name', 'min_m', 'max_m'), [
    ('argoverse_pixel_depth_test.jsonl', 'Argoverse2', 0.05, 120),
    ('waymo_pixel_depth_test.jsonl', 'Waymo', 0.05, 70),
    ('ddad_pixel_depth_val.jsonl', 'DDAD', 0.05, 120),
    ('nuscenes_pixel_depth_test.jsonl', 'nuScenes', 0.05, 80),
    ('eth3d_pixel_depth_all.jsonl', 'ETH3D', 0.01, 50),
    ('scannetpp_pixel_depth_val.jsonl', 'ScanNet++', 0.001, 10),
    ('sunrgbd_pixel_depth_test.jsonl', 'SUN RGB-D', 0.005, 8),
    ('ibims1_pixel_depth_test.jsonl', 'iBims-1', 0.005, 25),
    ('nyuv2_pixel_depth_test.jsonl', 'NYUv2', 0.005, 10)])
def test_the_released_names_tell_the_nine_datasets(file, name, min_m, max_m):
    dataset = dataset_of(f'/somewhere/annotations/{file}')
    assert (dataset.name, dataset.min_m, dataset.max_m) == (name, min_m, max_m)


def test_a_name_comes_before_its_folders():
    assert dataset_of('/data/waymo/ddad_val.jsonl').name == 'DDAD'
    assert dataset_of('/data/waymo/val.jsonl').name == 'Waymo'
    assert dataset_of('/data/waymo/ddad/val.jsonl').name == 'DDAD'
    assert dataset_of('/home/ddad-trials/sunrgbd/val.jsonl').name == 'SUN RGB-D'
    assert dataset_of('/data/rooms/annotations.jsonl').name == 'rooms'
    assert dataset_of('/data/rooms/annotations.jsonl').max_m == math.inf


def test_every_field_of_a_record(bench):
    fields = bench.add('a', np.full((4, 6), 2.0), rgb_size=(8, 12), fx_px=800.0,
                       pixel_coords=[[5, 1], [0, 3]], depth=[2.5, 1.0],
                       mask_valid_path='/m/v.png', mask_transp_path='m/t.png',
                       prompt='How deep?', solution='So deep.')
    record, = read_annotations(bench.annotate('nyuv2.jsonl', fields))
    assert record.dataset.name == 'NYUv2'
    assert (record.rgb_size, record.depth_size, record.canonical_size) == (
        (8, 12), (4, 6), (10, 15))
    assert record.points.tolist() == [[5, 1], [0, 3]]
    assert record.point_depth_m.tolist() == [2.5, 1.0]
    assert record.mask_paths == ('m/v.png', 'm/t.png')
    assert (record.prompt, record.solution) == ('How deep?', 'So deep.')
    assert record.camera(8, 12) == Intrinsics.centred(12, 8, 800.0)
    assert record.camera(4, 6) == Intrinsics.centred(6, 4, 400.0)


def test_a_canonical_focal_length_of_its_own_counts(bench):
    fields = bench.add('a', np.ones((2, 2)))
    for stated, canonical_fx_px in ((800.0, 800.0), ('800', 800.0), (None, 1000.0)):
        record, = read_annotations(bench.annotate('a.jsonl', {**fields, 'canonical_fx': stated}))
        assert record.canonical_fx_px == canonical_fx_px


def test_a_json_list_is_read_too(bench):
    path = bench.annotate('a.json', [bench.add('a', np.ones((2, 2)))])
    assert [record.image for record in read_annotations(path)] == ['rgb/a.png']


@pytest.mark.parametrize(('change', 'told'), [
    ({'image': None}, 'image path'),
    ({'depth_type': 'inverse'}, "'inverse'"),
    ({'depth_format': 'exr'}, "'exr'"),
    ({'depth_scale': -1}, 'depth_scale is -1'),
    ({'depth_scale': 0}, 'depth_scale is 0, wanted a number above 0'),
    ({'depth_scale': True}, 'depth_scale is True, wanted a number'),
    ({'prompt': 'How far? \ud83d'}, 'prompt: holds half of a character at 9'),
    ({'original_fx': 0}, 'original_fx is 0'),
    ({'original_rgb_size': [4]}, r'original_rgb_size is \[4\]'),
    ({'original_rgb_size': 640}, 'original_rgb_size is 640, wanted a list'),
    ({'original_rgb_size': [640, None]}, r'original_rgb_size is \[640, None\]'),
    ({'canonical_size': [100000, 100000]}, 'canonical_size is 100000 x 100000, wanted'),
    ({'original_fx': 'abc'}, "original_fx is 'abc', wanted a number above 0"),
    ({'canonical_fx': -5}, 'canonical_fx is -5, wanted a number above 0'),
    ({'original_rgb_size': [float('inf'), 3]}, r'original_rgb_size is \[inf, 3\]'),
    ({'pixel_coords': [[float('inf'), 1]], 'depth': [1]}, 'pixel_coords or depth holds no num'),
    ({'original_fx': [500]}, r'original_fx is \[500\], wanted a number'),
    ({'depth_type': []}, r'depth_type is \[\], wanted text'),
    ({'depth_path': ['a.png']}, r"depth_path is \['a.png'\], wanted text"),
    ({'pixel_coords': [[0, 0]], 'depth': [1, 2]}, '2 values, pixel_coords 1'),
    ({'pixel_coords': [[0, None]], 'depth': [1]}, 'pixel_coords or depth holds no numbers'),
    ({'pixel_coords': [[0, 1], [0, 1.5]], 'depth': [1, 1]},
     r'pixel_coords are \[0\.  1\.5\], wanted whole numbers'),
    ({'pixel_coords': [[0, 1, 2], [3, 4, 5]], 'depth': [1, 1]}, '2 values, pixel_coords 3 points'),
])
def test_a_wrong_field_is_named_with_its_line(bench, change, told):
    good = bench.add('a', np.ones((2, 2)))
    path = bench.annotate('a.jsonl', good, {**good, **change})
    with pytest.raises(ValueError, match=f'a.jsonl line 2.*{told}'):
        read_annotations(path)


def test_a_field_that_is_null_is_one_left_out(bench):
    bare = {'image': bench.add('a', np.ones((2, 2)))['image']}
    left_out, = read_annotations(bench.annotate('a.jsonl', bare))
    null, = read_annotations(bench.annotate('a.jsonl', {**dict.fromkeys(FIELD_TYPES), **bare}))
    assert left_out == null


@pytest.mark.parametrize('fx_px', [1e-6, 1e9])
def test_a_focal_length_that_is_none_fails_its_record_alone(bench, fx_px):
    record, = read_annotations(bench.annotate(
        'a.jsonl', {**bench.add('a', np.ones((2, 2))), 'original_fx': fx_px}))
    with pytest.raises(RecordError, match='original_fx is .*, wanted px'):
        record.camera(480, 640)


def test_lines_end_where_json_lines_do(bench):
    fields = {**bench.add('a', np.ones((2, 2))), 'prompt': 'one\u2028two\x85three'}
    path = bench.annotate('a.jsonl', fields)
    path.write_text(json.dumps(fields, ensure_ascii=False) + '\r\n', encoding='utf-8')
    assert [record.prompt for record in read_annotations(path)] == ['one\u2028two\x85three']


def test_a_line_that_is_no_json_is_named(tmp_path):
    (tmp_path / 'a.jsonl').write_text('{"image": "a"}\n\n{"image": \n')
    with pytest.raises(ValueError, match=r'a\.jsonl line 3'):
        read_annotations(tmp_path / 'a.jsonl')


def read_one(bench, file='rooms.jsonl', **fields):
    record, = read_annotations(bench.annotate(file, fields))
    return read_depth(record, bench.root)


def test_depth_is_scaled_and_the_range_applied(bench):
    fields = bench.add('a', np.zeros((1, 5)))
    bench.png('depth/a.png', [[0, 4, 8, 64000, 65535]])
    depth_m = read_one(bench, 'sunrgbd.jsonl', **{**fields, 'depth_scale': 8000.0})
    # 0.5 mm is nearer than 5 mm, and 8.19 m farther than 8 m: none of them counts.
    np.testing.assert_array_equal(depth_m, [[np.nan, np.nan, np.nan, 8.0, np.nan]])
    assert depth_m.dtype == np.float32


@pytest.mark.parametrize('name', ['mask_valid_path', 'mask_invalid_path'])
def test_both_masks_take_depth_away_at_any_size(bench, name):
    fields = bench.add('a', np.full((2, 4), 3.0))
    bench.png('m/valid.png', [[255, 255, 255, 0], [255] * 4], np.uint8)
    bench.png('m/transp.png', [[0, 255]], np.uint8)
    depth_m = read_one(bench, **fields, mask_transp_path='m/transp.png',
                       **{name: 'm/valid.png'})
    np.testing.assert_array_equal(
        depth_m, [[np.nan, np.nan, 3, np.nan], [np.nan, np.nan, 3, 3]])


def test_bare_float32_at_the_recorded_size(bench):
    fields = bench.add('a', np.zeros((2, 3)), depth_format='binary_float32')
    values = np.array([1, np.inf, 3, 4, np.nan, 0], '<f4')
    values.tofile(bench.root / 'depth/a.png')
    np.testing.assert_array_equal(
        read_one(bench, **fields), [[1, np.nan, 3], [4, np.nan, np.nan]])
    values[:5].tofile(bench.root / 'depth/a.png')
    with pytest.raises(RecordError, match='holds 5 numbers, wanted 2 rows of 3') as error:
        read_one(bench, **fields)
    assert error.value.reason == 'depth'


def test_bare_float32_of_no_recorded_size_has_eth3ds(bench, monkeypatch):
    assert annotations.ETH3D_SIZE == (4032, 6048)   # (height, width)
    monkeypatch.setattr(annotations, 'ETH3D_SIZE', (2, 3))
    fields = bench.add('a', np.zeros((2, 3)), depth_format='binary_float32')
    del fields['original_depth_size']
    np.arange(1, 7, dtype='<f4').tofile(bench.root / 'depth/a.png')
    np.testing.assert_array_equal(read_one(bench, 'eth3d.jsonl', **fields),
                                  [[1, 2, 3], [4, 5, 6]])


def test_distance_along_the_ray_becomes_depth(bench):
    # A wall 2 m off, seen by a camera of twice the depth image's resolution.
    k = Intrinsics.centred(9, 7, 5.0)
    v, u = np.indices((7, 9))
    distance_m = 2 * np.sqrt(1 + ((u - k.cx) / k.fx) ** 2 + ((v - k.cy) / k.fy) ** 2)
    fields = bench.add('a', distance_m, rgb_size=(14, 18), fx_px=10.0)
    stored = read_one(bench, **fields)
    assert stored[0, 0] > 2.5
    depth_m = read_one(bench, **{**fields, 'depth_type': 'euclidean'})
    np.testing.assert_allclose(depth_m, 2.0, atol=1e-3)


@pytest.mark.parametrize(('spoil', 'reason'), [
    (lambda root: (root / 'depth/a.png').unlink(), 'depth'),
    (lambda root: (root / 'depth/a.png').write_bytes(b'no image'), 'depth'),
    (lambda root: cut(root / 'depth/a.png'), 'depth'),
    (lambda root: (root / 'm.png').unlink(), 'mask')])
def test_a_broken_file_says_which(bench, spoil, reason):
    fields = bench.add('a', np.random.default_rng(0).uniform(1, 9, (40, 40)),
                       mask_valid_path='m.png')
    bench.png('m.png', np.full((40, 40), 255), np.uint8)
    read_one(bench, **fields)
    spoil(bench.root)
    with pytest.raises(RecordError, match=r'\.png') as error:
        read_one(bench, **fields)
    assert error.value.reason == reason


def cut(path):
    """Cut a file short."""
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])


def test_no_valid_pixel_is_an_error_of_its_own(bench):
    fields = bench.add('a', np.full((3, 3), 12.0))
    with pytest.raises(RecordError, match='no valid pixel') as error:
        read_one(bench, 'nyuv2.jsonl', **fields)
    assert error.value.reason == 'empty'


def test_a_cut_image_is_not_half_an_image(bench):
    rgb = np.random.default_rng(0).integers(0, 255, (40, 40, 3))
    bench.png('rgb/a.png', rgb[..., ::-1], np.uint8)
    bench.png('rgb/a.jpg', rgb[..., ::-1], np.uint8)
    np.testing.assert_array_equal(read_rgb(bench.root / 'rgb/a.png'), rgb)
    for name in ('a.png', 'a.jpg'):
        cut(bench.root / 'rgb' / name)
        with pytest.raises(RecordError, match=name):
            read_rgb(bench.root / 'rgb' / name)


def test_images_of_16_bits_are_not_white(bench):
    grey = np.arange(1600).reshape(40, 40) * 40
    bench.png('rgb/a.png', grey)
    read = read_rgb(bench.root / 'rgb/a.png')
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, np.repeat((grey >> 8)[..., None], 3, axis=2))


@pytest.mark.parametrize('mode', ['L', 'P'])
def test_a_picture_of_depth_is_not_taken_for_millimetres(bench, mode):
    fields = bench.add('a', np.full((4, 4), 3.0))
    Image.fromarray(np.full((4, 4), 200, np.uint8)).convert(mode).save(
        bench.root / 'depth/a.png')
    with pytest.raises(RecordError, match=f'is of mode {mode}, wanted 16 bits') as error:
        read_one(bench, 'nyuv2.jsonl', **fields)
    assert error.value.reason == 'depth'


@pytest.mark.parametrize('mode', ['I', 'F'])
def test_images_of_more_than_16_bits_are_refused(bench, mode):
    bench.image('rgb/a.tif', 4, 4)
    Image.new(mode, (4, 4)).save(bench.root / 'rgb/a.tif')
    with pytest.raises(RecordError, match=f'are of mode {mode}, wanted 8 or 16 bits') as error:
        read_rgb(bench.root / 'rgb/a.tif')
    assert error.value.reason == 'image'


def test_a_mask_of_colours_is_refused(bench):
    fields = bench.add('a', np.full((4, 4), 3.0), mask_valid_path='m.png')
    bench.image('m.png', 4, 4)
    with pytest.raises(RecordError, match=r'has shape \(4, 4, 3\), wanted one channel') as error:
        read_one(bench, **fields)
    assert error.value.reason == 'mask'


def test_a_record_without_a_depth_file_is_told(bench):
    fields = bench.add('a', np.full((4, 4), 3.0))
    with pytest.raises(RecordError, match='has no depth_path'):
        read_one(bench, **{**fields, 'depth_path': None})
    for path in ('gone', 'a\0b'):
        with pytest.raises(RecordError, match='not readable'):
            read_one(bench, **{**fields, 'depth_format': 'binary_float32', 'depth_path': path})


def test_an_image_that_lies_on_its_side_has_no_camera(bench):
    record, = read_annotations(bench.annotate('a.jsonl', bench.add('a', np.ones((2, 4)))))
    assert record.camera(2, 4).fx == 1000.0
    with pytest.raises(RecordError, match='original_rgb_size is 4 x 2, the file 2 x 4'):
        record.camera(4, 2)


def test_an_error_travels_between_processes():
    error = pickle.loads(pickle.dumps(RecordError('mask', 'm.png: gone')))
    assert (error.reason, str(error)) == ('mask', 'm.png: gone')


def test_a_record_without_a_focal_length_has_no_camera(bench):
    fields = bench.add('a', np.ones((2, 2)), original_fx=None, canonical_size=None)
    record, = read_annotations(bench.annotate('a.jsonl', fields))
    assert record.canonical_size is None
    with pytest.raises(RecordError, match='original_fx'):
        record.camera(2, 2)


def test_a_list_that_is_no_json_is_named(tmp_path):
    (tmp_path / 'nyuv2.json').write_text('[{"image": ')
    with pytest.raises(ValueError, match='nyuv2.json: not readable as JSON'):
        read_annotations(tmp_path / 'nyuv2.json')
