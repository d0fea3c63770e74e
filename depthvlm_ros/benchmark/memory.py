# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
How much memory a model takes: `python -m depthvlm_ros.benchmark.memory`.

Computed from the configuration alone, on tensors that have sizes and no data: weights, key-value
caches, and the most that is alive at once in the vision tower, the language model and the depth
head. What can be run here is measured beside it. Prints a table and, last, one line of JSON.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
from pathlib import Path
import sys
import tempfile
import weakref

from depthvlm_ros.benchmark.provenance import json_line, provenance
from depthvlm_ros.benchmark.published import (
    build,
    predictor_of,
    PUBLISHED,
    published_config,
)
from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.model import checkpoint
from depthvlm_ros.model.engine import to_camera
from depthvlm_ros.model.predictor import DTYPES, resolve_device
from depthvlm_ros.model.preprocessing import patches_of, plan_resize, ResizePlan
from depthvlm_ros.model.quantisation import is_quantised, KINDS, packed_bytes
from depthvlm_ros.model.text_pass import image_positions, read_image, read_prefix
from depthvlm_ros.model.vision_pass import encode, grid_tables
from depthvlm_ros.options import at_least
import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.profiler import profile, ProfilerActivity
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

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

    :param known: tensors that are there before and are not counted, nor views of them.
    """

    def __init__(self, known=()):
        super().__init__()
        self.now = self.most = 0
        self._seen = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for x in tree_leaves(made):
            if isinstance(x, torch.Tensor):
                self._count(x.untyped_storage())
        return made

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
            return self._size_of(*args, **kwargs or {})
        return function(*args, **(kwargs or {}))

    @staticmethod
    def _size_of(query, key, value, *_, **__):
        return query.new_empty(*query.shape[:-1], value.shape[-1])


def grid_of(tokens):
    """Return (rows, columns) of about so many image tokens, in the aspect of 4 to 3."""
    rows = max(1, round(math.sqrt(tokens / ASPECT)))
    return rows, max(1, round(tokens / rows))


def fill_with_sizes(model):
    """Replace a model's weights and buffers by tensors of CPU kind, of what the mode makes."""
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for name, value in held.items():
                if value is not None:
                    empty = torch.empty(value.shape, dtype=value.dtype)
                    held[name] = (nn.Parameter(empty, requires_grad=False)
                                  if held is module._parameters else empty)


