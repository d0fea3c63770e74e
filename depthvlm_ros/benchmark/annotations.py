# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Reading images and true depth by annotations in the DepthVLM-Bench format.

JSON lines, one image each. The format knows one focal length alone: fy = fx, and the principal
point is the image's centre. Depth files are 16-bit PNG (metres times depth_scale, 0 invalid) or
bare float32 (metres, row by row). Ranges and field names: upstream utils/datasets.py and
data_process/ at 940a9ba.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
import json
import math
from pathlib import Path
import re
import struct
import zlib

import cv2
from depthvlm_ros.camera import check_image_size, FOCAL_OF_SIZE, Intrinsics
from depthvlm_ros.geometry import valid_range
import numpy as np
from PIL import Image

DEFAULT_DEPTH_SCALE = 1000.0
DEFAULT_CANONICAL_FX_PX = 1000.0
BINARY_FLOAT32 = 'binary_float32'
ETH3D_SIZE = (4032, 6048)  # of every bare float32 file upstream, should a record not say

Z_DEPTH = 'z_depth'
EUCLIDEAN = 'euclidean'
DEPTH_TYPES = {'z_depth': Z_DEPTH, 'z': Z_DEPTH, 'euclidean': EUCLIDEAN,
               'euclidean_depth': EUCLIDEAN, 'euclidean_distance': EUCLIDEAN,
               'distance': EUCLIDEAN}

# What Pillow raises for files that are cut short or spoilt.
BROKEN_IMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error,
                Image.DecompressionBombError)


class RecordError(ValueError):
    """
    A record that cannot be used; the text names the file and what is wrong with it.

    :param reason: 'image', 'depth', 'mask', 'empty', 'record' or 'prediction', for counting.
    """

    def __init__(self, reason, text):
        super().__init__(text)
        self.reason = reason

    def __reduce__(self):
        return RecordError, (self.reason, str(self))


@dataclass(frozen=True)
class Dataset:
    """
    What holds for all images of a dataset.

    :param name: its name.
    :param min_m: nearest depth that counts, metres.
    :param max_m: farthest depth that counts, metres; infinity for no limit.
    :param canonical_edge_px: upstream crops the canonical image's centre to this edge; None
        where it does not.
    """

    name: str
    min_m: float = 0.0
    max_m: float = float('inf')
    canonical_edge_px: int | None = None


# By a word in the name of the annotations' file or of a folder, looked for in this order.
DATASETS = {
    'argoverse': Dataset('Argoverse2', 0.05, 120.0),
    'waymo': Dataset('Waymo', 0.05, 70.0),
    'nuscenes': Dataset('nuScenes', 0.05, 80.0),
    'ddad': Dataset('DDAD', 0.05, 120.0),
    'scannetpp': Dataset('ScanNet++', 0.001, 10.0),
    'taskonomy': Dataset('Taskonomy', 0.005, 15.0, 1024),
    'hm3d': Dataset('HM3D', 0.01, 10.0, 1024),
    'matterport': Dataset('Matterport3D', 0.01, 10.0),
    'sunrgbd': Dataset('SUN RGB-D', 0.005, 8.0),
    'ibims': Dataset('iBims-1', 0.005, 25.0),
    'nyuv2': Dataset('NYUv2', 0.005, 10.0),
    'eth3d': Dataset('ETH3D', 0.01, 50.0),
}


def dataset_of(path):
    """
    Return the dataset that an annotation file's name tells, or else the nearest folder's.

    A file that names none is a dataset of its own, without a depth range.
    """
    path = Path(path)
    for text in reversed(path.parts):
        for word, dataset in DATASETS.items():
            # At the begin of a word or of a capital's, and not in granddaddy.
            if re.search(f'(?<![a-z]){word}', text.lower()) or re.search(
                    f'(?<=[a-z])(?=[A-Z])(?i:{word})', text):
                return dataset
    return Dataset(path.stem if path.stem != 'annotations' else path.absolute().parent.name)


