# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The vision tower while training on a CPU: images of one grid together, with few passes over memory.

transformers' tower attends image by image, and turns queries and keys in float32. On a CPU, where
the products cost less than moving their operands, that is a third of a block's time.
"""

from types import SimpleNamespace

from depthvlm_ros.model import vision_pass
from depthvlm_ros.model.vision_pass import turned
import torch


def encode(visual, hidden_states, grid_thw, **_):
    """
    Run the vision tower; arguments and the result's fields as Qwen3VLVisionModel.forward has them.

    :param hidden_states: (patches of all images, 1536).
    :param grid_thw: (images, 3), each image's grid of patches.
    """
    grids = [tuple(grid) for _, *grid in grid_thw.tolist()]
    patches = hidden_states.split([rows * columns for rows, columns in grids])
    tokens, deepstack = [None] * len(grids), [None] * len(grids)
    for grid in dict.fromkeys(grids):
        same = [i for i, g in enumerate(grids) if g == grid]
        out, features = vision_pass.encode(visual, torch.cat([patches[i] for i in same]),
                                           vision_pass.grid_tables(visual, *grid), attend)
        for place, i in enumerate(same):
            tokens[i] = out[place]
            deepstack[i] = [feature[place] for feature in features]
    return SimpleNamespace(
        pooler_output=torch.cat(tokens),
        deepstack_features=[torch.cat(features) for features in zip(*deepstack)])


def attend(attention, x, tables):
    """Return the attention's output, (B, patches, hidden), as vision_pass.attend has it."""
    qkv = attention.qkv(x).unflatten(2, (3, attention.num_heads, -1))
    cos, sin = tables.cos.to(qkv.dtype), tables.sin.to(qkv.dtype)
    return attention.proj(Attend.apply(qkv, cos, sin, attention.scaling))


class Attend(torch.autograd.Function):
    """
    Attention within each image, turned by rows and columns, in the precision that it is given.

    :param qkv: (B, N, 3, heads, width).
    :param cos: (N, width / 2) of qkv's dtype; sin likewise.
    :param scaling: of the products of queries and keys.
    :return: (B, N, heads * width).
    """

    @staticmethod
    def forward(ctx, qkv, cos, sin, scaling):
        """Attend; keeps what backward needs."""
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        query, key = turned(query, cos, sin).mul_(scaling), turned(key, cos, sin)
        value = value.contiguous()
        attention = (query @ key.transpose(2, 3)).softmax(-1)
        ctx.save_for_backward(query, key, value, attention, cos, sin)
        ctx.scaling = scaling
        return (attention @ value).transpose(1, 2).flatten(2)

    @staticmethod
    def backward(ctx, grad):
        """Return the gradient of qkv; angles and scaling have none."""
        query, key, value, attention, cos, sin = ctx.saved_tensors
        batch, heads, number, width = query.shape
        grad = grad.unflatten(2, (heads, width)).transpose(1, 2).contiguous()
        of_qkv = grad.new_empty(batch, number, 3, heads, width)
        of_query, of_key, of_value = of_qkv.permute(2, 0, 3, 1, 4)
        of_value.copy_(attention.transpose(2, 3) @ grad)
        of_scores = torch._softmax_backward_data(
            grad @ value.transpose(2, 3), attention, -1, attention.dtype)
        turned((of_scores @ key).mul_(ctx.scaling), cos, -sin, of_query)
        turned(of_scores.transpose(2, 3) @ query, cos, -sin, of_key)
        return of_qkv, None, None, None
