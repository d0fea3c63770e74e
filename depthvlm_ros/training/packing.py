# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Conversations as tokens, and several of them behind one image: none sees another.

The image's prefix stands once, each conversation behind it begins at the position where the
prefix ends, and a block mask lets it see the prefix and itself. The result is the same as asking
each alone, for one encoding of the image.
"""

from dataclasses import dataclass

from depthvlm_ros.model.prompt import encode_words
import torch

IGNORED = -100  # label of a token that is not supervised
LENGTH_STEP = 32  # few lengths: a CPU's products are compiled anew for each


@dataclass(frozen=True)
class Row:
    """
    One sample's tokens.

    :param prefix: list of P ids.
    :param positions: (3, P) int64, the prefix's multimodal positions.
    :param talks: list of (ids, targets), the conversations behind it.
    """

    prefix: list
    positions: torch.Tensor
    talks: list


@dataclass(frozen=True)
class Packed:
    """
    B rows of tokens.

    :param input_ids: (B, S) int64.
    :param positions: (3, B, S) int64 multimodal positions.
    :param mask: (B, 1, S, S) float32 to be added to attention: 0 where a row may see a column,
        else the lowest number; None where causal attention says the same: with one conversation
        a row, padding stands behind everything.
    :param targets: (B, S) int64: the token that follows, at the answers alone; else IGNORED.
    """

    input_ids: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor | None
    targets: torch.Tensor


def conversation_ids(tokenizer, prompt, turns):
    """
    Encode questions and answers that follow each other behind a prefix.

    :param turns: list of (question, answer).
    :return: (ids, targets): lists of one length; the targets are the following token where it
        belongs to an answer or its end, so that no word of the prompt is supervised.
    """
    ids, told = [], []
    for number, (question, answer) in enumerate(turns):
        asked = [*(prompt.next_turn if number else ()), *encode_words(tokenizer, question),
                 *prompt.after_question]
        answered = [*encode_words(tokenizer, answer), *prompt.after_answer]
        ids += asked + answered
        told += [False] * len(asked) + [True] * len(answered)
    targets = [i if is_told else IGNORED for i, is_told in zip(ids[1:], told[1:])] + [IGNORED]
    return ids, targets


def pack(rows, pad_id):
    """
    Pack rows into a batch, whose length is a multiple of LENGTH_STEP.

    :param rows: list of Row.
    :param pad_id: fills up shorter rows.
    :return: Packed.
    """
    length = max(len(row.prefix) + sum(len(ids) for ids, _ in row.talks) for row in rows)
    length += -length % LENGTH_STEP
    batch = len(rows)
    ids = torch.full((batch, length), pad_id)
    targets = torch.full((batch, length), IGNORED)
    positions = torch.zeros((3, batch, length), dtype=torch.long)
    block = torch.full((batch, length), -1)  # 0: prefix; k: conversation k; -1: padding
    for b, row in enumerate(rows):
        at = len(row.prefix)
        ids[b, :at] = torch.tensor(row.prefix)
        positions[:, b, :at] = row.positions
        block[b, :at] = 0
        start = int(row.positions.max()) + 1
        for k, (words, following) in enumerate(row.talks, start=1):
            end = at + len(words)
            ids[b, at:end] = torch.tensor(words)
            targets[b, at:end] = torch.tensor(following)
            positions[:, b, at:end] = torch.arange(start, start + len(words))
            block[b, at:end] = k
            at = end
    mask = block_mask(block) if max(len(row.talks) for row in rows) > 1 else None
    return Packed(ids, positions, mask, targets)


def block_mask(block):
    """
    Let every token see what stands before it in its own block and in the prefix.

    :param block: (B, S) int64, 0 for the prefix.
    :return: (B, 1, S, S) float32, to be added.
    """
    length = block.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    same = block[:, :, None] == block[:, None, :]
    sees_prefix = (block[:, None, :] == 0).expand_as(same)
    seen = (causal & (same | sees_prefix))[:, None]
    return torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
