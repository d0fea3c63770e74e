# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
From a camera's image to the network's patches: the released chain, in torch.

Bilinear to the canonical focal length, bicubic to multiples of 28, bicubic to multiples of 32
(upstream examples/run_demo.py and qwen-vl-utils 0.0.14, then Qwen3-VL's processor), each step
rounded to whole grey values as an image library does.
"""

from dataclasses import dataclass
import math

from depthvlm_ros.camera import check_image_size
import numpy as np
import torch
import torch.nn.functional as F

MAX_ASPECT = 200  # of width to height or back; qwen-vl-utils refuses beyond


@dataclass(frozen=True)
class ResizePlan:
    """
    The sizes that an image passes through, each (width, height) in px.

    :param canonical: at the canonical focal length.
    :param intermediate: after the hidden rounding.
    :param final: the network's image.
    :param depth_scale: by what the network's metres are multiplied: 1, unless the pixel bounds
        changed the focal length, or with the config's exact_focal anything did; then the focal
        length reached (the geometric mean of both axes') over the canonical one.
    """

    canonical: tuple[int, int]
    intermediate: tuple[int, int]
    final: tuple[int, int]
    depth_scale: float

    def grid(self, patch_size=16):
        """Return (1, rows, columns) of patches."""
        return 1, self.final[1] // patch_size, self.final[0] // patch_size


def fit_size(width, height, multiple, min_pixels, max_pixels):
    """
    Round a size to multiples within pixel bounds, half to even (qwen-vl-utils' smart_resize).

    :return: (width, height, bounded): bounded says whether a pixel bound decided.
    :raises ValueError: an aspect ratio beyond 200.
    """
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ValueError(f'the image is {width} x {height} px at the canonical focal length, '
                         f'wanted an aspect ratio up to {MAX_ASPECT}')
    w, h = (max(multiple, round(side / multiple) * multiple) for side in (width, height))
    if w * h > max_pixels:
        shrink = math.sqrt(width * height / max_pixels)
        w, h = (max(multiple, math.floor(side / shrink / multiple) * multiple)
                for side in (width, height))
        return w, h, True
    if w * h < min_pixels:
        grow = math.sqrt(min_pixels / (width * height))
        w, h = (math.ceil(side * grow / multiple) * multiple for side in (width, height))
        return w, h, True
    return w, h, False


def cut_to(width, height, multiple, most):
    """
    Shorten the longer side of a size that has more tokens than it may have.

    fit_size leaves such ones: long strips one token high, and small images that it enlarges.

    :param multiple: px of a token's side.
    :param most: tokens, >= 1.
    """
    across, down = width // multiple, height // multiple
    if across * down > most:
        if across >= down:
            across = max(1, most // down)
            down = min(down, most // across)
        else:
            down = max(1, most // across)
            across = min(across, most // down)
    return across * multiple, down * multiple


def plan_resize(intrinsics, config, max_image_tokens=0):
    """
    Plan the sizes of an image's way through the chain.

    :param intrinsics: the image's camera; each axis is scaled by its own focal length.
    :param config: DepthVLMConfig.
    :param max_image_tokens: most image tokens (one is 32 x 32 px); 0 sets no bound but the
        config's max_pixels.
    :raises ValueError: a negative token bound, an aspect ratio beyond 200, or a focal length so
        short that the canonical image would not be bearable.
    """
    if max_image_tokens < 0:
        raise ValueError(f'max_image_tokens is {max_image_tokens}, wanted >= 0')
    canonical = intrinsics.size_at_focal(config.canonical_fx)
    check_image_size(*canonical[::-1], 'the image at the canonical focal length')
    width, height, bounded = *canonical, False
    if config.intermediate_multiple > 1:
        area = config.intermediate_multiple ** 2
        width, height, bounded = fit_size(
            width, height, config.intermediate_multiple, 4 * area, 16384 * area)
    intermediate = width, height
    area = config.token_px ** 2
    most = min(config.max_pixels, max_image_tokens * area or config.max_pixels)
    least = min(config.min_pixels, most)
    width, height, bounded_last = fit_size(width, height, config.token_px, least, most)
    if max_image_tokens:
        width, height = cut_to(width, height, config.token_px, max_image_tokens)
    scale = 1.0
    if bounded or bounded_last or config.exact_focal:
        scale = math.sqrt(width * height / (canonical[0] * canonical[1]))
    return ResizePlan(canonical, intermediate, (width, height), scale)


def resize_u8(image, size, mode):
    """
    Resize whole grey values as Pillow does: antialiased, along u, rounded, along v, rounded.

    :param image: (C, H, W) float32 holding 0..255.
    :param size: (width, height) in px.
    :param mode: 'bilinear' or 'bicubic'.
    """
    width, height = size
    for target in ((image.shape[1], width), (height, width)):
        if tuple(image.shape[1:]) != target:
            image = F.interpolate(image[None], size=target, mode=mode, antialias=True)[0]
            image = (image + 0.5).floor().clamp(0, 255)  # halves go up, as in Pillow
    return image


def to_patches(image, vision_config):
    """
    Cut (3, H, W) into the vision tower's patches.

    :return: (patches, 3 * temporal * 16 * 16): rows of 2 x 2 blocks, the image repeated in time.
    """
    patch, merge = vision_config.patch_size, vision_config.spatial_merge_size
    time = vision_config.temporal_patch_size
    _, height, width = image.shape
    blocks = image.reshape(3, height // (patch * merge), merge, patch,
                           width // (patch * merge), merge, patch)
    blocks = blocks.permute(1, 4, 2, 5, 0, 3, 6)  # rows, columns, merge v, merge u, 3, v, u
    blocks = blocks.unsqueeze(5).expand(-1, -1, -1, -1, -1, time, -1, -1)
    return blocks.reshape(-1, 3 * time * patch * patch)


def as_image_tensor(rgb, device=None):
    """
    Check an RGB image and lay it out for torch.

    :param rgb: (H, W, 3) uint8, array or tensor.
    :return: (3, H, W) uint8 tensor on the device (the tensor's own where left out).
    :raises ValueError: another shape or dtype.
    """
    if not isinstance(rgb, np.ndarray | torch.Tensor):
        raise ValueError(f'rgb is a {type(rgb).__name__}, wanted an array or tensor (H, W, 3) '
                         'uint8')
    shape, dtype = tuple(rgb.shape), str(rgb.dtype).removeprefix('torch.')
    if len(shape) != 3 or shape[2] != 3 or dtype != 'uint8' or 0 in shape:
        raise ValueError(f'rgb is {shape} {dtype}, wanted (H, W, 3) uint8')
    if isinstance(rgb, np.ndarray):
        rgb = torch.from_numpy(np.require(rgb, requirements=['C', 'W']))
    return rgb.to(device or rgb.device).permute(2, 0, 1)


def check_size(image, intrinsics):
    """
    Check that an image, (3, H, W), has its camera's size.

    :raises ValueError: another size.
    """
    if tuple(image.shape[1:]) != (intrinsics.height, intrinsics.width):
        raise ValueError(f'the image is {image.shape[2]} x {image.shape[1]} px, its camera '
                         f'{intrinsics.width} x {intrinsics.height}: wanted the same')


def preprocess(rgb, intrinsics, config, max_image_tokens=0, device=None):
    """
    Bring an image to the canonical focal length and cut it into patches.

    :param rgb: (H, W, 3) uint8, array or tensor (on any device).
    :param intrinsics: its camera, of the same size.
    :param config: DepthVLMConfig.
    :param max_image_tokens: see plan_resize.
    :return: pixel_values (patches, 1536) float32 in [-1, 1], and image_grid_thw (1, 3) int64.
    :raises ValueError: a size that is not the camera's, a wrong shape or dtype.
    """
    image = as_image_tensor(rgb, device)
    check_size(image, intrinsics)
    plan = plan_resize(intrinsics, config, max_image_tokens)
    patches = patches_of(image, plan, config.vision_config)
    return patches, torch.tensor([plan.grid(config.vision_config.patch_size)],
                                 device=patches.device)


def patches_of(image, plan, vision_config):
    """
    Bring an image through its plan's sizes and cut it.

    :param image: (3, H, W) uint8.
    :param plan: ResizePlan.
    :return: (patches, 1536) float32 in [-1, 1].
    """
    image = resize_u8(image.float(), plan.canonical, 'bilinear')
    image = resize_u8(image, plan.intermediate, 'bicubic')
    image = resize_u8(image, plan.final, 'bicubic')
    return to_patches(image / 127.5 - 1.0, vision_config)
