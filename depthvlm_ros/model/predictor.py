# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The model as its users meet it: load once; look at images; ask about them."""

from dataclasses import dataclass, field
import gc

from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.model import checkpoint, quantisation
from depthvlm_ros.model.capture import capture_for, download
from depthvlm_ros.model.computing import (
    compared_things,
    ComputedComparison,
    ComputedDistance,
    things_of,
)
from depthvlm_ros.model.decoding import Decoding
from depthvlm_ros.model.engine import Engine, to_camera
from depthvlm_ros.model.preprocessing import plan_resize, preprocess
from depthvlm_ros.model.prompt import Prompt
from depthvlm_ros.model.shortage import is_out_of_memory, let_go
import numpy as np
import torch
from transformers import DynamicCache

DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16, 'float16': torch.float16}


@dataclass(frozen=True)
class View:
    """
    An image that was looked at.

    :param depth_m: (H, W) float32, metres along the optical axis, NaN where invalid.
    :param intrinsics: the image's camera; the depth's too.
    :param image_tokens: how many tokens the network saw.
    :param cache: the key-value cache of [system text, image], which questions continue.
    :param next_position: multimodal position of the token after it.
    :param words_scale: what the metres in words about it are multiplied by.
    """

    depth_m: np.ndarray
    intrinsics: Intrinsics
    image_tokens: int
    cache: DynamicCache = field(repr=False)
    next_position: int
    words_scale: float = 1.0


def resolve_device(device):
    """
    Name the torch.device of 'auto', 'cpu', 'cuda' or 'cuda:N'.

    :raises ValueError: a device that is not there.
    """
    if str(device) == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        resolved = torch.device(device)
        if resolved.type not in ('cpu', 'cuda'):
            raise RuntimeError(f'{resolved.type} is not supported')
    except (RuntimeError, TypeError) as e:
        raise ValueError(f"device is {device!r}, wanted 'auto', 'cpu', 'cuda' or 'cuda:N'") from e
    if resolved.type == 'cuda' and (resolved.index or 0) >= torch.cuda.device_count():
        raise ValueError(f'device is {device!r}, but torch sees {torch.cuda.device_count()} CUDA '
                         "devices; wanted one of those, 'cpu' or 'auto'")
    return resolved


def resolve_dtype(dtype, device):
    """
    Name the torch.dtype of 'auto' (bfloat16 on a GPU, float32 on a CPU) or of a name.

    :raises ValueError: another name.
    """
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == 'auto':
        return torch.bfloat16 if device.type == 'cuda' else torch.float32
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}, wanted 'auto' or one of {', '.join(DTYPES)}")
    return DTYPES[dtype]


def cache_row(keys, values, row):
    """
    Return one row of keys and values as a cache of its own, copied: theirs may be used again.

    :param keys: for each layer (B, key heads, S, width); values likewise.
    """
    cache = DynamicCache()
    for number, (key, value) in enumerate(zip(keys, values)):
        cache.update(key[row:row + 1], value[row:row + 1], number)      # which copies
    return cache


