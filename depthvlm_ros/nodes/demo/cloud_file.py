# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A point cloud as a file that every viewer opens."""

from __future__ import annotations

from pathlib import Path

import numpy as np

PLY_POINT = np.dtype([('xyz', '<f4', 3), ('rgb', 'u1', 3)])
PLY_HEADER = """ply
format binary_little_endian 1.0
comment metres; x right, y down, z forward
element vertex {count}
property float x
property float y
property float z
property uchar red
property uchar green
property uchar blue
end_header
"""


def write_ply(path: Path, points_m: np.ndarray, colours: np.ndarray) -> int:
    """
    Write a coloured cloud as a binary PLY, its invalid points left out.

    :param points_m: (..., 3) float32 metres, NaN where invalid.
    :param colours: (..., 3) uint8 RGB.
    :return: how many points were written.
    """
    points_m, colours = np.reshape(points_m, (-1, 3)), np.reshape(colours, (-1, 3))
    finite = np.isfinite(points_m).all(axis=1)
    rows = np.empty(int(finite.sum()), PLY_POINT)
    rows['xyz'], rows['rgb'] = points_m[finite], colours[finite]
    header = PLY_HEADER.format(count=len(rows)).encode('ascii')
    path.write_bytes(header + rows.tobytes())
    return len(rows)


def unpack_rgb(packed: np.ndarray) -> np.ndarray:
    """Return (..., 3) uint8 RGB of a cloud's (...) float32 field `rgb`, bits 0x00RRGGBB."""
    bits = np.ascontiguousarray(packed, np.float32).view(np.uint32)
    return np.stack([bits >> 16, bits >> 8, bits], axis=-1).astype(np.uint8)
