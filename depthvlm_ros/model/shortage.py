# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What to do when the device has run out of memory."""

from __future__ import annotations

from depthvlm_ros.model.preprocessing import plan_resize
import torch

LEAST_TOKENS = 16
# How CUDA, its libraries, and torch's allocator of the host say it; it has no type of its own.
SAID = 'out of memory', 'ALLOC_FAILED', "can't allocate memory"


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an exception says that memory ran out, on a GPU or on the host."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and any(said in str(error) for said in SAID))


def take_fewer_tokens(predictor, intrinsics) -> tuple[int, int]:
    """
    Halve the image tokens that a predictor takes of such images, and give back what is cached.

    Depth stays metric and grows coarser.

    :param predictor: model.Predictor; its max_image_tokens is changed.
    :param intrinsics: of the image that there was no memory for.
    :return: (tokens that it had, tokens that the next one may have): equal where it has as few
        as it can have.
    """
    token_px = predictor.config.token_px
    width, height = plan_resize(
        intrinsics, predictor.config, predictor.max_image_tokens).final
    had = (width // token_px) * (height // token_px)
    may = min(had, max(LEAST_TOKENS, had // 2))
    if may < had:
        predictor.max_image_tokens = may
    let_go(predictor)
    return had, may


def let_go(predictor) -> bool:
    """
    Give back the device memory that a predictor keeps but can do without.

    :return: whether it kept any.
    """
    kept = predictor.engine.forget()
    if predictor.device.type == 'cuda':
        torch.cuda.empty_cache()
    return kept
