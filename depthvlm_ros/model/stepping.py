# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
One token at a time through the language model, with as little around it as can be.

The layers' own weights and norms, in their own order, over a key-value cache of fixed size. At
one token the general forward pass spends most of its time on masks, positions and copies of the
cache; none of these is needed here. It gives the same numbers (`pytest
test/model/test_stepping.py`).
"""

import torch
import torch.nn.functional as F

ROOM = 128      # tokens by which the cache grows, so that a bound that is never met costs nothing


class Steps:
    """
    The way of an answer's tokens, behind what is cached already.

    :param language_model: transformers' Qwen3VLTextModel.
    :param cache: a DynamicCache of one row, which is copied.
    :param position: of the next token: text has the same one on all three axes.
    :param most: how many tokens may come.
    """

    def __init__(self, language_model, cache, position, most):
        self._model = language_model
        self._position = position   # of the first token that has no angles yet
        self._filled = cache.layers[0].keys.shape[2]
        self._keys = [layer.keys for layer in cache.layers]
        self._values = [layer.values for layer in cache.layers]
        self._grow(min(most, ROOM))

    def step(self, token):
        """
        Read one more token.

        :param token: (1, 1) int64, on the model's device.
        :return: (1, hidden), the last hidden state after the norm.
        """
        if self._filled == self._keys[0].shape[2]:
            self._grow(ROOM)
        at = self._taken
        cos, sin = self._cos[:, at:at + 1, None], self._sin[:, at:at + 1, None]
        hidden = through_layers(self._model, token, self._attend, cos, sin)
        self._taken += 1
        self._filled += 1
        return hidden

    def _grow(self, tokens):
        """Make room for more tokens, in memory that nothing else holds, and their angles."""
        weight = self._model.norm.weight
        positions = torch.arange(self._position, self._position + tokens, device=weight.device)
        self._cos, self._sin = self._model.rotary_emb(weight, positions.expand(3, 1, -1))
        self._position += tokens
        self._taken = 0     # of these
        for held in (self._keys, self._values):
            for number, stored in enumerate(held):
                _, heads, length, width = stored.shape
                held[number] = stored.new_empty(1, heads, length + tokens, width)
                held[number][:, :, :self._filled] = stored[:, :, :self._filled]

    def _attend(self, attention, x, number, cos, sin):
        """Return the attention's output for one token, whose key and value are kept."""
        query, key, value = project_heads(attention, x, cos, sin)
        end = self._filled + 1
        self._keys[number][:, :, self._filled] = key[:, 0]
        self._values[number][:, :, self._filled] = value[:, 0]
        out = F.scaled_dot_product_attention(
            query.transpose(1, 2), self._keys[number][:, :, :end],
            self._values[number][:, :, :end], scale=attention.scaling, enable_gqa=True)
        return attention.o_proj(out.reshape(1, 1, -1))


def through_layers(language_model, token, attend, cos, sin):
    """
    Run one token through the layers.

    :param token: (1, 1) int64.
    :param attend: takes (attention, x, number of the layer, cos, sin), returns its output.
    :return: (1, hidden), the last hidden state after the norm.
    """
    x = language_model.embed_tokens(token)
    for number, layer in enumerate(language_model.layers):
        x = x + attend(layer.self_attn, layer.input_layernorm(x), number, cos, sin)
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    return language_model.norm(x)[:, -1]


def project_heads(attention, x, cos, sin):
    """
    Project hidden states to an attention's heads.

    :param attention: transformers' Qwen3VLTextAttention.
    :param x: (B, S, hidden).
    :param cos: (1, S, 1, width); sin likewise.
    :return: queries (B, S, heads, width) and keys (B, S, key heads, width), turned by their
        position, and values (B, S, key heads, width).
    """
    heads = (*x.shape[:2], -1, attention.head_dim)
    return (rotate(attention.q_norm(attention.q_proj(x).view(heads)), cos, sin),
            rotate(attention.k_norm(attention.k_proj(x).view(heads)), cos, sin),
            attention.v_proj(x).view(heads))


def rotate(x, cos, sin):
    """
    Turn heads by their position (RoPE, halves side by side).

    :param x: (B, S, heads, width).
    :param cos: (1, S, 1, width); sin likewise.
    """
    low, high = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-high, low), dim=-1) * sin