class Predictor:
    """
    A loaded model.

    Not thread-safe: one thread owns it. Build it with `from_pretrained`.

    :param model: DepthVLM, on its device.
    :param tokenizer: the checkpoint's.
    :param name: of the model, told in errors and answers.
    :param max_image_tokens: most image tokens; 0 for no bound but the checkpoint's.
    :raises ValueError: a tokenizer that is not Qwen's, or has another image token than the config.
    """

    def __init__(self, model, tokenizer, name='', max_image_tokens=0):
        self.model = model
        self.tokenizer = tokenizer
        self.name = name
        self.max_image_tokens = max_image_tokens
        self.batches = True     # whether several images may share a pass, see batching
        self.prompt = Prompt.of(tokenizer, model.config.image_token_id)
        model.depth_head.to(memory_format=torch.channels_last)  # its maps come as rows of tokens
        self.engine = Engine(model, self.prompt, capture_for(model.device))

    @classmethod
    def from_pretrained(cls, name, *, device='auto', dtype='auto', revision=None,
                        max_image_tokens=0, quantise=''):
        """
        Load a checkpoint in the released layout.

        :param name: 'nano' (embedded; knows synthetic rooms only), a folder, or a hub id such as
            'JonnyYu828/DepthVLM-4B'.
        :param device: 'auto' (a GPU where there is one), 'cpu', 'cuda', 'cuda:N'.
        :param dtype: 'auto' (bfloat16 on a GPU, float32 on a CPU) or a name.
        :param revision: branch, tag or commit of a hub id.
        :param max_image_tokens: most image tokens, 0 for no bound but the checkpoint's; fewer are
            faster and coarser, and the depth stays metric.
        :param quantise: 'int8' or 'int4' weights, which need torchao; '' for those of dtype.
        :raises CheckpointError: a checkpoint that cannot be used; the text says why.
        :raises ValueError: a device, dtype or kind of weights that is not there, or no torchao.
        """
        if quantise:
            quantisation.check_kind(quantise)
        device = resolve_device(device)
        dtype = resolve_dtype(dtype, device)
        folder = checkpoint.locate(name, revision)
        config = checkpoint.read_config(folder)
        tokenizer = checkpoint.load_tokenizer(folder)
        model = checkpoint.load_model(
            folder, config, torch.device('cpu') if quantise else device, dtype)
        if quantise:
            quantisation.quantise(model, quantise, device)
        try:
            return cls(model, tokenizer, str(name), max_image_tokens or 0)
        except ValueError as e:
            raise checkpoint.CheckpointError(f'{folder}: {e}') from e

    @property
    def config(self):
        """Return the model's DepthVLMConfig."""
        return self.model.config

    @property
    def device(self):
        """Return the torch.device that the model is on."""
        return self.model.device

    def look(self, rgb, intrinsics):
        """
        Run the model once over an image.

        :param rgb: (H, W, 3) uint8, array or tensor.
        :param intrinsics: the image's (rectified) camera, of the same size.
        :return: View: depth of the input's size, and the cache that questions continue.
        :raises ValueError: a wrong shape, dtype or size.
        """
        return self.look_at_equal([(rgb, intrinsics)])[0]

    @torch.inference_mode()
    def look_at_equal(self, images):
        """
        Run the model once over images that have one size for the network.

        :param images: of (rgb, intrinsics) each, as `look` takes them.
        :return: list of their Views, each with a cache that holds nothing of the others.
        :raises ValueError: a wrong shape, dtype or size of one of them, or several sizes for the
            network.
        """
        plans = [self.plan(k) for _, k in images]
        if not self.engine.fits():
            return self._look_plainly(images, plans)
        planned = [(rgb, k, plan) for (rgb, k), plan in zip(images, plans)]
        try:
            return self._look_by_engine(planned)
        except RuntimeError as error:
            if not (is_out_of_memory(error) and let_go(self)):
                raise
        # What was held for passes and answers to come stood in the way; the error, which held
        # all that its pass had made, is gone by now.
        return self._look_by_engine(planned)

    def _look_by_engine(self, images):
        """Look as fast as can be; images are (rgb, intrinsics, plan) each."""
        seen, sizes = self.engine.run(images)
        depths_m = [download(depth_m) for depth_m in seen.depths_m]
        caches = [cache_row(seen.keys, seen.values, row) for row in range(len(images))]
        views = []
        for (_, k, _), size, (depth_m, wait), cache in zip(images, sizes, depths_m, caches):
            wait()
            tokens = size.tables.rows * size.tables.columns
            views.append(View(depth_m.numpy(), k, tokens, cache, size.next_position,
                              self.words_scale(size.plan)))
        return views

    @torch.inference_mode()
    def _look_plainly(self, images, plans):
        """Look by DepthVLM's own forward pass, whatever hangs on it."""
        ids, positions, pixels, grids, tokens = self.inputs_of(images)
        cache = DynamicCache()
        out = self.model(ids, pixel_values=pixels, image_grid_thw=grids, position_ids=positions,
                         past_key_values=cache, logits_to_keep=0)
        keys, values = ([getattr(layer, name) for layer in cache.layers]
                        for name in ('keys', 'values'))
        following = int(positions.max()) + 1
        views = []
        for row, ((_, k), plan, metres) in enumerate(zip(images, plans, out.depth_pred)):
            depth_m = to_camera(metres, k.height, k.width, plan.depth_scale).cpu().numpy()
            views.append(View(depth_m, k, tokens, cache_row(keys, values, row), following,
                              self.words_scale(plan)))
        return views

    def plan(self, intrinsics):
        """Return how a camera's images are resized for the network, a ResizePlan."""
        return plan_resize(intrinsics, self.config, self.max_image_tokens)

    def words_scale(self, plan):
        """Return what the metres in words about an image are multiplied by."""
        return plan.depth_scale if self.config.canonical_words else 1.0

    def inputs_of(self, images):
        """
        Return what DepthVLM's own forward pass takes, up to the end of the images.

        :param images: of (rgb, intrinsics) each, of one size for the network.
        :return: (ids (B, S), positions (3, B, S), pixels, grids (B, 3), tokens of one image).
        :raises ValueError: a wrong shape, dtype or size, or several sizes for the network.
        """
        chains = [preprocess(rgb, k, self.config, self.max_image_tokens, self.device)
                  for rgb, k in images]
        pixels, grids = (torch.cat(parts) for parts in zip(*chains))
        tokens = chains[0][0].shape[0] // self.config.vision_config.spatial_merge_size ** 2
        ids = torch.tensor([self.prompt.prefix(tokens)] * len(images), device=self.device)
        positions = self.model.positions(ids, image_grid_thw=grids)
        return ids, positions, pixels, grids, tokens

    def begin(self, view, question, max_tokens=128, compute_distances=False, depth_m=None):
        """
        Begin an answer that the caller steps through token by token.

        :param view: what `look` returned.
        :param question: a person's words.
        :param max_tokens: most tokens of the answer.
        :param compute_distances: where a distance is asked for, or which of two things is
            closer, let the model point too, and measure there, see computing.
        :param depth_m: to measure in for compute_distances, (H, W) float32, metres, NaN invalid;
            None: the view's.
        :return: Decoding, or computing.ComputedDistance.
        :raises ValueError: max_tokens below 1.
        """
        def decode(words, most):
            return Decoding(self.model, self.tokenizer, self.prompt, view, words, most,
                            self.engine.steps)
        if compute_distances:
            for kind, things in ((ComputedDistance, things_of(question)),
                                 (ComputedComparison, compared_things(question))):
                if things:
                    return kind(decode, question, things,
                                view.depth_m if depth_m is None else depth_m, view.intrinsics,
                                max_tokens)
        return decode(question, max_tokens)

    def ask(self, view, question, max_tokens=128, compute_distances=False):
        """Answer a question about a view: `begin`, stepped to its end; returns Answer."""
        decoding = self.begin(view, question, max_tokens, compute_distances)
        while decoding.step():
            pass
        return decoding.answer()

    def close(self):
        """Free the model and its device memory; the predictor is of no use afterwards."""
        on_gpu = self.model is not None and self.device.type == 'cuda'
        self.model = self.engine = None
        if on_gpu:
            gc.collect()    # what only cycles still hold of it, captured passes for instance
            torch.cuda.empty_cache()
