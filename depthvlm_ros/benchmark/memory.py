# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
How much memory a model takes: `python -m depthvlm_ros.benchmark.memory`.

Computed from the configuration alone, on the meta device, where tensors have sizes and no data:
weights, key-value caches, and the most that is alive at once in the vision tower, the language
model and the depth head. What can be run here is measured beside it. Prints a table and, last, one
line of JSON.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
import sys
import tempfile
import weakref

from depthvlm_ros.benchmark.published import predictor_of, PUBLISHED, published_config
from depthvlm_ros.benchmark.results import provenance
from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.model import checkpoint, CheckpointError, DepthVLM
from depthvlm_ros.model.depth_head import build_depth_head
from depthvlm_ros.model.predictor import DTYPES
from depthvlm_ros.model.preprocessing import plan_resize
from depthvlm_ros.model.quantisation import is_quantised, KINDS, packed_bytes
import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.profiler import profile, ProfilerActivity
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from transformers import DynamicCache

GIB = 2 ** 30
CARDS_GIB = (8, 16, 24)
RESERVE_GIB = 0.6       # assumed: the CUDA context, the libraries' workspaces, unused pieces
PREFIX_TOKENS = 16      # of the conversation before the image and behind it
QUESTION_TOKENS = 160   # a question and an answer of 128 tokens
WEIGHTS = ('float32', 'bfloat16', *KINDS)
STAGES = ('vision', 'language', 'head')
MEASURED_CAMERA = Intrinsics.centred(640, 480, 525.0)
ASPECT = 4 / 3          # of the token grids


class Alive(TorchDispatchMode):
    """
    Counts the bytes that are alive of the tensors made under it: now, and at most.

    Tensors of meta or fake kind are counted, and others that meet them become such: positions and
    grids are worked out on real numbers.
    """

    def __init__(self):
        super().__init__()
        self.now = self.most = 0
        self._seen = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if any(isinstance(x, torch.Tensor) and x.is_meta for x in tree_leaves((args, kwargs))):
            args, kwargs = tree_map(self._as_meta, (args, kwargs))
        made = function(*args, **kwargs)
        for x in tree_leaves(made):
            if isinstance(x, FakeTensor) or (isinstance(x, torch.Tensor) and x.is_meta):
                self._count(x.untyped_storage())
        return made

    @staticmethod
    def _as_meta(x):
        if isinstance(x, torch.Tensor) and x.dim() and not x.is_meta:
            return torch.empty_like(x, device='meta')
        return x

    def _count(self, storage):
        key, size = storage._cdata, storage.nbytes()
        if key not in self._seen:
            self._seen.add(key)
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key, size):
        self._seen.discard(key)
        self.now -= size

    def lap(self):
        """Return the most since the last lap, and begin the next one."""
        most, self.most = self.most, self.now
        return most


class FusedAttention(TorchFunctionMode):
    """Gives attention its result's size and nothing more: fused kernels keep no scores."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is F.scaled_dot_product_attention:
            query, _, value = args[:3] if len(args) > 2 else (
                kwargs['query'], None, kwargs['value'])
            return query.new_empty(*query.shape[:-1], value.shape[-1])
        return function(*args, **(kwargs or {}))


def grid_of(tokens):
    """Return (rows, columns) of about so many image tokens, in the aspect of 4 to 3."""
    rows = max(1, round(math.sqrt(tokens / ASPECT)))
    return rows, max(1, round(tokens / rows))


def meta_model(config, dtype):
    """Build a DepthVLM without memory."""
    with torch.device('meta'):
        return DepthVLM(config).eval().to(dtype)


@torch.inference_mode()
def stage_peaks(model, rows, columns):
    """
    Run one image's pass on the meta device.

    :param model: as meta_model gives it.
    :param rows: of image tokens; columns likewise.
    :return: dict: 'vision', 'language', 'head' -> the most bytes alive meanwhile, the inputs and
        what later stages need counted, the weights not. 'language' and 'head' hold the image's
        key-value cache.
    """
    config, tokens = model.config, rows * columns
    merge = config.vision_config.spatial_merge_size
    length = tokens + PREFIX_TOKENS
    with FusedAttention(), Alive() as alive:
        patches = torch.empty(tokens * merge ** 2, patch_values(config), device='meta')
        grid = torch.tensor([[1, rows * merge, columns * merge]])
        image, deepstack = model.encode_images(patches, grid)
        peaks = {'vision': alive.lap()}
        embeds = image.new_empty(1, length, image.shape[-1])
        cache = DynamicCache()
        positions = torch.empty(3, 1, length, dtype=torch.int64, device='meta')
        hidden = model.read(embeds, positions, past_key_values=cache)
        peaks['language'] = alive.lap()
        held = alive.now
        del hidden, image, deepstack
    peaks['head'] = held + head_peak(config, rows, columns, model.dtype)
    return peaks


def head_peak(config, rows, columns, dtype):
    """Return the most bytes alive in the depth head, its inputs not counted."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with FakeTensorMode():      # of CPU kind: the head's tail asks for its device's autocast
            head = build_depth_head(config)
            features = [torch.empty(1, rows * columns, config.text_config.hidden_size)
                        for _ in range(4)]
            with Alive() as alive:
                head(features, rows, columns)
    finally:
        torch.set_default_dtype(default)
    return alive.most


