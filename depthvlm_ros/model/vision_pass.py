# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Images of one grid through the vision tower, with what depends on the grid worked out before.

The tower's own weights and layers, in their own order. The general forward pass works out, for
every image and through lists on the host, where its patches stand; a robot's camera has one size.
Nothing here asks the device for a number, so that the pass can be captured. It gives the same
numbers (`pytest test/model/test_engine.py`).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class GridTables:
    """
    What the vision tower needs to know of a grid, on its device.

    :param rows: image tokens along v.
    :param columns: image tokens along u.
    :param embedding: (patches, hidden), the learned positions, brought to the grid.
    :param cos: (patches, head width / 2) float32; sin likewise: the angles of rows and columns.
    """

    rows: int
    columns: int
    embedding: torch.Tensor
    cos: torch.Tensor
    sin: torch.Tensor


def patch_places(rows, columns, merge, device):
    """Return v and u, (patches,) int64 each, in the tower's order of 2 x 2 blocks."""
    blocks = (rows // merge, merge, columns // merge, merge)
    v = torch.arange(rows, device=device).view(*blocks[:2], 1, 1).expand(blocks)
    u = torch.arange(columns, device=device).view(1, 1, *blocks[2:]).expand(blocks)
    return tuple(place.permute(0, 2, 1, 3).flatten() for place in (v, u))


def grid_tables(visual, rows, columns):
    """
    Work out a grid's tables.

    :param visual: transformers' Qwen3VLVisionModel.
    :param rows: patches along v; columns: along u.
    :return: GridTables.
    """
    merge, learned = visual.spatial_merge_size, visual.pos_embed.weight
    v, u = patch_places(rows, columns, merge, learned.device)
    inverse = visual.rotary_pos_emb.inv_freq.float().to(learned.device)
    angles = torch.cat((v[:, None] * inverse, u[:, None] * inverse), dim=1)
    embedding = learned_positions(learned, v, rows, u, columns).to(learned.dtype)
    return GridTables(rows // merge, columns // merge, embedding, angles.cos(), angles.sin())


def learned_positions(learned, v, rows, u, columns):
    """
    Bring a square of learned positions to a grid, bilinear, corners on corners.

    :param learned: (side * side, hidden).
    :return: (patches, hidden) float32.
    """
    side = round(learned.shape[0] ** 0.5)
    total = 0
    for v_at, v_share in neighbours(v, rows, side):
        for u_at, u_share in neighbours(u, columns, side):
            total = total + learned[v_at * side + u_at].float() * (v_share * u_share)[:, None]
    return total


def neighbours(place, size, side):
    """Return the two neighbours on an axis of side places, and the share that each has."""
    at = place.float() * (side - 1) / max(size - 1, 1)
    low = at.floor()
    share = at - low
    low = low.long()
    return (low, 1 - share), ((low + 1).clamp(max=side - 1), share)


def encode(visual, patches, tables, attend_by=None):
    """
    Run the vision tower over images of one grid, none of which sees another.

    :param patches: (B * patches, 1536), image after image, each as `preprocess` gives it.
    :param tables: GridTables of the grid.
    :param attend_by: the attention, called as `attend` is; that where left out.
    :return: (B, tokens, hidden), and the DeepStack features, each of that shape.
    """
    embedded = embed_patches(visual.patch_embed, patches)
    x = embedded.unflatten(0, (-1, len(tables.embedding))) + tables.embedding
    features = []
    for number, block in enumerate(visual.blocks):
        x = x + (attend_by or attend)(block.attn, block.norm1(x), tables)
        x = x + block.mlp(block.norm2(x))
        if number in visual.deepstack_visual_indexes:
            of_layer = visual.deepstack_visual_indexes.index(number)
            features.append(merged(visual.deepstack_merger_list[of_layer], x))
    return merged(visual.merger, x), features


def merged(merger, x):
    """Return what a merger, which knows rows alone, makes of (B, patches, hidden)."""
    return merger(x).unflatten(0, (len(x), -1))


def embed_patches(patch_embed, patches):
    """
    Embed patches (patches, 1536): (patches, hidden).

    The convolution's kernel is one patch: it is a matrix product, and slow as a convolution.
    """
    project = patch_embed.proj
    return F.linear(patches.to(project.weight.dtype), project.weight.flatten(1), project.bias)


def attend(attention, x, tables):
    """Return the attention's output, (B, patches, hidden); a patch sees all of its image."""
    qkv = attention.qkv(x).unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    # In float32, as the tower does.
    query, key = turned(qkv[:2].float(), tables.cos, tables.sin).to(qkv.dtype)
    out = F.scaled_dot_product_attention(query, key, qkv[2])
    return attention.proj(out.transpose(1, 2).flatten(2))


def turned(x, cos, sin, out=None):
    """
    Turn the two halves of each head (RoPE, halves side by side).

    :param x: (..., N, width).
    :param cos: (N, width / 2) of the same dtype; sin likewise.
    :param out: where to; new memory where left out.
    """
    out = x.new_empty(x.shape) if out is None else out
    low, high = x.chunk(2, -1)
    of_low, of_high = out.chunk(2, -1)
    torch.mul(low, cos, out=of_low).addcmul_(high, sin, value=-1)
    torch.mul(high, cos, out=of_high).addcmul_(low, sin)
    return out
