# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
What a small model is told beside its answers; no part of the model that is saved.

Out of answers alone, a model begun from nothing learns late where to look for the thing that is
spoken of. So it is also taught, out of what the rooms know: to name what each image token shows
and how far that is, before the language model reads it and after; to let one attention head of
the middle layers look at the thing that was named last; and to keep at hand what is read there.
"""

from functools import partial

from depthvlm_ros.training import attention
from depthvlm_ros.training.gaze import NAMED_COLOURS, NAMED_KINDS
from depthvlm_ros.training.packing import IGNORED
import torch
import torch.nn.functional as F

GAZE_LAYERS = (1, 2)    # of the language model; the last may be left to the words
GAZE_HEAD = 0
LOOKING, READING_DEPTH, READING_PLACE = 0.3, 1.0, 1.5    # weights within the gaze loss
LEAST_MASS = 1e-4


class Naming(torch.nn.Module):
    """Say what each image token shows and how far it is."""

    def __init__(self, hidden):
        super().__init__()
        self.colour = torch.nn.Linear(hidden, len(NAMED_COLOURS))
        self.kind = torch.nn.Linear(hidden, len(NAMED_KINDS))
        self.log_depth = torch.nn.Linear(hidden, 1)

    def loss(self, hidden, names, log_depth):
        """
        Return the summed loss of both names and of the depth.

        :param hidden: (N, hidden) states at the image tokens.
        :param names: (2, N) int64, colours and kinds, IGNORED where not known.
        :param log_depth: (N,) ln(metres), NaN where not known; counted only where the token is
            named too, so that all sums are over the named tokens.
        """
        hidden = hidden.float()
        known = log_depth.isfinite() & (names[0] != IGNORED)
        off = self.log_depth(hidden).squeeze(-1)[known] - log_depth[known]
        return off.abs().sum() + sum(
            F.cross_entropy(layer(hidden), named, ignore_index=IGNORED, reduction='sum')
            for layer, named in zip((self.colour, self.kind), names))


class Hints(torch.nn.Module):
    """
    The losses of all hints.

    :param model: DepthVLM, whose middle layers are watched.
    :param with_gaze: False leaves the gaze out; with it the language model's attention must be
        training.attention's, which can be watched.

    Its attribute `watched` holds what they read of the pass just made, beside its last states.
    """

    def __init__(self, model, with_gaze=True):
        super().__init__()
        self.with_gaze = with_gaze
        hidden = model.config.text_config.hidden_size
        self.before, self.after = Naming(hidden), Naming(hidden)
        self.reading = torch.nn.Linear(hidden, 3)
        self.watched = {}
        model.model.visual.register_forward_hook(
            lambda _, __, out: self.watched.update(tokens=out.pooler_output))
        for layer in GAZE_LAYERS if with_gaze else ():
            watched = model.model.language_model.layers[layer].self_attn
            watched.watch = partial(self._watch, layer)

    def _watch(self, layer, query, key, mask, scaling):
        """Keep what one layer's gazing head looks with."""
        of_head = GAZE_HEAD * key.shape[1] // query.shape[1]
        self.watched[layer] = query[:, GAZE_HEAD], key[:, of_head], mask, scaling

    def _looks(self, layer, row, columns):
        """Return where the gazing head of a layer looks from some tokens of a row, (G, S)."""
        if layer not in self.watched:
            raise ValueError('the attention cannot be watched, wanted '
                             f'set_attn_implementation({attention.NAME!r})')
        query, key, mask, scaling = self.watched[layer]
        return attention.rows_of_attention(
            query[row], key[row], None if mask is None else mask[row, 0], scaling, columns)

    def forward(self, batch, is_image, hidden):
        """
        Compute the hints' losses of the pass just made.

        :param batch: samples.Batch.
        :param is_image: (B, S) bool, the image tokens.
        :param hidden: (B, S, hidden), the last hidden states.
        :return: (naming, gaze): sums over the named tokens, and over the gazes.
        """
        side = batch.token_px
        cells = [None if d is None else d[side // 2::side, side // 2::side].log()
                 for d in batch.depth_m]
        log_depth = batch.named_m.log()
        naming = (self.before.loss(self.watched['tokens'], batch.names, log_depth)
                  + self.after.loss(hidden[is_image], batch.names, log_depth))
        # Parameters without a part in a batch would stop several processes.
        gaze = sum(p.sum() for p in self.reading.parameters()) * 0.0
        if self.with_gaze and any(g is not None and len(g.columns) for g in batch.gazes):
            gaze = gaze + self._gaze(is_image, hidden, batch.gazes, cells)
        return naming, gaze

    def _gaze(self, is_image, hidden, gazes, cells):
        """
        Return the summed loss of a batch's gazes.

        :param is_image: (B, S) bool, the image tokens.
        :param hidden: (B, S, hidden), the last hidden states.
        :param gazes: for every image Gaze, or None.
        :param cells: for every image (rows, columns) ln(metres) at its tokens, or None.
        """
        images = is_image.any(1).nonzero().flatten().tolist()
        told = [(row, g, cell) for row, g, cell in zip(images, gazes, cells)
                if g is not None and len(g.columns)]
        rows = torch.cat([torch.full_like(g.columns, row) for row, g, _ in told])
        columns = torch.cat([g.columns for _, g, _ in told])
        wanted = is_image.new_zeros((len(rows), is_image.shape[1]))
        kept, at = [], 0
        for row, g, cell in told:
            seen = is_image[row].clone()
            seen[seen.int().argmax() - 1] = True    # the opening token
            wanted[at:at + len(g.columns), seen] = g.targets
            shown = g.targets[g.read, 1:].float()
            kept.append(shown / shown.sum(1, keepdim=True) @ places(cell))
            at += len(g.columns)
        even = torch.cat([g.even for _, g, _ in told])
        off_mark = 0.0
        for layer in GAZE_LAYERS:
            looks = torch.cat([self._looks(layer, row, g.columns) for row, g, _ in told])
            off_mark = off_mark + missed(looks, wanted, even) / len(GAZE_LAYERS)
        read = torch.cat([g.read for _, g, _ in told])
        off = self.reading(hidden[rows[read], columns[read]].float()) - torch.cat(kept)
        off = off.abs().sum(0)
        return LOOKING * off_mark + READING_DEPTH * off[0] + READING_PLACE * (off[1] + off[2])


def missed(looks, wanted, even):
    """
    Say by how much attention misses what it should be at.

    :param looks: (G, S) float32, attention.
    :param wanted: (G, S) bool.
    :param even: (G,) bool: minus the mean logarithm of the attention to each that is wanted;
        elsewhere minus the logarithm of the attention to all of them together.
    :return: the sum over all.
    """
    mass = -((looks * wanted).sum(1) + LEAST_MASS).log()
    each = -((looks + LEAST_MASS).log() * wanted).sum(1) / wanted.sum(1)
    return torch.where(even, each, mass).sum()


def places(cell):
    """
    Say where image tokens are.

    :param cell: (rows, columns) ln(metres) at the tokens.
    :return: (rows * columns, 3): ln(metres), u and v as shares of the image.
    """
    rows, columns = cell.shape
    v, u = torch.meshgrid((torch.arange(rows, device=cell.device) + 0.5) / rows,
                          (torch.arange(columns, device=cell.device) + 0.5) / columns,
                          indexing='ij')
    return torch.stack([cell, u, v], dim=-1).flatten(0, 1)