@dataclass(frozen=True)
class Record:
    """
    One image of an annotation file.

    :param dataset: what holds for its dataset.
    :param source: name of the annotation file.
    :param line: number of its line there, from 0.
    :param image: path of the image below the images' root.
    :param depth_path: path of the depth file below the depths' root, '' for none.
    :param depth_scale: steps of the PNG per metre.
    :param depth_format: '' for PNG, or 'binary_float32'.
    :param mask_paths: masks below the depths' root, 0 where depth does not count.
    :param rgb_size: (height, width) px that fx_px belongs to; None where not said.
    :param depth_size: (height, width) px of the depth file, on which `points` were drawn.
    :param fx_px: focal length of the image; None where not known.
    :param canonical_fx_px: focal length that the canonical size belongs to.
    :param canonical_size: (height, width) px at that focal length; None where not known.
    :param points: (N, 2) int64, columns and rows on the depth file's grid; None without any.
    :param point_depth_m: (N,) float32, metres, their true depth.
    :param depth_type: 'z_depth' or 'euclidean' (along the ray), of file and points both.
    :param prompt: the question that upstream asks.
    :param solution: the answer that it trains.
    """

    dataset: Dataset
    source: str
    line: int
    image: str
    depth_path: str = ''
    depth_scale: float = DEFAULT_DEPTH_SCALE
    depth_format: str = ''
    mask_paths: tuple[str, ...] = ()
    rgb_size: tuple[int, int] | None = None
    depth_size: tuple[int, int] | None = None
    fx_px: float | None = None
    canonical_fx_px: float = DEFAULT_CANONICAL_FX_PX
    canonical_size: tuple[int, int] | None = None
    points: np.ndarray | None = field(default=None, repr=False)
    point_depth_m: np.ndarray | None = field(default=None, repr=False)
    depth_type: str = Z_DEPTH
    prompt: str = ''
    solution: str = ''

    def of_size(self, height, width):
        """Return the record of an image of a size, which it may not tell itself."""
        return self if self.rgb_size else replace(self, rgb_size=(height, width))

    def camera(self, height, width):
        """
        Return the camera of the image at a size: square pixels, centred.

        :raises RecordError: a record without a focal length.
        """
        if self.fx_px is None:
            raise RecordError('record', f'{self.image}: has no original_fx, wanted a focal length')
        own_height, own_width = self.rgb_size or (height, width)
        check_way_up((height, width), self.rgb_size, 'record', f'{self.image}: original_rgb_size')
        check_focal_length(self.fx_px, own_width, f'{self.image}: original_fx')
        return Intrinsics.centred(own_width, own_height, self.fx_px).resize(width, height)


def check_focal_length(fx_px, width, what):
    """
    Refuse a focal length that is none of a camera of this width.

    :param fx_px: in px, of an image that is `width` px wide.
    :param what: whose it is.
    :raises RecordError: such a one.
    """
    least, most = FOCAL_OF_SIZE
    if not least <= fx_px / width <= most:
        raise RecordError('record', f'{what} is {fx_px}, wanted px, {least} to {most} of the '
                          f'width {width}')


def camera_of(rgb, fx_px, canonical_fx, what):
    """
    Return an image's camera; where its focal length is not known, the canonical one is taken.

    :param rgb: (H, W, 3).
    :param fx_px: in px of this image, or None: the network then sees it at its own size.
    :param what: whose focal length it is.
    :raises RecordError: a focal length that is none of an image of this width.
    """
    height, width = rgb.shape[:2]
    if fx_px is None:
        return Intrinsics.centred(width, height, canonical_fx)
    check_focal_length(fx_px, width, what)
    return Intrinsics.centred(width, height, fx_px)


def check_way_up(size, told, reason, what):
    """
    Refuse a map that lies on its side.

    :param size: its (height, width).
    :param told: (height, width) that the record tells, or None.
    :param reason: of the error; what: it begins with.
    :raises RecordError: one of the two is upright, the other across.
    """
    if told is not None and (size[0] - size[1]) * (told[0] - told[1]) < 0:
        raise RecordError(reason, f'{what} is {told[1]} x {told[0]}, the file {size[1]} x '
                          f'{size[0]}; wanted the same way up')


TEXT = (str,), 'text'
NUMBER = (int, float, str), 'a number'
LIST = (list,), 'a list'
# What a record's fields may be, besides null and left out.
FIELD_TYPES = {
    **dict.fromkeys(('depth_type', 'depth_format', 'depth_path', 'mask_valid_path',
                     'mask_invalid_path', 'mask_transp_path', 'prompt', 'solution'), TEXT),
    **dict.fromkeys(('depth_scale', 'original_fx', 'canonical_fx'), NUMBER),
    **dict.fromkeys(('original_rgb_size', 'original_depth_size', 'canonical_size',
                     'pixel_coords', 'depth'), LIST)}


