# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The depth metrics against arithmetic done by hand."""

import math

from depthvlm_ros.benchmark.metrics import depth_metrics
import numpy as np
import pytest

TRUTH_M = np.array([[1.0, 2.0], [4.0, 8.0]], np.float32)


def test_a_perfect_prediction():
    metrics = depth_metrics(TRUTH_M, TRUTH_M)
    assert (metrics.delta1, metrics.delta2, metrics.delta3) == (1.0, 1.0, 1.0)
    assert metrics.abs_rel == metrics.rmse == metrics.log10 == metrics.silog == 0.0
    assert metrics.coverage == 1.0
    assert metrics.pixels == 4


def test_each_metric_by_hand():
    # Ratios to the truth: 1.2, 1/1.5, 1.9, 2.
    metrics = depth_metrics(np.array([[1.2, 2 / 1.5], [7.6, 16.0]]), TRUTH_M.astype(np.float64))
    assert metrics.delta1 == 0.25
    assert metrics.delta2 == 0.5
    assert metrics.delta3 == 0.75
    assert metrics.abs_rel == pytest.approx((0.2 + 1 / 3 + 0.9 + 1.0) / 4)
    assert metrics.rmse == pytest.approx(
        math.sqrt((0.2 ** 2 + (2 / 3) ** 2 + 3.6 ** 2 + 8.0 ** 2) / 4))
    logs = [math.log(1.2), -math.log(1.5), math.log(1.9), math.log(2.0)]
    mean = sum(logs) / 4
    assert metrics.log10 == pytest.approx(sum(abs(x) for x in logs) / 4 / math.log(10))
    assert metrics.silog == pytest.approx(
        100 * math.sqrt(sum((x - mean) ** 2 for x in logs) / 4))


@pytest.mark.parametrize('ratio', [1, -1])
def test_delta_is_strict_and_looks_both_ways(ratio):
    # Powers of 1.25 that float64 holds exactly, and numbers just below them.
    of_two_m = np.array([1.25, 1.249, 1.5625, 1.562, 1.953125, 1.953]) ** ratio
    metrics = depth_metrics(2.0 * of_two_m if ratio > 0 else np.full(6, 2.0),
                            np.full(6, 2.0) if ratio > 0 else 2.0 / of_two_m)
    assert (metrics.delta1, metrics.delta2, metrics.delta3) == (1 / 6, 3 / 6, 5 / 6)
    prediction, truth = np.full(2, 2.0), np.array([2.0 * 1.24, 2.0 / 1.24])
    assert depth_metrics(prediction, truth).delta1 == 1.0


def test_a_wrong_scale_leaves_silog_alone():
    metrics = depth_metrics(1.3 * TRUTH_M, TRUTH_M)
    assert metrics.silog == pytest.approx(0.0, abs=1e-4)
    assert metrics.abs_rel == pytest.approx(0.3, abs=1e-6)
    assert metrics.delta1 == 0.0


@pytest.mark.parametrize('invalid', [math.nan, math.inf, 0.0, -1.0])
def test_invalid_pixels_of_either_side_are_left_out(invalid):
    truth_m = np.array([1.0, 2.0, invalid, 4.0])
    prediction_m = np.array([1.0, invalid, 3.0, 4.0])
    metrics = depth_metrics(prediction_m, truth_m)
    assert metrics.pixels == 2
    assert metrics.coverage == pytest.approx(2 / 3)
    assert metrics.abs_rel == 0.0


def test_the_mask_chooses_the_pixels():
    prediction_m = TRUTH_M.copy()
    prediction_m[1] *= 2
    mask = np.array([[True, True], [False, False]])
    assert depth_metrics(prediction_m, TRUTH_M, mask).abs_rel == 0.0
    assert depth_metrics(prediction_m, TRUTH_M, ~mask).abs_rel == 1.0


def test_nothing_to_compare_is_nan():
    metrics = depth_metrics(np.full(3, np.nan), np.ones(3))
    assert math.isnan(metrics.delta1) and math.isnan(metrics.abs_rel)
    assert metrics.coverage == 0.0
    assert math.isnan(depth_metrics(np.ones(3), np.zeros(3)).coverage)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r'\(4, 3\).*\(3, 4\)'):
        depth_metrics(np.ones((4, 3)), np.ones((3, 4)))
    with pytest.raises(ValueError, match='mask'):
        depth_metrics(np.ones(3), np.ones(3), np.ones(2, bool))
