# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
What a small model is told beside its answers; no part of the model that is saved.

Out of answers alone, a model begun from nothing learns late where to look for the thing that is
spoken of. So it is also taught, out of what the rooms know: to name what each image token shows
and how far that is, before the language model reads it and after; to let one attention head of
the middle layers look at the thing that was named last; and to keep at hand what is read there.
"""

from dataclasses import dataclass

from depthvlm_ros.synthetic.vocabulary import COLOURS, DOOR_COLOUR, SHAPES, SURFACES
from depthvlm_ros.training.packing import IGNORED
import torch
import torch.nn.functional as F

# What a token can be named: a colour (or none, for the room) and a kind of thing or surface.
NAMED_COLOURS = ('', *COLOURS, DOOR_COLOUR)
NAMED_KINDS = (*dict.fromkeys(SURFACES), *SHAPES, 'door')
DOOR = NAMED_COLOURS.index(DOOR_COLOUR), NAMED_KINDS.index('door')

GAZE_LAYERS = (1, 2)    # of the language model; the last may be left to the words
GAZE_HEAD = 0
LOOKING, READING_DEPTH, READING_PLACE = 0.3, 1.0, 1.5    # weights within the gaze loss
# First digits say what is to be learnt; a hundredth of a metre is beyond what is seen.
DIGIT_WEIGHTS = (4.0, 2.0, 0.5, 0.3)


@dataclass(frozen=True)
class Gaze:
    """
    Where to look while a conversation goes on.

    :param columns: (G,) int64, tokens of the row.
    :param tokens: (G, image tokens) bool, where the thing that was named last is seen.
    """

    columns: torch.Tensor
    tokens: torch.Tensor

    def to(self, device):
        """Return the gaze on a device."""
        return Gaze(self.columns.to(device), self.tokens.to(device))


class Vocabulary:
    """The tokens that name things, and those of digits."""

    def __init__(self, tokenizer):
        def one(word):
            ids = tokenizer(word, add_special_tokens=False)['input_ids']
            return ids[0] if len(ids) == 1 else None
        self.colours = {one(f' {name}'): i for i, name in enumerate(NAMED_COLOURS)
                        if name in COLOURS}
        self.kinds = {one(f' {name}'): i for i, name in enumerate(NAMED_KINDS)
                      if name in (*SHAPES, 'door')}
        self.digits = torch.tensor([one(digit) for digit in '0123456789'])
        self.point = one('.')

    def named_last(self, ids):
        """Return for every token which thing was named last: (colour, kind), or None."""
        named, colour, last = None, None, []
        for token in ids:
            if token in self.colours:
                named, colour = None, self.colours[token]
                last.append(None)
                continue
            if token in self.kinds:
                kind = self.kinds[token]
                if kind == DOOR[1]:
                    named = DOOR
                elif colour is not None:
                    named = colour, kind
            colour = None
            last.append(named)
        return last

    def gaze(self, row, names):
        """
        Say where to look in a row.

        :param row: packing.Row.
        :param names: (2, image tokens) int64, as rooms.token_names gives them.
        :return: Gaze.
        """
        columns, tokens, at = [], [], len(row.prefix)
        for ids, _ in row.talks:
            for column, named in enumerate(self.named_last(ids), start=at):
                seen = named and (names[0] == named[0]) & (names[1] == named[1])
                if named and seen.any():
                    columns.append(column)
                    tokens.append(seen)
            at += len(ids)
        if not columns:
            return Gaze(torch.zeros(0, dtype=torch.long),
                        torch.zeros((0, names.shape[1]), dtype=torch.bool))
        return Gaze(torch.tensor(columns), torch.stack(tokens))

    def weights(self, targets):
        """
        Weigh supervised tokens: a number's digits by their place, all else 1.

        :param targets: (B, S) int64.
        :return: (B, S) float32, 0 where nothing is supervised.
        """
        weights = (targets != IGNORED).float()
        is_digit = torch.isin(targets, self.digits)
        goes_on = is_digit | (targets == self.point)
        for b, column in is_digit.nonzero().tolist():
            place = 0
            before = column - 1
            while before >= 0 and goes_on[b, before] and place < len(DIGIT_WEIGHTS) - 1:
                place += int(is_digit[b, before])
                before -= 1
            weights[b, column] = DIGIT_WEIGHTS[place]
        return weights


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
        :param log_depth: (N,) ln(metres), NaN where not known.
        """
        hidden = hidden.float()
        known = log_depth.isfinite()
        off = self.log_depth(hidden).squeeze(-1)[known] - log_depth[known]
        return off.abs().sum() + sum(
            F.cross_entropy(layer(hidden), named, ignore_index=IGNORED, reduction='sum')
            for layer, named in zip((self.colour, self.kind), names))


class Hints(torch.nn.Module):
    """
    The losses of all hints.

    :param model: DepthVLM, whose middle layers are watched.
    :param with_gaze: False leaves the gaze out; with it the attention must be 'eager', which
        alone says where it looks.
    """

    def __init__(self, model, with_gaze=True):
        super().__init__()
        self.with_gaze = with_gaze
        hidden = model.config.text_config.hidden_size
        self.before, self.after = Naming(hidden), Naming(hidden)
        self.reading = torch.nn.Linear(hidden, 3)
        self._watched = {}
        model.model.visual.register_forward_hook(
            lambda _, __, out: self._watched.update(tokens=out.pooler_output))
        for layer in GAZE_LAYERS:
            model.model.language_model.layers[layer].self_attn.register_forward_hook(
                lambda _, __, out, layer=layer: self._watched.update({layer: out[1]}))

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
        counts = [g[1] * g[2] for g in (batch.grid_thw // torch.tensor(
            [1, side // 16, side // 16], device=batch.grid_thw.device)).tolist()]
        log_depth = torch.cat([
            torch.full((n,), torch.nan, device=hidden.device) if c is None else c.flatten()
            for c, n in zip(cells, counts)])
        naming = (self.before.loss(self._watched['tokens'], batch.names, log_depth)
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
        seen = is_image.new_zeros((len(rows), is_image.shape[1]))
        wanted, at = [], 0
        for row, g, cell in told:
            seen[at:at + len(g.columns), is_image[row]] = g.tokens
            wanted.append(g.tokens.float() / g.tokens.sum(1, keepdim=True) @ places(cell))
            at += len(g.columns)
        mass = 0.0
        for layer in GAZE_LAYERS:
            if self._watched[layer] is None:
                raise ValueError("the attention says not where it looks, wanted 'eager' attention")
            looks = self._watched[layer][:, GAZE_HEAD][rows, columns].float()
            mass = mass - ((looks * seen).sum(1) + 1e-4).log().sum() / len(GAZE_LAYERS)
        off = self.reading(hidden[rows, columns].float()) - torch.cat(wanted)
        off = off.abs().sum(0)
        return LOOKING * mass + READING_DEPTH * off[0] + READING_PLACE * (off[1] + off[2])


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