def patch_values(config):
    """Return how many numbers a patch has."""
    vision = config.vision_config
    return 3 * vision.temporal_patch_size * vision.patch_size ** 2


def cache_bytes(config, tokens, dtype):
    """Return the bytes of a key-value cache of so many tokens."""
    text = config.text_config
    values = 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim
    return values * tokens * dtype.itemsize


def unpacked_bytes(model, kind):
    """Return the bytes of the largest quantised weight as the multiplication may unpack it."""
    return max((module.weight.numel() * module.weight.element_size()
                for name, module in model.named_modules() if is_quantised(module, name, kind)),
               default=0)


def need(model, weights, peaks, tokens):
    """
    Add up what one frame and one question about the frame before it need.

    :param model: as meta_model gives it, in the dtype that is computed in.
    :param weights: one of WEIGHTS.
    :param peaks: as stage_peaks gives it.
    :return: dict of GiB: 'weights', STAGES, 'caches' (the older frame's and the question's copy),
        'total'; 'fits', the smallest of CARDS_GIB, None where it fits none.
    """
    kind = weights if weights in KINDS else ''
    held = packed_bytes(model, kind)
    extra = unpacked_bytes(model, kind) if kind else 0
    older = cache_bytes(model.config, tokens + PREFIX_TOKENS, model.dtype)
    caches = 2 * older + cache_bytes(model.config, QUESTION_TOKENS, model.dtype)
    total = (held + extra + caches + max(peaks.values())) / GIB
    fits = [card for card in CARDS_GIB if total + RESERVE_GIB <= card]
    return {'weights': held / GIB, **{stage: peaks[stage] / GIB for stage in STAGES},
            'caches': caches / GIB, 'total': total, 'fits': fits[0] if fits else None}


def compute(models, token_counts):
    """Compute the need of models ('nano', '4b', '8b', or a folder) at numbers of image tokens."""
    rows = []
    for name in models:
        config = config_of(name)
        most = config.max_pixels // config.token_px ** 2
        grids = dict.fromkeys(grid_of(min(count, most)) for count in token_counts)
        model = meta_model(config, torch.float32)
        for weights in WEIGHTS:
            model = model.to(DTYPES.get(weights, torch.bfloat16))
            for grid in grids:
                tokens = grid[0] * grid[1]
                rows.append({'model': name, 'dtype': weights, 'tokens': tokens, **need(
                    model, weights, stage_peaks(model, *grid), tokens)})
    return rows


def config_of(name):
    """
    Return the configuration of a model.

    :raises CheckpointError: none by that name.
    """
    if name in PUBLISHED:
        return published_config(name)
    return checkpoint.read_config(checkpoint.locate(name))


