# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest


class BenchFolder:
    """A folder in the DepthVLM-Bench format, filled record by record."""

    def __init__(self, root):
        self.root = root

    def image(self, name, height, width, value=90):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((height, width, 3), value, np.uint8))

    def png(self, name, values, dtype=np.uint16):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.asarray(values).astype(dtype))

    def annotate(self, file, *records):
        path = self.root / file
        path.write_text(''.join(json.dumps(record) + '\n' for record in records))
        return path

    def add(self, name, depth_m, rgb_size=None, fx_px=1000.0, **fields):
        """Write an image and its depth, millimetres; return the record with other fields set."""
        depth_m = np.asarray(depth_m, float)
        height, width = rgb_size or depth_m.shape
        self.image(f'rgb/{name}.png', height, width)
        self.png(f'depth/{name}.png', np.round(depth_m * 1000))
        return {'scene_id': 's', 'image': f'rgb/{name}.png', 'depth_path': f'depth/{name}.png',
                'depth_scale': 1000.0, 'original_rgb_size': [width, height],
                'original_depth_size': list(depth_m.shape[::-1]), 'original_fx': fx_px,
                'canonical_fx': 1000.0,
                'canonical_size': [round(width * 1000 / fx_px), round(height * 1000 / fx_px)],
                'depth_type': 'z_depth', **fields}


@pytest.fixture
def bench(tmp_path):
    return BenchFolder(tmp_path / 'bench')


@pytest.fixture
def ramp_predictor():
    """Predict one metre at the image's left edge, and `slope` more with every px to the right."""
    def depth(rgb, intrinsics, slope=0.01):
        return np.tile(1 + slope * np.arange(rgb.shape[1], dtype=np.float32), (rgb.shape[0], 1))
    return SimpleNamespace(depth=depth)
