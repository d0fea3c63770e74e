# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Where to look in a room's image while a conversation goes on.

At a thing, from its name on; at the image's opening token, where the thing that was named is not
there; at a place that is asked about; and, where things are counted, evenly at each of them and
at the opening token, so that their number can be read off.
"""

from dataclasses import dataclass
import re

from depthvlm_ros.synthetic.questions import pixel_at
from depthvlm_ros.synthetic.vocabulary import COLOURS, DOOR_COLOUR, PLURALS, SHAPES, SURFACES
from depthvlm_ros.training.packing import IGNORED
import torch

# What a token can be named: a colour (or none, for the room) and a kind of thing or surface.
NAMED_COLOURS = ('', *COLOURS, DOOR_COLOUR)
NAMED_KINDS = (*dict.fromkeys(SURFACES), *SHAPES, 'door')
DOOR = NAMED_COLOURS.index(DOOR_COLOUR), NAMED_KINDS.index('door')

# First digits say what is to be learnt; a hundredth of a metre is beyond what is seen.
DIGIT_WEIGHTS = (4.0, 2.0, 0.5, 0.3)

_PLACE = re.compile(r'\[(\d+), (\d+)\]')
_COUNTED = re.compile('|'.join((*PLURALS.values(), *(f'{colour} objects' for colour in COLOURS))))


@dataclass(frozen=True)
class Gaze:
    """
    Where to look while a conversation goes on.

    :param columns: (G,) int64, tokens of the row.
    :param targets: (G, 1 + image tokens) bool, what to look at: the image's opening token, then
        its own tokens.
    :param even: (G,) bool, look at all of it alike, instead of anywhere within it.
    :param read: (G,) bool, the hidden state there is also trained to tell depth and place of what
        it looks at (hints).
    """

    columns: torch.Tensor
    targets: torch.Tensor
    even: torch.Tensor
    read: torch.Tensor

    def to(self, device):
        """Return the gaze on a device."""
        return Gaze(*(x.to(device) for x in (self.columns, self.targets, self.even, self.read)))


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
        digits = [one(digit) for digit in '0123456789']
        self.digits = torch.tensor([token for token in digits if token is not None])
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


class Guide:
    """
    Say where to look in one frame.

    :param vocabulary: Vocabulary.
    :param frame: synthetic.Frame.
    :param names: (2, image tokens) int64, what each token's centre shows (rooms.token_names).
    :param grid: (rows, columns) of image tokens.
    """

    def __init__(self, vocabulary, frame, names, grid):
        self.vocabulary = vocabulary
        self.frame = frame
        self.names = names
        self.grid = grid
        self.present = {(NAMED_COLOURS.index(thing.colour), NAMED_KINDS.index(thing.shape))
                        for thing in frame.objects}

    def gaze(self, prefix_length, talks, asked):
        """
        Say where to look in a row.

        :param prefix_length: tokens before the first conversation.
        :param talks: list of (ids, targets), as packing.Row has them.
        :param asked: for each of them (question, kind).
        :return: Gaze.
        """
        rows, at = [], prefix_length
        for (ids, following), (question, kind) in zip(talks, asked):
            told = [column for column, token in enumerate(following) if token != IGNORED]
            if kind == 'count':
                rows += self._alike(told, at, self.counted(question))
            elif kind == 'what':
                rows += self._alike(told, at, self.place(question))
            else:
                rows += self._at_things(ids, at)
            at += len(ids)
        if not rows:
            return Gaze(torch.zeros(0, dtype=torch.long),
                        torch.zeros((0, 1 + self.names.shape[1]), dtype=torch.bool),
                        *(torch.zeros(0, dtype=torch.bool) for _ in range(2)))
        columns, targets, even, read = zip(*rows)
        return Gaze(torch.tensor(columns), torch.stack(targets), torch.tensor(even),
                    torch.tensor(read))

    def counted(self, question):
        """Return the targets of a question that counts, even; None where none is understood."""
        found = _COUNTED.search(question)
        if found is None:
            return None
        kind = found.group().removesuffix(' objects')
        targets = self._none()
        targets[0] = True
        for thing in self.frame.objects:
            if kind in (thing.colour, PLURALS.get(thing.shape)):
                targets[1 + self._token_at(*thing.pixel)] = True
        return targets, True, False

    def place(self, question):
        """Return the target of a question about a place; None where none is understood."""
        found = _PLACE.search(question)
        if found is None:
            return None
        u, v = pixel_at(self.frame, *map(int, found.groups()))
        token = self._token_at(u, v)
        targets = self._none()
        targets[1 + token] = True
        # What is read there is read at the token's centre, which may show something else.
        return targets, False, tuple(self.names[:, token].tolist()) == self._named_at(u, v)

    def _named_at(self, u, v):
        """Return what a pixel shows, as NAMED_COLOURS and NAMED_KINDS number it."""
        for thing in self.frame.objects:
            if thing.index == self.frame.object_ids[v, u]:
                return NAMED_COLOURS.index(thing.colour), NAMED_KINDS.index(thing.shape)
        return 0, NAMED_KINDS.index(SURFACES[self.frame.surfaces[v, u]])

    def _at_things(self, ids, at):
        """Look at what was named last; where that is not in view, at the opening token."""
        rows = []
        for column, named in enumerate(self.vocabulary.named_last(ids), start=at):
            if named is None:
                continue
            targets = self._none()
            targets[1:] = (self.names[0] == named[0]) & (self.names[1] == named[1])
            seen = bool(targets.any())
            if not seen and named in self.present:
                continue    # too small for the middle of any token
            targets[0] = not seen
            rows.append((column, targets, False, seen))
        return rows

    def _alike(self, columns, at, target):
        """Look at the same all along."""
        return [] if target is None else [(at + column, *target) for column in columns]

    def _none(self):
        return torch.zeros(1 + self.names.shape[1], dtype=torch.bool)

    def _token_at(self, u, v):
        """Return the number of the image token that holds a pixel."""
        height, width = self.frame.object_ids.shape
        row, column = ((2 * at + 1) * tokens // (2 * size) for at, tokens, size in zip(
            (v, u), self.grid, (height, width)))     # of the pixel's centre
        return row * self.grid[1] + column
