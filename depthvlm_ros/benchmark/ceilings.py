# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a device can do at most, and what a pass asks of it: operations and bytes."""

from __future__ import annotations

import time

import torch
from torch.utils.flop_counter import FlopCounterMode

ROUNDS = 5
MATRIX = {'cuda': 8192, 'cpu': 1536}            # rows and columns of the matrix product
COPIED = {'cuda': 2**30, 'cpu': 2**27}          # bytes of the copy


def synchronise(device):
    """Wait until a device has done what it was given."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def best_time_s(work, device):
    """Return the shortest of a few runs, in s."""
    work()
    spent = []
    for _ in range(ROUNDS):
        synchronise(device)
        began = time.perf_counter()
        work()
        synchronise(device)
        spent.append(time.perf_counter() - began)
    return min(spent)


@torch.inference_mode()
def measure_ceilings(device, dtype):
    """
    Measure a large matrix product and a large copy.

    :param device: torch.device.
    :return: dict: 'flops' (operations a second, a multiplication and an addition being two) and
        'bytes_s' (read and written).
    """
    side = MATRIX.get(device.type, MATRIX['cpu'])
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    flops = 2 * side**3 / best_time_s(lambda: left @ right, device)
    size = COPIED.get(device.type, COPIED['cpu'])
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    bytes_s = 2 * size / best_time_s(lambda: target.copy_(source), device)
    return {'flops': flops, 'bytes_s': bytes_s}


def attention_flops(query, key, value, *_, **__):
    """
    Return the operations of one attention, its shapes given as (B, heads, S, width).

    torch's own formula knows no CPU, and in older versions no key heads that several query heads
    share.
    """
    batch, heads, asked, width = query
    return 2 * batch * heads * asked * key[2] * (width + value[3])


ATTENTION = {getattr(torch.ops.aten, name): attention_flops for name in (
    '_scaled_dot_product_flash_attention', '_scaled_dot_product_flash_attention_for_cpu',
    '_scaled_dot_product_efficient_attention', '_scaled_dot_product_cudnn_attention')
    if hasattr(torch.ops.aten, name)}


def count_flops(work):
    """Count the operations of matrix products, convolutions and attention that work() runs."""
    with FlopCounterMode(display=False, custom_mapping=ATTENTION) as counter:
        work()
    return counter.get_total_flops()


def size_of(modules):
    """Return the bytes that the weights of some modules take."""
    return sum(weight.nbytes for module in modules for weight in module.parameters())


def bytes_of(model, cached_tokens):
    """
    Return what has to be read from memory at least.

    :param model: DepthVLM.
    :param cached_tokens: tokens in the key-value cache when a token is decoded.
    :return: dict: 'look', the weights that a pass for depth needs; 'token', those that a decoded
        token needs, and the cache.
    """
    text, config = model.model.language_model, model.config.text_config
    one_token = (2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
                 * model.dtype.itemsize)
    layers = size_of([text.layers, text.norm])
    return {'look': layers + size_of([model.model.visual, model.depth_head]),
            'token': layers + size_of([model.lm_head]) + cached_tokens * one_token}