def parse_record(fields, dataset, source, line):
    """
    Check one annotation.

    :param fields: dict, the JSON object.
    :raises ValueError: a field that is missing or of another form.
    """
    where = f'{source} line {line + 1}'
    if not isinstance(fields, dict) or not isinstance(fields.get('image'), str):
        raise ValueError(f'{where}: wanted a JSON object with an image path')
    for name, (kinds, wanted) in FIELD_TYPES.items():
        value = fields.get(name)
        if not isinstance(value, (*kinds, type(None))) or isinstance(value, bool):
            raise ValueError(f'{where}: {name} is {value!r}, wanted {wanted}')
        if isinstance(value, str):
            check_text(value, f'{where}: {name}')
    told = fields.get('depth_type') or Z_DEPTH
    if told not in DEPTH_TYPES:
        raise ValueError(f'{where}: depth_type is {told!r}, wanted one of {sorted(DEPTH_TYPES)}')
    depth_format = fields.get('depth_format') or ''
    if depth_format not in ('', BINARY_FLOAT32):
        raise ValueError(f'{where}: depth_format is {depth_format!r}, '
                         f'wanted none (PNG) or {BINARY_FLOAT32!r}')
    masks = (fields.get('mask_valid_path') or fields.get('mask_invalid_path'),
             fields.get('mask_transp_path'))
    points, point_depth_m = parse_points(fields, where)
    return Record(
        dataset=dataset, source=source, line=line, image=fields['image'].lstrip('/'),
        depth_path=(fields.get('depth_path') or '').lstrip('/'),
        # Numbers that are metres already have no scale, whatever stands there.
        depth_scale=(None if depth_format else parse_positive(
            fields.get('depth_scale'), 'depth_scale', where)) or DEFAULT_DEPTH_SCALE,
        depth_format=depth_format, mask_paths=tuple(m.lstrip('/') for m in masks if m),
        rgb_size=parse_size(fields, 'original_rgb_size', where),
        depth_size=parse_size(fields, 'original_depth_size', where),
        fx_px=parse_positive(fields.get('original_fx'), 'original_fx', where),
        canonical_fx_px=(parse_positive(fields.get('canonical_fx'), 'canonical_fx', where)
                         or DEFAULT_CANONICAL_FX_PX),
        canonical_size=parse_size(fields, 'canonical_size', where),
        points=points, point_depth_m=point_depth_m, depth_type=DEPTH_TYPES[told],
        prompt=fields.get('prompt') or '', solution=fields.get('solution') or '')


def check_text(text, where):
    """
    Refuse what no tokenizer takes: half of a character's pair, as JSON can hold it.

    :raises ValueError: such text.
    """
    try:
        text.encode()
    except UnicodeEncodeError as e:
        raise ValueError(f'{where}: holds half of a character at {e.start}, wanted whole '
                         'text') from e


def parse_positive(value, name, where):
    """Return a field's number, which may be written as text; None where it is None."""
    if value is None:
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        number = math.nan
    if not 0 < number < math.inf:
        raise ValueError(f'{where}: {name} is {value!r}, wanted a number above 0')
    return number


def parse_size(fields, name, where):
    """Return (height, width) of a field that holds [width, height]; None where it is null."""
    size = fields.get(name)
    if not size:
        return None
    if len(size) != 2 or not all(isinstance(n, int | float) and 1 <= n < math.inf for n in size):
        raise ValueError(f'{where}: {name} is {size!r}, wanted [width, height]')
    width, height = map(int, size)
    check_image_size(height, width, f'{where}: {name}')
    return height, width


def parse_points(fields, where):
    """Return the sparse points and their depth, or (None, None)."""
    if fields.get('pixel_coords') is None or fields.get('depth') is None:
        return None, None
    try:
        stated = np.array(fields['pixel_coords'], np.float64).reshape(-1, 2)
        if not np.isfinite(stated).all():
            raise ValueError('one is not finite')
        points = stated.astype(np.int64)
        depth_m = np.array(fields['depth'], np.float32)
    except (TypeError, ValueError, OverflowError) as e:
        raise ValueError(f'{where}: pixel_coords or depth holds no numbers ({e})') from e
    if not np.array_equal(stated, points):
        raise ValueError(f'{where}: pixel_coords are {stated[(stated != points).any(1)][0]}, '
                         'wanted whole numbers')
    if depth_m.shape != points.shape[:1]:
        raise ValueError(f'{where}: depth has {depth_m.size} values, pixel_coords {len(points)} '
                         'points; wanted as many')
    return points, depth_m


def read_annotations(path):
    """
    Read an annotation file: JSON lines, or one JSON list.

    :return: list of Record.
    :raises ValueError: a line that is no JSON, or no annotation.
    :raises OSError: a file that cannot be read.
    """
    path = Path(path)
    text = read_utf8(path)
    dataset = dataset_of(path)
    if text.lstrip().startswith('['):
        try:
            numbered = enumerate(json.loads(text))
        except (ValueError, RecursionError) as e:
            raise ValueError(f'{path.name}: not readable as JSON ({e})') from e
    else:
        numbered = enumerate_json_lines(text, path.name)
    return [parse_record(fields, dataset, path.name, line) for line, fields in numbered]


def read_utf8(path):
    """
    Return a file's text, without the byte order mark that some programs put before it.

    :raises ValueError: bytes that are no UTF-8.
    :raises OSError: a file that cannot be read.
    """
    try:
        return Path(path).read_text(encoding='utf-8-sig')
    except UnicodeDecodeError as e:
        raise ValueError(f'{path}: is no text in UTF-8 ({e})') from e


