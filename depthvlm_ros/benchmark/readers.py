# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Two ways of holding a prediction against an annotated image: correct, and as released.

The correct one judges the image as it is, on the grid on which the truth was measured. The
released one (upstream utils/datasets.py and eval/eval.py at 940a9ba) goes through the canonical
size, with its faults, so that its delta1 compares with the paper's figures.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
from depthvlm_ros.benchmark.annotations import (
    along_axis,
    EUCLIDEAN,
    read_depth,
    read_rgb,
    Record,
    RecordError,
    Z_DEPTH,
)
from depthvlm_ros.benchmark.metrics import DELTA_BASE, depth_metrics
from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.geometry import valid_range
import numpy as np
from PIL import Image

PROTOCOLS = ('sparse', 'dense')
FIGURES = ('delta1', 'delta2', 'delta3', 'abs_rel', 'rmse', 'log10', 'silog', 'coverage')


class PredictorError(TypeError):
    """What is judged is no predictor; the text says what was wanted."""


@dataclass(frozen=True, eq=False)
class Sample:
    """
    An image to predict, and the truth about it.

    :param record: its annotation.
    :param rgb: (H, W, 3) uint8, the image that the predictor gets.
    :param intrinsics: its camera.
    :param truth_m: (h, w) float32 of the dense protocol, (N,) of the sparse one; metres along the
        optical axis, NaN invalid.
    :param points: (N, 2) int64, columns and rows at which the sparse truth stands; None if dense.
    :param grid_size: (height, width) px of the grid that truth_m or points belong to.
    """

    record: Record
    rgb: np.ndarray
    intrinsics: Intrinsics
    truth_m: np.ndarray
    points: np.ndarray | None
    grid_size: tuple[int, int]


def checked_protocol(protocol):
    """Return the protocol, if it is one."""
    if protocol not in PROTOCOLS:
        raise ValueError(f'protocol is {protocol!r}, wanted one of {PROTOCOLS}')
    return protocol


def at_points(values, points, grid_size):
    """
    Read a map at points of another grid over the same image: its pixel under each point's centre.

    :param values: (H, W).
    :param points: (N, 2) columns and rows of the grid.
    :param grid_size: (height, width) of the grid.
    :return: (N,).
    """
    (height, width), (grid_height, grid_width) = values.shape, grid_size
    u = np.floor((points[:, 0] + 0.5) * width / grid_width).astype(np.int64)
    v = np.floor((points[:, 1] + 0.5) * height / grid_height).astype(np.int64)
    return values[v, u]


def resize_map(values, size):
    """Resize a map to (height, width), bilinear with half-pixel centres; NaN spreads."""
    if values.shape == tuple(size):
        return values
    return cv2.resize(values, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)


def checked_prediction(depth_m, intrinsics):
    """
    Return a prediction as float32, if it is of the image's size.

    :raises PredictorError: another size; the predictor is not one.
    """
    depth_m = np.asarray(depth_m, np.float32)
    if depth_m.shape != (intrinsics.height, intrinsics.width):
        raise PredictorError(f'the predictor returned shape {depth_m.shape}, wanted (height, '
                             f'width) = {(intrinsics.height, intrinsics.width)}')
    return depth_m


