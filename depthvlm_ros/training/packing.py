# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Several questions behind one image: one sequence, in which no question sees another.

The image's prefix stands once, each question with its answer behind it begins at the position
where the prefix ends, and a block mask lets it see the prefix and itself. The result is the same
as asking each alone, for one encoding of the image.
"""

from dataclasses import dataclass

from depthvlm_ros.model.prompt import encode_words
import torch

IGNORED = -100  # label of a token that is not supervised


@dataclass(frozen=True)
class Packed:
    """
    A batch of packed conversations, B images of one grid.

    :param input_ids: (B, S) int64.
    :param positions: (3, B, S) int64 multimodal positions.
    :param mask: (B, 1, S, S) float32 to be added to attention: 0 where a row may see a column,
        else the lowest number.
    :param targets: (B, S) int64: the token that follows, at the answers alone; else IGNORED.
    """

    input_ids: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    targets: torch.Tensor


def conversation_ids(tokenizer, prompt, question, answer):
    """
    Encode a question and its answer behind an image's prefix.

    :return: (ids, targets): lists of one length; the targets are the following token where it
        belongs to the answer or its end, so that no word of the prompt is supervised.
    """
    asked = [*encode_words(tokenizer, question), *prompt.after_question]
    told = [*encode_words(tokenizer, answer), *prompt.after_answer]
    ids = asked + told
    targets = [IGNORED] * (len(asked) - 1) + told + [IGNORED]
    return ids, targets


def pack(prefix_ids, prefix_positions, conversations, pad_id):
    """
    Pack conversations behind the prefix of their images.

    :param prefix_ids: list of P ids, the same for all images (one grid).
    :param prefix_positions: (3, P) int64.
    :param conversations: for each image a list of (ids, targets).
    :param pad_id: fills up shorter rows.
    :return: Packed.
    """
    start = int(prefix_positions.max()) + 1
    first = len(prefix_ids)
    length = first + max(sum(len(ids) for ids, _ in row) for row in conversations)
    batch = len(conversations)
    ids = torch.full((batch, length), pad_id)
    targets = torch.full((batch, length), IGNORED)
    positions = torch.zeros((3, batch, length), dtype=torch.long)
    block = torch.full((batch, length), -1)  # 0: prefix; k: conversation k; -1: padding
    ids[:, :first] = torch.tensor(prefix_ids)
    positions[:, :, :first] = prefix_positions[:, None]
    block[:, :first] = 0
    for b, row in enumerate(conversations):
        at = first
        for k, (words, following) in enumerate(row, start=1):
            end = at + len(words)
            ids[b, at:end] = torch.tensor(words)
            targets[b, at:end] = torch.tensor(following)
            positions[:, b, at:end] = torch.arange(start, start + len(words))
            block[b, at:end] = k
            at = end
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    same = block[:, :, None] == block[:, None, :]
    sees_prefix = (block[:, None, :] == 0).expand_as(same)
    seen = (causal & (same | sees_prefix))[:, None]
    mask = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
    return Packed(ids, positions, mask, targets)
