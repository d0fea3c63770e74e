# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The correct and the released reader, on records small enough to work out by hand."""

from types import SimpleNamespace

from depthvlm_ros.benchmark.annotations import read_annotations, RecordError
from depthvlm_ros.benchmark.predictors import Constant
from depthvlm_ros.benchmark.readers import (
    at_points,
    CorrectReader,
    released_point_truth,
    ReleasedReader,
    resize_map,
)
from depthvlm_ros.camera import Intrinsics
import numpy as np
from PIL import Image
import pytest


def judge(bench, reader, predictor, file='rooms.jsonl', **fields):
    record, = read_annotations(bench.annotate(file, fields))
    return reader.judge(reader.sample(record, bench.root, bench.root), predictor)


@pytest.mark.parametrize('reader', [CorrectReader, ReleasedReader])
def test_two_metres_everywhere_by_hand(bench, reader):
    # Within 25 % of 2 m: 1.7 and 2.4; 1.5 and 2.5 are not, since the bound is strict.
    fields = bench.add('a', [[1.7, 2.4, 1.5], [2.5, 4.0, 0.0]],
                       pixel_coords=[[0, 0], [0, 1], [1, 1]], depth=[1.7, 2.5, 4.0])
    dense = judge(bench, reader('dense'), Constant(), **fields)
    assert dense['delta1'] == pytest.approx(2 / 5)
    assert dense['pixels'] == 5
    assert judge(bench, reader('sparse'), Constant(), **fields)['delta1'] == pytest.approx(1 / 3)


def test_all_figures_of_the_correct_reader(bench):
    fields = bench.add('a', [[1.0, 4.0]])
    figures = judge(bench, CorrectReader('dense'), Constant(), **fields)
    assert figures['delta3'] == 0.0  # 2 is more than 1.25 ** 3 = 1.95
    assert figures['abs_rel'] == pytest.approx((1.0 + 0.5) / 2)
    assert figures['rmse'] == pytest.approx(np.sqrt((1 + 4) / 2))
    assert figures['log10'] == pytest.approx(np.log10(2))
    assert figures['silog'] == pytest.approx(100 * np.log(2))
    assert figures['coverage'] == 1.0


def scannetpp_like(bench, points):
    """
    Make an image of 1920 x 1440 px with true depth, on 256 x 192, 1 m at the left and rising.

    The depth is 1 + 0.01 u_rgb, as the ramp predictor says where it sees the whole image.
    """
    u_rgb = (np.arange(256) + 0.5) * 7.5 - 0.5
    depth_m = np.tile(1 + 0.004 * u_rgb, (192, 1))
    depth = [round(float(depth_m[v, u]), 4) for u, v in points]
    return bench.add('a', depth_m, rgb_size=(1440, 1920), fx_px=1430.94, pixel_coords=points,
                     depth=depth)


def by_share(rgb, intrinsics):
    """Predict what is true of the wide ramp, whatever the image's size."""
    u = (np.arange(rgb.shape[1]) + 0.5) / rgb.shape[1]
    return np.tile((1 + 0.004 * (1920 * u - 0.5)).astype(np.float32), (rgb.shape[0], 1))


def test_points_are_scaled_from_the_grid_they_were_drawn_on(bench):
    points = [[10, 100], [128, 7], [250, 150]]
    fields = scannetpp_like(bench, points)
    figures = judge(bench, CorrectReader('sparse'), SimpleNamespace(depth=by_share),
                    'scannetpp.jsonl', **fields)
    assert figures['delta1'] == 1.0
    assert figures['abs_rel'] < 0.002
    assert figures['pixels'] == 3