class CorrectReader:
    """
    The image at its own size; the truth on the grid on which it was measured.

    :param protocol: 'sparse' or 'dense'.
    """

    name = 'correct'

    def __init__(self, protocol):
        self.protocol = checked_protocol(protocol)

    def sample(self, record, rgb_root, depth_root):
        """
        Read one record.

        :raises RecordError: a record that cannot be judged.
        """
        rgb = read_rgb(Path(rgb_root) / record.image)
        grid_size = record.depth_size or record.rgb_size
        record = record.of_size(*rgb.shape[:2])
        intrinsics = record.camera(*rgb.shape[:2])
        if self.protocol == 'dense':
            truth_m = read_depth(record, depth_root)
            return Sample(record, rgb, intrinsics, truth_m, None, truth_m.shape)
        truth_m = self.sparse_truth(record, grid_size)
        return Sample(record, rgb, intrinsics, truth_m, record.points, grid_size)

    def sparse_truth(self, record, grid_size):
        """
        Return the points' depth, (N,) float32, NaN invalid.

        :param grid_size: (height, width) of the points' grid; None where the record tells none.
        """
        if record.points is None or grid_size is None:
            raise RecordError('record', f'{record.image}: lacks pixel_coords, depth or '
                              'original_depth_size, wanted all for the sparse protocol')
        if ((record.points < 0) | (record.points >= grid_size[::-1])).any():
            raise RecordError('record', f'{record.image}: has points outside its depth grid of '
                              f'{grid_size[0]} rows of {grid_size[1]}')
        truth_m = record.point_depth_m
        if record.depth_type == EUCLIDEAN:
            truth_m = along_axis(truth_m, *record.points.T, record.camera(*grid_size))
        truth_m = valid_range(truth_m, record.dataset.min_m, record.dataset.max_m)
        if not np.isfinite(truth_m).any():
            raise RecordError('empty', f'{record.image}: has no valid point')
        return truth_m

    def judge(self, sample, predictor):
        """
        Predict and compare.

        :return: dict of FIGURES, and pixels compared.
        :raises RecordError: the predictor refused the image, or gave nothing where truth is.
        """
        predicted_m = checked_prediction(predict(predictor, sample), sample.intrinsics)
        if sample.points is None:
            predicted_m = resize_map(predicted_m, sample.grid_size)
        else:
            predicted_m = at_points(predicted_m, sample.points, sample.grid_size)
        figures = depth_metrics(predicted_m, sample.truth_m).as_dict()
        if not figures['pixels']:
            raise RecordError('prediction', f'{sample.record.image}: the predictor gave no valid '
                              'depth where the truth has one')
        return figures


def predict(predictor, sample, method='depth'):
    """Run a predictor's method; an image that it refuses is a RecordError."""
    try:
        return getattr(predictor, method)(sample.rgb, sample.intrinsics)
    except ValueError as e:
        raise RecordError('prediction', f'{sample.record.image}: {e}') from e


class ReleasedReader:
    """
    The reader and the metric behind the paper's figures, faults included.

    Image and truth are brought to the canonical size, where the record has one. Sparse points are
    scaled as if they stood on the RGB image, whatever grid they were drawn on; truth is read off
    the resized map, and off the annotation where that is empty; masks are left out; the network's
    own map, whose size was rounded, is read at canonical coordinates. delta1 alone; an image
    without truth scores 0.

    :param protocol: 'sparse' or 'dense'.
    """

    name = 'as released'

    def __init__(self, protocol):
        self.protocol = checked_protocol(protocol)

    def sample(self, record, rgb_root, depth_root):
        """
        Read one record.

        :raises RecordError: a record that upstream leaves out, or fails at.
        """
        rgb = read_rgb(Path(rgb_root) / record.image)
        truth_m = self.canonical_truth(record, depth_root, rgb.shape[:2])
        size = record.canonical_size
        if size is not None:    # else upstream neither resizes nor crops
            rgb = np.array(Image.fromarray(rgb).resize(size[::-1], Image.Resampling.BILINEAR))
            crop = central_crop(size, record.dataset.canonical_edge_px)
            rgb, truth_m = np.ascontiguousarray(rgb[crop]), truth_m[crop]
        intrinsics = Intrinsics.centred(rgb.shape[1], rgb.shape[0], record.canonical_fx_px)
        if self.protocol == 'dense':
            return Sample(record, rgb, intrinsics, truth_m, None, truth_m.shape)
        points = np.round(canonical_points(record)).astype(np.int64)
        truth_m = released_point_truth(truth_m, points, record.point_depth_m)
        return Sample(record, rgb, intrinsics, truth_m, points, rgb.shape[:2])

    def canonical_truth(self, record, depth_root, rgb_size):
        """
        Return the true depth at the canonical size, as stored along axis or ray.

        Without one it keeps its own grid, or, where it is empty, has the image's size.
        """
        size = record.canonical_size
        as_stored = without(record, masks=self.protocol == 'sparse')
        try:
            depth_m = read_depth(as_stored, depth_root)
        except RecordError as e:
            # Without labels upstream's dense score is 0, and its sparse reader fails. A file that
            # is not there is no reason to score anything.
            if self.protocol == 'sparse' or e.reason != 'empty':
                raise
            return np.full(size or rgb_size, np.nan, np.float32)
        if size is None or depth_m.shape == tuple(size):
            return depth_m
        return cv2.resize(depth_m, size[::-1], interpolation=cv2.INTER_NEAREST)

    def judge(self, sample, predictor):
        """
        Predict and compare.

        :return: dict with delta1, and pixels compared.
        :raises RecordError: the predictor refused the image.
        """
        if hasattr(predictor, 'network_depth'):
            predicted_m = np.asarray(predict(predictor, sample, 'network_depth'), np.float32)
        else:
            predicted_m = checked_prediction(predict(predictor, sample), sample.intrinsics)
        truth_m = sample.truth_m
        if sample.points is None:
            predicted_m = resize_map(predicted_m, sample.grid_size)
        else:
            u, v = sample.points.T
            inside = (u >= 0) & (v >= 0) & (u < predicted_m.shape[1]) & (v < predicted_m.shape[0])
            predicted_m, truth_m = predicted_m[v[inside], u[inside]], truth_m[inside]
        return released_delta1(predicted_m, truth_m)