def measure(name, device='auto', dtype='auto'):
    """
    Look at a 640 x 480 image, and hold what that took against what is computed for it.

    On a GPU by its allocator; on a CPU by the profiler's record of every allocation.

    :return: dict: 'weights' and 'peak' (of one look, beyond the weights), bytes, each 'computed',
        'measured' and 'ratio' (measured over computed); 'tokens', 'device', 'dtype'.
    :raises CheckpointError: no such model.
    """
    on_gpu = torch.cuda.is_available() and str(device) != 'cpu'
    before = torch.cuda.memory_allocated() if on_gpu else 0
    predictor = predictor_of(name, device, dtype)
    rgb = np.full((MEASURED_CAMERA.height, MEASURED_CAMERA.width, 3), 90, np.uint8)
    held = []

    def look():
        held.append(predictor.look(rgb, MEASURED_CAMERA))

    look()      # what is set up once and stays is not the look's
    held.clear()
    if predictor.device.type == 'cuda':
        weights = torch.cuda.memory_allocated() - before
        peak = gpu_peak(look)
    else:
        weights = sum(weight.numel() * weight.element_size()
                      for weight in predictor.model.parameters())
        peak = cpu_peak(look)
    plan = plan_resize(MEASURED_CAMERA, predictor.config)
    rows, columns = (side // predictor.config.token_px for side in plan.final[::-1])
    model = meta_model(predictor.config, predictor.model.dtype)
    computed = {'weights': packed_bytes(model),
                'peak': max(stage_peaks(model, rows, columns).values())}
    measured = {'weights': weights, 'peak': peak}
    return {'model': name, 'tokens': rows * columns, 'device': str(predictor.device),
            'dtype': str(predictor.model.dtype).removeprefix('torch.'),
            **{key: {'computed': computed[key], 'measured': measured[key],
                     'ratio': measured[key] / computed[key]} for key in measured}}


def gpu_peak(call):
    """Return the most bytes that a call held on the GPU beyond those before it."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def cpu_peak(call):
    """Return the most bytes of tensors that a call held on the CPU beyond those before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        call()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'trace.json'
        record.export_chrome_trace(str(path))
        events = json.loads(path.read_text())['traceEvents']
    changes = sorted((event['ts'], event['args']['Bytes']) for event in events
                     if event.get('name') == '[memory]' and event['args']['Device Type'] == 0)
    return int(max(np.cumsum([size for _, size in changes]), default=0))


def print_table(result):
    """Print the figures for people."""
    print('GiB for one image and one open question, attention fused; fits: the smallest card of '
          f'{", ".join(map(str, CARDS_GIB))} GiB,\n{RESERVE_GIB} GiB of it kept for CUDA itself')
    print('model  weights    tokens  weights   vision language     head   caches    total  fits')
    for row in result['needs']:
        figures = ' '.join(f'{row[key]:8.3f}' for key in ('weights', *STAGES, 'caches', 'total'))
        print(f"{row['model'][-6:]:6} {row['dtype']:9} {row['tokens']:7} {figures} "
              f"{row['fits'] or '-':>5}")
    for found in result['measured']:
        print(f"{found['model']} on {found['device']}, {found['dtype']}, "
              f"{found['tokens']} tokens:")
        for key, name in (('weights', 'weights'), ('peak', 'one look beyond them')):
            print(f"  {name:21} computed {found[key]['computed'] / 1e6:10.2f} MB, measured "
                  f"{found[key]['measured'] / 1e6:10.2f} MB, ratio {found[key]['ratio']:.2f}")


def parsed(args):
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--models', nargs='+', default=['nano', *PUBLISHED],
                        help="'nano', '4b', '8b', folders or hub ids (%(default)s)")
    parser.add_argument('--tokens', nargs='+', type=int, default=[300, 600, 1344],
                        help='numbers of image tokens (%(default)s)')
    parser.add_argument('--measure', nargs='*', default=['nano'], metavar='MODEL',
                        help='what is run and measured here (%(default)s)')
    parser.add_argument('--device', default='auto', help='to measure on')
    parser.add_argument('--dtype', default='auto', help='to measure in')
    options = parser.parse_args(args)
    if min(options.tokens) < 1:
        parser.error(f'--tokens is {options.tokens}, wanted >= 1')
    return options


def main(args=None):
    """Parse the command line, compute, measure, print; 1 where a model cannot be had."""
    options = parsed(args)
    try:
        needs = compute(options.models, options.tokens)
        measured = [measure(name, options.device, options.dtype) for name in options.measure]
    except CheckpointError as error:
        print(error, file=sys.stderr)
        return 1
    device = measured[0]['device'] if measured else 'meta'
    result = {**provenance(device), 'reserve_gib': RESERVE_GIB, 'needs': needs,
              'measured': measured}
    print_table(result)
    print(json.dumps(result))
    return 0


if __name__ == '__main__':
    sys.exit(main())
