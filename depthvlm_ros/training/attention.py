# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Attention while training: plain products, in the computation's own precision, that can be watched.

transformers' eager attention goes through float32, which on a CPU costs more than the products
themselves, and hands out whole maps of attention where a few rows are wanted; its fused one is
slow backwards there (docs/experiments.md).
"""

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

NAME = 'depthvlm_training'    # for set_attn_implementation


def attend(module, query, key, value, attention_mask, scaling, dropout=0.0, **_):
    """
    Attend; arguments and result as transformers' attention functions have them.

    A module with an attribute `watch` has it called with query, key, mask and scaling.

    :param query: (B, heads, S, width); key and value: (B, key heads, S, width).
    :param attention_mask: (B, 1, S, S), to be added; None: everything is seen.
    :return: ((B, S, heads, width), None).
    """
    watch = getattr(module, 'watch', None)
    if watch is not None:
        watch(query, key, attention_mask, scaling)
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    scores = (query * scaling) @ key.transpose(2, 3)
    if attention_mask is not None:
        scores = scores + attention_mask.to(scores.dtype)
    return (scores.softmax(-1) @ value).transpose(1, 2).contiguous(), None


def rows_of_attention(query, key, mask, scaling, columns):
    """
    Work out some rows of one head's attention again.

    :param query: (S, width), key likewise, of one sample.
    :param mask: (S, S), to be added; None: causal.
    :param columns: (G,) int64, the tokens that look.
    :return: (G, S) float32.
    """
    scores = query[columns].float() @ key.float().T * scaling
    if mask is None:
        ahead = torch.arange(len(key), device=key.device) > columns[:, None]
        scores = scores.masked_fill(ahead, -torch.inf)
    else:
        scores = scores + mask[columns].float()
    return scores.softmax(-1)


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, eager_mask)
