# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The tokens of images through the language model, behind a system text that was read once.

The system text is the same for every image, and nothing that follows changes what it leaves in
the key-value cache. The layers' own weights and norms, in their own order, without masks to build
and without asking the device for a number; the same numbers (`pytest test/model/test_engine.py`).
"""

from dataclasses import dataclass

from depthvlm_ros.model.stepping import project_heads
import torch
import torch.nn.functional as F
from transformers import DynamicCache


@dataclass(frozen=True)
class Prefix:
    """
    What the text before an image leaves behind.

    :param keys: for each layer (1, key heads, length, width).
    :param values: likewise.
    :param length: its tokens, which is also the next position.
    """

    keys: list
    values: list
    length: int


def read_prefix(model, tokens):
    """
    Read the text before the image.

    :param model: DepthVLM.
    :param tokens: its ids, one at least.
    :return: Prefix.
    """
    device = model.device
    ids = torch.tensor([tokens], device=device)
    positions = torch.arange(len(tokens), device=device).expand(3, 1, -1)
    cache = DynamicCache()
    model.read(model.get_input_embeddings()(ids), positions, past_key_values=cache)
    return Prefix([layer.keys for layer in cache.layers],
                  [layer.values for layer in cache.layers], len(tokens))


def image_positions(start, rows, columns, after, device):
    """
    Return the positions (3, 1, S) of an image's tokens and of the text tokens behind it.

    :param start: position of the image; its tokens go on in rows and columns from there.
    :param after: how many text tokens follow, at start + max(rows, columns) and on.
    """
    v = torch.arange(rows, device=device)[:, None].expand(rows, columns)
    u = torch.arange(columns, device=device).expand(rows, columns)
    image = torch.stack((torch.zeros_like(v), v, u)).flatten(1)
    text = torch.arange(after, device=device).expand(3, -1) + max(rows, columns)
    return (torch.cat((image, text), dim=1) + start)[:, None]


def read_image(language_model, x, turns, prefix, deepstack):
    """
    Run the language model over images' tokens and the text tokens behind them.

    :param language_model: transformers' Qwen3VLTextModel.
    :param x: (B, S, hidden), a row an image, its tokens first.
    :param turns: cos and sin of their positions, the same in every row, (1, S, width) each.
    :param prefix: Prefix, which every row stands behind.
    :param deepstack: features (B, image tokens, hidden), added behind the first layers.
    :return: the last hidden states (B, S, hidden) behind the norm; keys and values, for each layer
        (B, key heads, prefix + S, width).
    """
    cos, sin = (angle[:, :, None] for angle in turns)
    keys, values = [], []
    for number, layer in enumerate(language_model.layers):
        out, key, value = attend(layer.self_attn, layer.input_layernorm(x), cos, sin,
                                 prefix.keys[number], prefix.values[number])
        keys.append(key)
        values.append(value)
        x = x + out
        x = x + layer.mlp(layer.post_attention_layernorm(x))
        if number < len(deepstack):
            added = deepstack[number]
            tokens = added.shape[1]
            x = torch.cat((x[:, :tokens] + added, x[:, tokens:]), dim=1)
    return language_model.norm(x), keys, values


def attend(attention, x, cos, sin, prefix_key, prefix_value):
    """Return one layer's attention output (B, S, hidden), and the keys and values so far."""
    query, key, value = (part.transpose(1, 2)
                         for part in project_heads(attention, x, cos, sin))
    key, value = (torch.cat((before.expand(len(x), -1, -1, -1), new), dim=2)
                  for before, new in ((prefix_key, key), (prefix_value, value)))
    # A row of zeros for each token of the prefix makes the causal mask square, which the fused
    # kernels know; what these rows give is dropped.
    before = prefix_key.shape[2]
    out = F.scaled_dot_product_attention(
        F.pad(query, (0, 0, before, 0)), key, value, is_causal=True, scale=attention.scaling,
        enable_gqa=True)
    return attention.o_proj(out[:, :, before:].transpose(1, 2).flatten(2)), key, value