def without(record, masks):
    """Return a record whose depth is read as stored, and without masks if so told."""
    return replace(record, depth_type=Z_DEPTH, mask_paths=() if masks else record.mask_paths)


def canonical_points(record):
    """
    Bring a record's points to the canonical size, and into the crop, as upstream does.

    By the size of the RGB image, even where they were drawn on a smaller depth grid; and only
    where both sizes are known.

    :raises RecordError: no points.
    """
    if record.points is None:
        raise RecordError('record', f'{record.image}: has no pixel_coords and depth')
    if not len(record.points):
        raise RecordError('empty', f'{record.image}: has no point')
    size = record.canonical_size
    if record.rgb_size is None or size is None:
        return record.points.astype(float)
    scaled = record.points * (np.array(size[::-1]) / np.array(record.rgb_size[::-1]))
    return scaled - central_offset(size, record.dataset.canonical_edge_px)


def central_offset(size, edge_px):
    """Return (u, v) of the corner of upstream's central crop of (height, width), in px."""
    if edge_px is None:
        return np.zeros(2)
    return np.array([(side - min(side, edge_px)) / 2 for side in size[::-1]])


def central_crop(size, edge_px):
    """Return the rows and columns of upstream's central crop."""
    u, v = central_offset(size, edge_px).astype(int)
    edge = edge_px or max(size)
    return slice(v, v + min(size[0], edge)), slice(u, u + min(size[1], edge))


def released_point_truth(depth_m, points, annotated_m):
    """
    Return the truth at points: of the map, or annotated where the map has none there.

    Points outside the map have no truth.
    """
    u, v = points.T
    inside = (u >= 0) & (v >= 0) & (u < depth_m.shape[1]) & (v < depth_m.shape[0])
    truth_m = np.full(len(points), np.nan, np.float32)
    of_map = depth_m[v[inside], u[inside]]
    truth_m[inside] = np.where(np.isfinite(of_map), of_map, annotated_m[inside])
    return truth_m


def released_delta1(predicted_m, truth_m):
    """Return delta1 over positive depths, in float32; 0 where there is nothing to compare."""
    with np.errstate(invalid='ignore'):
        both = (predicted_m > 0) & (truth_m > 0)
    if not both.any():
        return {'delta1': 0.0, 'pixels': 0}
    p, t = predicted_m[both], truth_m[both]
    ratio = np.maximum(p / t, t / p)
    return {'delta1': float((ratio < DELTA_BASE).mean()), 'pixels': int(both.sum())}