def test_the_released_reader_looks_into_the_top_left_corner(bench):
    # 250 px on the depth grid become round(250 * 1342 / 1920) = 175 of 1342 px: true depth there,
    # at grid column 33, is 1.99 m, not 8.5 m; the prediction is read there too.
    fields = scannetpp_like(bench, [[250, 150]])
    reader = ReleasedReader('sparse')
    record, = read_annotations(bench.annotate('scannetpp.jsonl', fields))
    sample = reader.sample(record, bench.root, bench.root)
    assert sample.rgb.shape == (1006, 1342, 3)
    assert sample.intrinsics == Intrinsics.centred(1342, 1006, 1000.0)
    assert sample.points.tolist() == [[175, 105]]
    assert sample.truth_m == pytest.approx([1 + 0.004 * (33.5 * 7.5 - 0.5)], abs=1e-3)
    network = SimpleNamespace(network_depth=by_share)
    assert reader.judge(sample, network)['delta1'] == 1.0
    correct, = read_annotations(bench.annotate('scannetpp.jsonl', fields))
    assert CorrectReader('sparse').sample(correct, bench.root, bench.root).truth_m == (
        pytest.approx([1 + 0.004 * (250.5 * 7.5 - 0.5)], abs=1e-3))


@pytest.mark.parametrize(('sizes', 'width'), [({}, 1024), ({'canonical_size': None}, 1100)])
def test_the_released_reader_crops_only_where_it_knows_the_canonical_size(bench, sizes, width):
    fields = bench.add('a', np.full((20, 1100), 2.0), pixel_coords=[[600, 5]], depth=[2.0],
                       **sizes)
    record, = read_annotations(bench.annotate('taskonomy.jsonl', fields))
    sample = ReleasedReader('sparse').sample(record, bench.root, bench.root)
    assert sample.rgb.shape[1] == width
    assert sample.points.tolist() == [[600 - (1100 - width) // 2, 5]]


def test_without_canonical_size_the_released_reader_takes_all_as_it_is(bench):
    depth_m = np.add.outer(np.arange(3.0), np.arange(4.0)) + 1
    fields = bench.add('a', depth_m, rgb_size=(6, 8), canonical_size=None, original_fx=None,
                       pixel_coords=[[3, 2], [7, 5]], depth=[6.0, 9.0])
    record, = read_annotations(bench.annotate('scannetpp.jsonl', fields))
    sample = ReleasedReader('sparse').sample(record, bench.root, bench.root)
    assert sample.rgb.shape == (6, 8, 3)
    assert sample.points.tolist() == [[3, 2], [7, 5]]
    assert sample.truth_m[0] == 6.0 and np.isnan(sample.truth_m[1])     # which is outside
    assert ReleasedReader('dense').sample(record, bench.root, bench.root).grid_size == (3, 4)


def test_the_released_crop_is_of_both_sides(bench):
    fields = bench.add('a', np.full((1100, 1060), 2.0), pixel_coords=[[600, 900]], depth=[2.0])
    record, = read_annotations(bench.annotate('taskonomy.jsonl', fields))
    sample = ReleasedReader('sparse').sample(record, bench.root, bench.root)
    assert sample.rgb.shape[:2] == (1024, 1024)
    assert sample.points.tolist() == [[600 - 18, 900 - 38]]


def test_points_that_are_not_scaled_do_not_follow_the_crop(bench):
    fields = bench.add('a', np.full((20, 1100), 2.0), pixel_coords=[[600, 5]], depth=[2.0],
                       original_rgb_size=None)
    record, = read_annotations(bench.annotate('taskonomy.jsonl', fields))
    sample = ReleasedReader('sparse').sample(record, bench.root, bench.root)
    assert (sample.rgb.shape[1], sample.points.tolist()) == (1024, [[600, 5]])


def test_a_record_without_points_is_left_out_as_released_too(bench):
    with pytest.raises(RecordError, match='has no pixel_coords and depth'):
        judge(bench, ReleasedReader('sparse'), Constant(), **bench.add('a', [[2.0]]))
    fields = bench.add('a', [[2.0]], pixel_coords=[], depth=[])
    with pytest.raises(RecordError, match='has no point') as error:
        judge(bench, ReleasedReader('sparse'), Constant(), **fields)
    assert error.value.reason == 'empty'


def test_both_readers_agree_where_sizes_do(bench):
    rng = np.random.default_rng(1)
    depth_m = rng.uniform(1, 3, (30, 40)).round(3)
    depth_m[np.isin(depth_m, [1.6, 2.5])] = 2.0  # on the bound, float32 and float64 differ
    points = [[int(u), int(v)] for u, v in rng.integers(0, 30, (20, 2))]
    fields = bench.add('a', depth_m, pixel_coords=points,
                       depth=[depth_m[v, u] for u, v in points])
    for protocol in ('sparse', 'dense'):
        correct = judge(bench, CorrectReader(protocol), Constant(), **fields)
        released = judge(bench, ReleasedReader(protocol), Constant(), **fields)
        assert 0 < correct['delta1'] < 1
        assert released['delta1'] == correct['delta1']


def test_the_released_reader_reads_the_networks_map_without_rescaling(bench, ramp_predictor):
    # The network's map is half as wide: a point at column 30 of 40 falls outside and is left
    # out; one at column 10 is read at the map's own column 10.
    fields = bench.add('a', np.full((30, 40), 1.1), pixel_coords=[[30, 3], [10, 3]],
                       depth=[1.1, 1.1])
    half = SimpleNamespace(network_depth=lambda rgb, k: np.tile(
        1 + 0.01 * np.arange(20, dtype=np.float32), (30, 1)))
    figures = judge(bench, ReleasedReader('sparse'), half, **fields)
    assert figures == {'delta1': 1.0, 'pixels': 1}
    steep = SimpleNamespace(network_depth=lambda rgb, k: np.tile(
        1 + 0.01 * (np.arange(20, dtype=np.float32) * 2), (30, 1)))
    assert judge(bench, ReleasedReader('sparse'), steep, **fields)['delta1'] == 1.0
    steeper = SimpleNamespace(network_depth=lambda rgb, k: np.tile(
        1 + 0.04 * np.arange(20, dtype=np.float32), (30, 1)))
    assert judge(bench, ReleasedReader('sparse'), steeper, **fields)['delta1'] == 0.0
    dense = judge(bench, ReleasedReader('dense'), half, **fields)
    assert dense['pixels'] == 30 * 40  # here the map is brought to the canonical size


def test_a_point_lost_in_resizing_has_its_annotated_depth(bench):
    # Halved, the map keeps its even columns; the point of column 3 comes to column 2 (1.5, half
    # to even), which shows column 4 and has no depth there.
    depth_m = np.zeros((4, 8))
    depth_m[:, [0, 3]] = 5.0
    fields = bench.add('a', depth_m, fx_px=2000.0, pixel_coords=[[3, 1], [0, 1]],
                       depth=[2.0, 2.0])
    record, = read_annotations(bench.annotate('rooms.jsonl', fields))
    sample = ReleasedReader('sparse').sample(record, bench.root, bench.root)
    assert sample.points.tolist() == [[2, 0], [0, 0]]
    assert sample.truth_m.tolist() == [2.0, 5.0]


def test_truth_missing_of_a_dense_map_scores_zero_as_released_only(bench):
    fields = bench.add('a', np.full((4, 4), 20.0))
    with pytest.raises(RecordError, match='no valid pixel'):
        judge(bench, CorrectReader('dense'), Constant(), 'nyuv2.jsonl', **fields)
    assert judge(bench, ReleasedReader('dense'), Constant(), 'nyuv2.jsonl', **fields) == {
        'delta1': 0.0, 'pixels': 0}
    for size, grid in (([3, 2], (2, 3)), (None, (4, 4))):
        fields['canonical_size'] = size
        record, = read_annotations(bench.annotate('nyuv2.jsonl', fields))
        sample = ReleasedReader('dense').sample(record, bench.root, bench.root)
        assert sample.grid_size == sample.rgb.shape[:2] == grid


def test_a_depth_file_that_is_not_there_scores_nothing(bench):
    fields = {**bench.add('a', [[2.0]]), 'depth_path': 'gone.png'}
    for reader in (CorrectReader, ReleasedReader):
        with pytest.raises(RecordError, match='gone.png') as error:
            judge(bench, reader('dense'), Constant(), **fields)
        assert error.value.reason == 'depth'


def test_a_mask_counts_in_the_dense_protocol_of_both(bench):
    fields = bench.add('a', [[2.0, 9.0]], mask_transp_path='m.png', pixel_coords=[[1, 0]],
                       depth=[9.0])
    bench.png('m.png', [[255, 0]], np.uint8)
    for reader in (CorrectReader, ReleasedReader):
        assert judge(bench, reader('dense'), Constant(), **fields)['delta1'] == 1.0
    assert judge(bench, ReleasedReader('sparse'), Constant(), **fields)['delta1'] == 0.0


def test_euclidean_points_become_depths(bench):
    k = Intrinsics.centred(8, 6, 4.0)
    distance_m = 2 * np.sqrt(1 + ((7 - k.cx) / 4) ** 2 + ((5 - k.cy) / 4) ** 2)
    fields = bench.add('a', np.full((6, 8), 2.0), fx_px=4.0, pixel_coords=[[7, 5]],
                       depth=[distance_m], depth_type='euclidean')
    correct = judge(bench, CorrectReader('sparse'), Constant(), **fields)
    assert correct['abs_rel'] == pytest.approx(0.0, abs=1e-6)
    along_ray = judge(bench, CorrectReader('sparse'), Constant(), **{
        **fields, 'depth_type': 'z_depth'})
    assert along_ray['delta1'] == 0.0


@pytest.mark.parametrize('told', [True, False])
def test_distances_on_a_grid_of_their_own_become_depths_by_the_images_focal_length(bench, told):
    v, u = np.mgrid[:3, :4]     # half as fine as the image
    distance_m = 2 * np.sqrt(1 + ((u - 1.5) / 2) ** 2 + ((v - 1) / 2) ** 2)
    fields = bench.add('a', distance_m, (6, 8), fx_px=4.0, pixel_coords=[[3, 2]],
                       depth=[distance_m[2, 3]], depth_type='euclidean')
    if not told:
        del fields['original_rgb_size']
    for protocol in ('dense', 'sparse'):
        figures = judge(bench, CorrectReader(protocol), Constant(), **fields)
        assert figures['abs_rel'] == pytest.approx(0.0, abs=1e-3)


def test_the_released_reader_takes_distances_along_the_ray_as_depths(bench):
    fields = bench.add('a', [[3.0, 2.0], [2.0, 3.0]], fx_px=1.0, pixel_coords=[[1, 1]],
                       depth=[3.0], depth_type='euclidean')
    record, = read_annotations(bench.annotate('rooms.jsonl', fields))
    sample = ReleasedReader('dense').sample(record, bench.root, bench.root)
    np.testing.assert_array_equal(np.unique(sample.truth_m), [2.0, 3.0])


def test_the_released_image_is_resized_as_pillow_does(bench):
    fields = bench.add('a', np.ones((12, 16)), fx_px=2000.0)
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    record, = read_annotations(bench.annotate('rooms.jsonl', fields))
    Image.fromarray(noise).save(bench.root / record.image)
    rgb = ReleasedReader('dense').sample(record, bench.root, bench.root).rgb
    np.testing.assert_array_equal(
        rgb, Image.fromarray(noise).resize((8, 6), Image.Resampling.BILINEAR))


def test_a_map_is_resized_between_its_values():
    ramp = np.arange(8.0, dtype=np.float32)[None].repeat(4, 0)
    np.testing.assert_allclose(resize_map(ramp, (2, 4)), [[0.5, 2.5, 4.5, 6.5]] * 2)


def test_sparse_truth_keeps_to_the_range(bench):
    fields = bench.add('a', np.ones((4, 4)), pixel_coords=[[0, 0], [1, 0]], depth=[2.0, 11.0])
    assert judge(bench, CorrectReader('sparse'), Constant(), 'nyuv2.jsonl',
                 **fields)['pixels'] == 1


@pytest.mark.parametrize(('change', 'told'), [
    ({'pixel_coords': [[4, 0]], 'depth': [1.0]}, 'outside its depth grid'),
    ({'pixel_coords': [[0, 3]], 'depth': [1.0]}, 'outside its depth grid of 3 rows of 4'),
    ({'pixel_coords': [[0, -1]], 'depth': [1.0]}, 'outside its depth grid'),
    ({}, 'lacks pixel_coords'),
    ({'pixel_coords': [[3, 2]], 'depth': [0.0]}, 'no valid point')])
def test_points_that_cannot_be_judged(bench, change, told):
    fields = bench.add('a', np.ones((3, 4)))
    with pytest.raises(RecordError, match=told):
        judge(bench, CorrectReader('sparse'), Constant(), **fields, **change)


def test_a_predictor_that_refuses_or_knows_nothing_is_told(bench):
    fields = bench.add('a', np.ones((4, 4)))

    def refuse(rgb, intrinsics):
        raise ValueError('too small')
    with pytest.raises(RecordError, match='too small') as error:
        judge(bench, CorrectReader('dense'), SimpleNamespace(depth=refuse), **fields)
    assert error.value.reason == 'prediction'
    unknown = SimpleNamespace(depth=lambda rgb, k: np.full(rgb.shape[:2], np.nan))
    with pytest.raises(RecordError, match='no valid depth'):
        judge(bench, CorrectReader('dense'), unknown, **fields)


def test_a_predictor_of_another_size_is_no_predictor(bench):
    fields = bench.add('a', np.ones((4, 4)))
    with pytest.raises(TypeError, match=r'\(2, 2\).*\(4, 4\)'):
        judge(bench, CorrectReader('dense'),
              SimpleNamespace(depth=lambda rgb, k: np.ones((2, 2))), **fields)


def test_an_unknown_protocol_is_refused():
    with pytest.raises(ValueError, match="'both'"):
        CorrectReader('both')


def test_points_between_grids():
    wide = np.arange(8.0)[None].repeat(4, 0)
    points = np.array([[0, 0], [1, 1], [3, 1]])
    np.testing.assert_array_equal(at_points(wide, points, (2, 4)), [1, 3, 7])
    np.testing.assert_array_equal(at_points(wide, np.array([[5, 3]]), (4, 8)), [5])
    finer = np.arange(48.0).reshape(6, 8)   # 3 x 2 of its pixels to one of the grid's
    expected = [finer[3 * v + 1, 2 * u + 1] for u, v in points]
    np.testing.assert_array_equal(at_points(finer, points, (2, 4)), expected)


def test_points_off_a_map_have_no_released_truth():
    depth_m = np.array([[1.0, 2.0], [3.0, np.nan]], np.float32)
    points = np.array([[0, 0], [1, 0], [0, 1], [1, 1], [-1, 0], [0, -1], [2, 0], [0, 2]])
    truth_m = released_point_truth(depth_m, points, np.arange(10.0, 18.0))
    np.testing.assert_array_equal(truth_m, [1, 2, 3, 13] + [np.nan] * 4)


def test_points_off_the_networks_map_are_not_compared(bench):
    fields = bench.add('a', np.full((30, 40), 2.0), depth=[2.0] * 5, pixel_coords=[
        [0, 0], [19, 9], [20, 0], [0, 10], [19, 10]])
    small = SimpleNamespace(network_depth=lambda rgb, k: np.full((10, 20), 2.0, np.float32))
    assert judge(bench, ReleasedReader('sparse'), small, **fields)['pixels'] == 2
