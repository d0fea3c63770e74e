# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
How well a predicted depth map agrees with the true one.

The metrics are those of Eigen et al. 2014 (arXiv 1406.2283, section 4) with the names that later
papers gave them. All are taken over the pixels of one image where both depths are valid; a
benchmark averages them over its images.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

DELTA_BASE = 1.25


@dataclass(frozen=True)
class DepthMetrics:
    """
    The metrics of one image, NaN where no pixel could be compared.

    :param delta1: share of pixels whose ratio max(p / t, t / p) is below 1.25 (strictly).
    :param delta2: the same below 1.25 ** 2.
    :param delta3: the same below 1.25 ** 3.
    :param abs_rel: mean of |p - t| / t.
    :param rmse: root of the mean square of p - t, in metres.
    :param log10: mean of |log10(p) - log10(t)|.
    :param silog: 100 times the standard deviation of ln(p) - ln(t), which no scaling of the
        prediction changes (the KITTI benchmark's form; the training loss is another one).
    :param coverage: share of the truth's valid pixels at which the prediction is valid too; the
        other metrics say nothing about the rest.
    :param pixels: how many pixels were compared.
    """

    delta1: float
    delta2: float
    delta3: float
    abs_rel: float
    rmse: float
    log10: float
    silog: float
    coverage: float
    pixels: int

    def as_dict(self) -> dict[str, float | int]:
        """Return the metrics by name."""
        return asdict(self)


def valid_depth(depth_m: np.ndarray) -> np.ndarray:
    """Return where a depth in metres is a distance: finite and above zero, bool."""
    return np.isfinite(depth_m) & (depth_m > 0)


def depth_metrics(prediction_m: np.ndarray, truth_m: np.ndarray,
                  mask: np.ndarray | None = None) -> DepthMetrics:
    """
    Compare a predicted depth with the truth, in float64.

    :param prediction_m: predicted depth in metres, any shape; NaN, infinite or <= 0 is invalid.
    :param truth_m: true depth in metres, the same shape; NaN, infinite or <= 0 is invalid.
    :param mask: bool of the same shape, the pixels to judge; all of them where left out.
    :raises ValueError: shapes that differ.
    """
    prediction_m, truth_m = np.asarray(prediction_m), np.asarray(truth_m)
    if prediction_m.shape != truth_m.shape:
        raise ValueError(f'prediction has shape {prediction_m.shape}, '
                         f'wanted that of the truth, {truth_m.shape}')
    known = valid_depth(truth_m)
    if mask is not None:
        mask = np.asarray(mask)
        if mask.shape != truth_m.shape:
            raise ValueError(f'mask has shape {mask.shape}, '
                             f'wanted that of the truth, {truth_m.shape}')
        known &= mask.astype(bool)
    both = known & valid_depth(prediction_m)
    pixels, wanted = int(both.sum()), int(known.sum())
    coverage = pixels / wanted if wanted else float('nan')
    if not pixels:
        return DepthMetrics(*[float('nan')] * 7, coverage=coverage, pixels=0)
    return _compare(prediction_m[both].astype(np.float64), truth_m[both].astype(np.float64),
                    coverage)


def _compare(p: np.ndarray, t: np.ndarray, coverage: float) -> DepthMetrics:
    """Return the metrics of two lists of valid depths, (pixels,) float64."""
    ratio = np.maximum(p / t, t / p)
    log_ratio = np.log(p) - np.log(t)
    return DepthMetrics(
        delta1=float((ratio < DELTA_BASE).mean()),
        delta2=float((ratio < DELTA_BASE ** 2).mean()),
        delta3=float((ratio < DELTA_BASE ** 3).mean()),
        abs_rel=float((np.abs(p - t) / t).mean()),
        rmse=float(np.sqrt(np.square(p - t).mean())),
        log10=float(np.abs(log_ratio).mean() / np.log(10.0)),
        silog=float(100.0 * log_ratio.std()),
        coverage=coverage,
        pixels=len(p))
