# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Samples out of the released annotations: an image, its depth file, the depth request."""

from dataclasses import replace
from pathlib import Path

import cv2
from depthvlm_ros.benchmark.annotations import (
    dataset_of,
    EUCLIDEAN,
    parse_record,
    read_depth,
    read_rgb,
    RecordError,
)
from depthvlm_ros.training.jsonlines import JsonLines
from depthvlm_ros.training.samples import Sample
import numpy as np
import torch


class Annotated:
    """
    The records of one annotation file.

    :param source: config.AnnotatedSource.
    :param root: folder that its paths are relative to.
    :param encoder: samples.Encoder.
    :param with_language: whether the trained reply is learnt.
    """

    def __init__(self, source, root, encoder, with_language=True):
        root = Path(root)
        self.lines = JsonLines(root / source.annotations)
        self.rgb_root, self.depth_root = root / source.rgb_root, root / source.depth_root
        self.encoder = encoder
        self.with_language = with_language
        self.max_image_tokens = source.max_image_tokens
        self.euclidean = source.euclidean
        self.dataset = dataset_of(self.lines.path)      # as the benchmark does
        if source.range_m:
            least, most = source.range_m
            self.dataset = replace(self.dataset, min_m=least, max_m=most)

    def __len__(self):
        return len(self.lines)

    @property
    def identity(self):
        """Return what tells what is learnt here from other files."""
        return self.lines.identity

    def sample(self, index):
        """
        Read a record with its files.

        :return: Sample.
        :raises RecordError: a record that cannot be read, or has no valid depth.
        """
        try:
            record = parse_record(
                self.lines[index], self.dataset, self.lines.path.name, self.lines.line(index))
        except ValueError as e:
            raise RecordError('record', str(e)) from e
        if self.euclidean:
            record = replace(record, depth_type=EUCLIDEAN)
        rgb = read_rgb(self.rgb_root / record.image)
        record = record.of_size(*rgb.shape[:2])
        depth_m = read_depth(record, self.depth_root)
        camera = record.camera(*rgb.shape[:2])
        rgb, depth_m, camera = crop_to_edge(
            rgb, depth_m, camera, self.encoder.config.canonical_fx,
            self.dataset.canonical_edge_px)
        try:
            pixels, grid, plan = self.encoder.image(rgb, camera, self.max_image_tokens)
        except ValueError as e:  # an aspect ratio that the model does not take
            raise RecordError('image', f'{record.image}: {e}') from e
        talks = [[(record.prompt, record.solution)]] if (
            self.with_language and record.prompt and record.solution) else []
        row = self.encoder.bounded(self.encoder.image_row(grid[0].tolist(), talks),
                                   f'{record.source} line {record.line + 1}')
        return Sample(row, pixels, grid, label(depth_m, plan, record.depth_path))


def crop_to_edge(rgb, depth_m, camera, canonical_fx, edge_px):
    """
    Crop the middle, so that no side is longer than an edge at the canonical focal length.

    :param rgb: (H, W, 3) uint8.
    :param depth_m: (h, w) float32, the same view on a grid of its own.
    :param camera: the image's Intrinsics.
    :param edge_px: px at the canonical focal length; None crops nothing.
    :return: (rgb, depth_m, camera), cropped.
    """
    width, height = camera.size_at_focal(canonical_fx)
    if edge_px is None or max(width, height) <= edge_px:
        return rgb, depth_m, camera
    shares = min(1.0, edge_px / height), min(1.0, edge_px / width)

    def window(shape):
        sizes = [max(1, round(n * share)) for n, share in zip(shape, shares)]
        return [((n - size) // 2, size) for n, size in zip(shape, sizes)]

    (v, rows), (u, columns) = window(rgb.shape)
    (depth_v, depth_rows), (depth_u, depth_columns) = window(depth_m.shape)
    return (rgb[v:v + rows, u:u + columns],
            depth_m[depth_v:depth_v + depth_rows, depth_u:depth_u + depth_columns],
            camera.crop(u, v, columns, rows))


def label(depth_m, plan, what):
    """
    Bring true depth to the network's image: nearest neighbour, metres as the network sees them.

    :param depth_m: (h, w) float32 metres along the optical axis, invalid where not finite.
    :param plan: model.preprocessing.ResizePlan.
    :param what: named in the error.
    :return: (H, W) float32 tensor, NaN invalid.
    :raises RecordError: no valid pixel left.
    """
    depth_m = cv2.resize(depth_m, plan.final, interpolation=cv2.INTER_NEAREST_EXACT)
    if not (np.isfinite(depth_m) & (depth_m > 0)).any():
        raise RecordError('empty', f'{what}: no valid depth is left at {plan.final} px')
    return torch.from_numpy(depth_m / np.float32(plan.depth_scale))
