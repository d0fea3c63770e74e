# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The model's pass over one image or several, as fast as the same numbers can be had.

What is the same for every image is worked out once: the system text's keys and values, and for
each size of image the positions of its patches and tokens. Images that have one size for the
network go through it as the rows of one pass. From the images' upload to the depth's download
nothing waits for the device, so that on a GPU the pass of a number and size of images that comes
again is captured and replayed as one. Whatever does not fit (another attention, a module that
somebody watches by a hook) goes the plain way through DepthVLM.forward, which gives the same
depth.
"""

from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass

from depthvlm_ros.model.capture import Captures, upload
from depthvlm_ros.model.preprocessing import as_image_tensor, check_size, patches_of, ResizePlan
from depthvlm_ros.model.slots import Slots
from depthvlm_ros.model.stepping import Steps
from depthvlm_ros.model.text_pass import image_positions, Prefix, read_image, read_prefix
from depthvlm_ros.model.vision_pass import encode, grid_tables, GridTables
import torch
import torch.nn.functional as F

MOST_SIZES = 16     # image sizes whose tables are kept; one takes a few MB at the 4B's widths


@dataclass(frozen=True)
class Size:
    """
    What is the same for every image of a size.

    :param height: of the camera's image, px; width likewise.
    :param plan: ResizePlan.
    :param tables: GridTables of the network's image.
    :param turns: cos and sin of the positions of the image's tokens and what closes it.
    :param next_position: multimodal position of the token behind them.
    """

    height: int
    width: int
    plan: ResizePlan
    tables: GridTables
    turns: tuple
    next_position: int


@dataclass(frozen=True)
class Pass:
    """
    What a pass gives, on the device.

    :param depths_m: for each image (H, W) float32 at its camera's size, NaN where invalid.
    :param keys: for each layer (B, key heads, S, width) of [system text, image], a row an image.
    :param values: likewise.
    """

    depths_m: list
    keys: list
    values: list


class Engine:
    """
    The passes of one model over images.

    Not thread-safe, as the predictor that owns it. Where weights have been changed since the last
    pass, what was kept of them is worked out anew.

    :param model: DepthVLM.
    :param prompt: prompt.Prompt.
    :param capture: see capture.Captures; None runs every pass directly.
    """

    def __init__(self, model, prompt, capture=None):
        self._model = model
        self._prompt = prompt
        self._captures = Captures(capture)
        self._slots = Slots(capture)
        self._direct = False
        self._watchable = list(model.modules())     # those that it has now
        self._sizes = OrderedDict()
        self._prefix: Prefix | None = None
        self._closing = None        # embeddings of what closes the image
        self._weights = None        # the state of the weights that all this was made from

    def fits(self):
        """Tell whether the model can be run by this engine as it stands."""
        model = self._model
        visual, language = model.model.visual, model.model.language_model
        gone_past = (model, model.model, visual, visual.patch_embed, *visual.blocks,
                     *(block.attn for block in visual.blocks), language, *language.layers,
                     *(layer.self_attn for layer in language.layers))
        return (all(part.config._attn_implementation == 'sdpa' for part in (visual, language))
                and not any(map(is_watched, gone_past)))

    @torch.inference_mode()
    def run(self, images):
        """
        Run the model once over images that have one size for the network.

        :param images: one at least, of (rgb, intrinsics, plan) each: (H, W, 3) uint8, array or
            tensor; its camera, of the same size; the ResizePlan for that camera.
        :return: (Pass, list of each image's Size).
        :raises ValueError: a wrong shape, dtype or size, or several sizes for the network.
        """
        finals = {plan.final for _, _, plan in images}
        if len(finals) != 1:
            raise ValueError(f'the images are {sorted(finals)} px for the network, wanted one '
                             'size for all')
        pixels = [as_image_tensor(rgb) for rgb, _, _ in images]
        for image, (_, intrinsics, _) in zip(pixels, images):
            check_size(image, intrinsics)
        self._forget_changed()
        sizes = [self._size(intrinsics, plan) for _, intrinsics, plan in images]
        seen = self._replay(pixels, sizes) if self._may_replay() else None
        if seen is None:
            seen = self._pass([upload(image, self._model.device) for image in pixels], sizes)
        return seen, sizes

    @torch.inference_mode()
    def steps(self, language_model, cache, position, most):
        """
        Return what reads an answer's tokens one at a time; arguments as those of Steps.

        :return: slots.SlotSteps where one is free and steps can be captured, else Steps.
        """
        found = None
        if self._may_replay():
            found = self._slots.take(language_model, cache, position, most)
        return found or Steps(language_model, cache, position, most)

    def forget(self):
        """
        Let go of the memory that captured passes hold, as where the device has no more.

        :return: whether there were any.
        """
        held = bool(len(self._captures) or len(self._slots))
        self._captures.clear()
        self._slots.clear()
        return held

    @contextmanager
    def direct(self):
        """Run everything directly meanwhile, nothing captured; as to count operations."""
        before, self._direct = self._direct, True
        try:
            yield
        finally:
            self._direct = before

    def _may_replay(self):
        """Tell whether a captured pass may stand for the modules' own."""
        return not (self._direct or any(map(is_watched, self._watchable)))

    def _replay(self, pixels, sizes):
        """Return the Pass of what was captured for such images, or None where nothing was."""
        key = len(pixels), *size_key(sizes[0])
        if any(size_key(size) != key[1:] for size in sizes) or not of_one_device(pixels):
            return None
        images = stacked(pixels)
        work = self._captures.of(key, lambda x: self._pass(x, sizes), images)
        return None if work is None else work(images)

    def _pass(self, images, sizes):
        """
        Return the Pass over images; nothing waits in it.

        :param images: for each (3, H, W) uint8 on the device.
        :param sizes: for each its Size, all of one grid.
        """
        model, tables = self._model, sizes[0].tables
        patches = [patches_of(image, size.plan, model.config.vision_config)
                   for image, size in zip(images, sizes)]
        patches = torch.cat(patches) if len(patches) > 1 else patches[0]    # one is not copied
        tokens, deepstack = encode(model.model.visual, patches, tables)
        closing = self._closing.expand(len(sizes), -1, -1)
        x = torch.cat((tokens.to(closing.dtype), closing), dim=1)
        hidden, keys, values = read_image(
            model.model.language_model, x, sizes[0].turns, self._prefix, deepstack)
        depths = model.depth_head([*deepstack, hidden[:, :tokens.shape[1]]],
                                  tables.rows, tables.columns)
        return Pass([to_camera(depth, size.height, size.width, size.plan.depth_scale)
                     for depth, size in zip(depths, sizes)], keys, values)

    def _size(self, intrinsics, plan):
        """Return what is known of a size, the newest of a bounded number."""
        key = (intrinsics.height, intrinsics.width, plan)
        if key not in self._sizes:
            self._sizes[key] = self._work_out(intrinsics.height, intrinsics.width, plan)
            if len(self._sizes) > MOST_SIZES:
                self._sizes.popitem(last=False)
        self._sizes.move_to_end(key)
        return self._sizes[key]

    def _work_out(self, height, width, plan):
        inner = self._model.model
        _, rows, columns = plan.grid(self._model.config.vision_config.patch_size)
        tables = grid_tables(inner.visual, rows, columns)
        positions = image_positions(self._prefix.length, tables.rows, tables.columns,
                                    len(self._prompt.after_image), self._model.device)
        turns = inner.language_model.rotary_emb(self._closing, positions)
        following = (self._prefix.length + max(tables.rows, tables.columns)
                     + len(self._prompt.after_image))
        return Size(height, width, plan, tables, turns, following)

    def _forget_changed(self):
        """Work out anew what was made from weights that are no longer those of the model."""
        weights = state_of(self._watchable)
        if weights == self._weights:
            return
        self._sizes.clear()
        self.forget()
        ids = torch.tensor(self._prompt.after_image, device=self._model.device)
        self._prefix = read_prefix(self._model, self._prompt.before_image)
        self._closing = self._model.get_input_embeddings()(ids)
        self._weights = weights


def is_watched(module):
    """Tell whether something hangs on a module's forward pass, which then has to take place."""
    return bool(module._forward_hooks or module._forward_pre_hooks
                or 'forward' in module.__dict__)


def size_key(size):
    """Return what tells captures of as many images apart."""
    return size.height, size.width, size.plan


def of_one_device(tensors):
    """Tell whether all tensors are on one device."""
    return len({tensor.device for tensor in tensors}) == 1


def stacked(images):
    """
    Return images as one tensor, laid out as they are; a single one is not copied.

    :param images: (3, H, W) each, of one size and device, laid out as (H, W, 3).
    :return: (B, 3, H, W).
    """
    if len(images) == 1:
        return images[0][None]
    return torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)


def state_of(modules):
    """Return what tells whether any weight was moved, converted, replaced or trained."""
    weights = [weight for module in modules for weight in module._parameters.values()
               if weight is not None]
    return [(id(weight), weight.dtype, weight.device,
             # Quantised weights are made of several tensors and have no address of their own.
             weight.data_ptr() if type(weight) is torch.nn.Parameter else 0,
             0 if weight.is_inference() else weight._version) for weight in weights]


def to_camera(depth, height, width, scale):
    """
    Bring the network's depth to the camera's size.

    :param depth: (h, w) float32, metres as seen at the canonical focal length.
    :param scale: ResizePlan.depth_scale.
    :return: (height, width) float32, metres, NaN where not finite.
    """
    depth = F.interpolate(depth[None, None], size=(height, width), mode='bilinear')[0, 0] * scale
    return depth.masked_fill(~depth.isfinite(), torch.nan)