def enumerate_json_lines(text, source):
    """Yield (number from 0, value) of every line that is not blank."""
    for number, line in enumerate(text.split('\n')):     # other breaks may stand in strings
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as e:
                raise ValueError(f'{source} line {number + 1}: not readable as JSON ({e})') from e


def read_rgb(path):
    """
    Read an image, its orientation tag left aside as upstream does.

    :return: (H, W, 3) uint8.
    :raises RecordError: not there, or broken.
    """
    try:
        with Image.open(path) as image:
            if image.mode.startswith('I;16'):    # which Pillow would clip at 255: white, mostly
                return np.repeat((np.array(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
            if image.mode in ('I', 'F'):
                raise ValueError(f'its values are of mode {image.mode}, wanted 8 or 16 bits')
            return np.array(image.convert('RGB'))
    except BROKEN_IMAGE as e:
        raise RecordError('image', f'{path}: not readable as an image ({e})') from e


def read_grey(path, reason):
    """Read a file of one number a pixel, (H, W), as it is stored."""
    try:
        with Image.open(path) as image:
            values, mode = np.array(image), image.mode
    except BROKEN_IMAGE as e:
        raise RecordError(reason, f'{path}: not readable as an image ({e})') from e
    if reason == 'depth' and not mode.startswith(('I', 'F')):
        raise RecordError(reason, f'{path}: is of mode {mode}, wanted 16 bits a pixel: a picture '
                          'of depth has no metres')
    if values.ndim != 2:
        raise RecordError(reason, f'{path}: has shape {values.shape}, wanted one channel')
    return values


def read_stored_depth(record, path):
    """
    Read a depth file as it is stored, whatever its range or masks.

    :return: (H, W) float32, metres (along the axis or the ray as depth_type tells); 0, NaN and
        infinity are invalid.
    :raises RecordError: not there, broken, lying on its side, or of numbers alone that are not as
        many as the record tells.
    """
    if record.depth_format != BINARY_FLOAT32:
        stored = read_grey(path, 'depth')
        told = 'original_depth_size' if record.depth_size else 'original_rgb_size'
        check_way_up(stored.shape, record.depth_size or record.rgb_size, 'depth',
                     f'{path}: {told}')
        return stored.astype(np.float32) / np.float32(record.depth_scale)
    try:
        depth_m = np.fromfile(path, '<f4').astype(np.float32)
    except (OSError, ValueError) as e:      # ValueError: a path with a null byte
        raise RecordError('depth', f'{path}: not readable ({e})') from e
    height, width = record.depth_size or ETH3D_SIZE
    if depth_m.size != height * width:
        raise RecordError('depth', f'{path}: holds {depth_m.size} numbers, wanted {height} rows '
                          f'of {width}')
    return depth_m.reshape(height, width)


def read_depth(record, depth_root):
    """
    Read the true depth of a record, on its own grid.

    Masks and the dataset's range are applied, and distances along the ray become depths, by the
    image's focal length: a record that tells no size of its image must be `of_size`.

    :param depth_root: folder below which depth_path and the masks lie.
    :return: (H, W) float32, metres along the optical axis, NaN invalid.
    :raises RecordError: no depth file, one that is broken, or without a valid pixel.
    """
    if not record.depth_path:
        raise RecordError('record', f'{record.image}: has no depth_path')
    path = Path(depth_root) / record.depth_path
    depth_m = read_stored_depth(record, path)
    for mask in record.mask_paths:
        valid = read_grey(Path(depth_root) / mask, 'mask').astype(bool)
        if valid.shape != depth_m.shape:
            valid = cv2.resize(valid.astype(np.uint8), depth_m.shape[::-1],
                               interpolation=cv2.INTER_NEAREST).astype(bool)
        depth_m[~valid] = np.nan
    if record.depth_type == EUCLIDEAN:
        v, u = np.indices(depth_m.shape, sparse=True)
        depth_m = along_axis(depth_m, u, v, record.camera(*depth_m.shape))
    depth_m = valid_range(depth_m, record.dataset.min_m, record.dataset.max_m)
    if not np.isfinite(depth_m).any():
        raise RecordError('empty', f'{path}: has no valid pixel between {record.dataset.min_m} '
                          f'and {record.dataset.max_m} m')
    return depth_m


def along_axis(distance_m, u, v, intrinsics):
    """
    Turn distances along the rays into depths along the optical axis.

    :param distance_m: metres, any shape that broadcasts with u and v.
    :param u: pixel columns.
    :param v: pixel rows.
    :return: float32 metres.
    """
    x = (np.asarray(u) - intrinsics.cx) / intrinsics.fx
    y = (np.asarray(v) - intrinsics.cy) / intrinsics.fy
    return (distance_m / np.sqrt(1.0 + x * x + y * y)).astype(np.float32)