@torch.inference_mode()
def stage_peaks(model, plan, camera=None):
    """
    Run one image's pass on tensors without data, by the functions that the engine runs.

    :param model: DepthVLM on the meta device.
    :param plan: ResizePlan of the image.
    :param camera: its Intrinsics; left out: of the network's image.
    :return: dict: 'vision', 'language', 'head' -> the most bytes alive meanwhile, the image and
        what later stages need counted, the weights and what is kept for a size are not.
    """
    width, height = plan.final if camera is None else (camera.width, camera.height)
    config, model = model.config, copy.deepcopy(model)
    with FakeTensorMode(), FusedAttention():
        fill_with_sizes(model)
        inner, (_, rows, columns) = model.model, plan.grid(config.vision_config.patch_size)
        tables = grid_tables(inner.visual, rows, columns)
        prefix = read_prefix(model, [0] * PREFIX_TOKENS)
        closing = inner.get_input_embeddings()(torch.zeros(1, dtype=torch.int64))
        turns = inner.language_model.rotary_emb(closing, image_positions(
            PREFIX_TOKENS, tables.rows, tables.columns, 1, 'cpu'))
        kept = [*model.parameters(), *model.buffers(), *prefix.keys, *prefix.values, *turns,
                closing, *(x for x in vars(tables).values() if isinstance(x, torch.Tensor))]
        with Alive(kept) as alive:
            image = torch.empty(3, height, width, dtype=torch.uint8)
            patches = patches_of(image, plan, config.vision_config)
            tokens, deepstack = encode(inner.visual, patches, tables)
            peaks = {'vision': alive.lap()}
            x = torch.cat((tokens, closing[None]), dim=1)
            hidden, keys, values = read_image(inner.language_model, x, turns, prefix, deepstack)
            peaks['language'] = alive.lap()
            depth = model.depth_head([*deepstack, hidden[:, :tokens.shape[1]]],
                                     tables.rows, tables.columns)
            to_camera(depth[0], height, width, plan.depth_scale)
            peaks['head'] = alive.lap()
    return peaks


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

    :param model: DepthVLM on the meta device, in the dtype that is computed in.
    :param weights: one of WEIGHTS.
    :param peaks: as stage_peaks gives it.
    :return: dict of GiB: 'weights', STAGES, 'caches' (this frame's, the older one's and the
        question's copy of it), 'total'; 'fits', the smallest of CARDS_GIB, None where it fits
        none.
    """
    kind = weights if weights in KINDS else ''
    held = packed_bytes(model, kind)
    extra = unpacked_bytes(model, kind) if kind else 0
    caches = (3 * cache_bytes(model.config, tokens + PREFIX_TOKENS, model.dtype)
              + cache_bytes(model.config, QUESTION_TOKENS, model.dtype))
    total = (held + extra + caches + max(peaks.values())) / GIB
    fits = [card for card in CARDS_GIB if total + RESERVE_GIB <= card]
    return {'weights': held / GIB, **{stage: peaks[stage] / GIB for stage in STAGES},
            'caches': caches / GIB, 'total': total, 'fits': fits[0] if fits else None}


def compute(models, token_counts):
    """Compute the need of models ('nano', '4b', '8b', or a folder) at numbers of image tokens."""
    needs = []
    for name in models:
        config = config_of(name)
        side = config.token_px
        grids = dict.fromkeys(
            grid_of(min(count, config.max_pixels // side ** 2)) for count in token_counts)
        model = build(config, 'meta', torch.float32).to(torch.float32)
        for dtype in dict.fromkeys(DTYPES.get(weights, torch.bfloat16) for weights in WEIGHTS):
            model = model.to(dtype)
            for rows, columns in grids:
                size = columns * side, rows * side
                peaks = stage_peaks(model, ResizePlan(size, size, size, 1.0))
                needs += [{'model': name, 'dtype': weights, 'tokens': rows * columns,
                           **need(model, weights, peaks, rows * columns)}
                          for weights in WEIGHTS
                          if DTYPES.get(weights, torch.bfloat16) == dtype]
    order = {weights: place for place, weights in enumerate(WEIGHTS)}
    return sorted(needs, key=lambda row: (models.index(row['model']), order[row['dtype']],
                                          row['tokens']))


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
    resolved = resolve_device(device)
    before = torch.cuda.memory_allocated(resolved) if resolved.type == 'cuda' else 0
    predictor = predictor_of(name, device, dtype)
    rgb = np.full((MEASURED_CAMERA.height, MEASURED_CAMERA.width, 3), 90, np.uint8)
    held = []

    def look():
        held.append(predictor.look(rgb, MEASURED_CAMERA))

    with predictor.engine.direct():     # a captured pass does not tell what it holds meanwhile
        look()      # what is set up once and stays is not the look's
        held.clear()
        if predictor.device.type == 'cuda':
            weights = torch.cuda.memory_allocated(predictor.device) - before
            peak = gpu_peak(look, predictor.device)
        else:
            weights = sum(weight.numel() * weight.element_size()
                          for weight in predictor.model.parameters())
            peak = cpu_peak(look)
    plan = plan_resize(MEASURED_CAMERA, predictor.config)
    rows, columns = (side // predictor.config.token_px for side in plan.final[::-1])
    dtype = predictor.model.dtype
    model = build(predictor.config, 'meta', dtype).to(dtype)
    computed = {'weights': packed_bytes(model),
                'peak': max(stage_peaks(model, plan, MEASURED_CAMERA).values())}
    measured = {'weights': weights, 'peak': peak}
    return {'model': name, 'tokens': rows * columns, 'device': str(predictor.device),
            'dtype': str(predictor.model.dtype).removeprefix('torch.'),
            **{key: {'computed': computed[key], 'measured': measured[key],
                     'ratio': measured[key] / computed[key]} for key in measured}}


def gpu_peak(call, device):
    """Return the most bytes that a call held on a GPU beyond those before it."""
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


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
    parser.add_argument('--tokens', nargs='+', type=at_least(1), default=[300, 600, 1344],
                        help='numbers of image tokens (%(default)s)')
    parser.add_argument('--measure', nargs='*', default=['nano'], metavar='MODEL',
                        help='what is run and measured here (%(default)s)')
    parser.add_argument('--device', default='auto', help='to measure on')
    parser.add_argument('--dtype', default='auto', help='to measure in')
    return parser.parse_args(args)


def main(args=None):
    """Parse the command line, compute, measure, print; 2 where a model cannot be had."""
    options = parsed(args)
    try:
        needs = compute(options.models, options.tokens)
        measured = [measure(name, options.device, options.dtype) for name in options.measure]
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    device = measured[0]['device'] if measured else 'meta'
    result = {**provenance(device), 'reserve_gib': RESERVE_GIB, 'needs': needs,
              'measured': measured}
    print_table(result)
    print(json_line(result))
    return 0


if __name__ == '__main__':
    sys.exit(main())
