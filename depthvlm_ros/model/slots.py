# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Key-value memory of fixed size, in which a step of an answer can be captured and replayed.

A captured step always reads and writes the same memory, so each answer under way needs a place of
its own; there is a bounded number, and who finds none free decodes with stepping.Steps.
"""

import logging
import weakref

from depthvlm_ros.model.shortage import is_out_of_memory
from depthvlm_ros.model.stepping import project_heads, through_layers
import torch

MOST = 4            # answers under way at once that are replayed
LENGTH_STEP = 512   # tokens by which a slot's room is rounded up
LONGEST = 4096      # most room of a slot, tokens; of the 4B, 0.6 GB


class Slot:
    """
    Room for one answer: prefix, question and the answer's own tokens.

    :param language_model: transformers' Qwen3VLTextModel.
    :param layer: a layer of a cache, for shape and dtype.
    :param room: most tokens.
    :param capture: takes (work, example input), returns a callable of the same kind.
    """

    def __init__(self, language_model, layer, room, capture):
        self.room = room
        self.user = None        # weak reference to the SlotSteps that are at it
        self._model = language_model
        _, heads, _, width = layer.keys.shape
        new = layer.keys.new_zeros      # what is masked must be finite all the same
        count = len(language_model.layers)
        self._keys = [new(1, heads, room, width) for _ in range(count)]
        self._values = [new(1, heads, room, width) for _ in range(count)]
        self._cos, self._sin = (new(1, room, width) for _ in range(2))
        device = layer.keys.device
        self._filled = torch.zeros(1, dtype=torch.int64, device=device)
        self._places = torch.arange(room, device=device)
        self._step = capture(self._work, torch.zeros(1, 1, dtype=torch.int64, device=device))

    def begin(self, cache, position, most):
        """Take over what is cached; arguments as those of stepping.Steps."""
        filled = cache.layers[0].keys.shape[2]
        for number, layer in enumerate(cache.layers):
            self._keys[number][:, :, :filled] = layer.keys
            self._values[number][:, :, :filled] = layer.values
            self._values[number][:, :, filled:] = 0     # the last answer's may not be finite
        positions = torch.arange(position, position + most, device=self._filled.device)
        turns = self._model.rotary_emb(self._cos, positions.expand(3, 1, -1))
        for held, angles in zip((self._cos, self._sin), turns):
            held[:, filled:filled + most] = angles
        self._filled.fill_(filled)

    def step(self, token):
        """Read one more token, (1, 1) int64; return (1, hidden), which holds until the next."""
        return self._step(token)

    def _work(self, token):
        cos, sin = (held.index_select(1, self._filled)[:, :, None]
                    for held in (self._cos, self._sin))
        self._to_come = self._places > self._filled
        hidden = through_layers(self._model, token, self._attend, cos, sin)
        self._filled += 1
        return hidden

    def _attend(self, attention, x, number, cos, sin):
        """Return the attention's output for one token, whose key and value are kept."""
        query, key, value = project_heads(attention, x, cos, sin)
        keys, values = self._keys[number], self._values[number]
        keys.index_copy_(2, self._filled, key.transpose(1, 2))
        values.index_copy_(2, self._filled, value.transpose(1, 2))
        # All query heads of a key head at once: nothing of the cache is repeated.
        query = query.view(keys.shape[1], -1, attention.head_dim)
        scores = (query @ keys[0].transpose(1, 2)).float() * attention.scaling
        scores = scores.masked_fill(self._to_come, -torch.inf)
        out = scores.softmax(-1).to(x.dtype) @ values[0]
        return attention.o_proj(out.view(1, 1, -1))


class SlotSteps:
    """The way of one answer's tokens in a slot, which is free again once this is let go."""

    def __init__(self, slot):
        self._slot = slot

    def step(self, token):
        """Read one more token; see stepping.Steps.step."""
        return self._slot.step(token)


class Slots:
    """
    A bounded number of slots.

    :param capture: see Slot; None: there are none.
    """

    def __init__(self, capture, most=MOST):
        self._capture = capture
        self._most = most
        self._slots = []

    def __len__(self):
        return len(self._slots)

    def take(self, language_model, cache, position, most):
        """
        Begin an answer in a free slot.

        :return: SlotSteps, or None where there is no slot for it.
        """
        need = cache.layers[0].keys.shape[2] + most
        if self._capture is None or need > LONGEST:
            return None
        slot = self._free(need) or self._make(language_model, cache.layers[0], need)
        if slot is None:
            return None
        slot.begin(cache, position, most)
        steps = SlotSteps(slot)
        slot.user = weakref.ref(steps)
        return steps

    def clear(self):
        """Forget all slots; answers under way keep theirs to their end."""
        self._slots.clear()

    def _free(self, need):
        """Return the smallest free slot with so much room, or None."""
        fitting = [slot for slot in self._slots if is_free(slot) and slot.room >= need]
        return min(fitting, key=lambda slot: slot.room, default=None)

    def _make(self, language_model, layer, need):
        """Make a slot, in place of a free one that is too small where all places are taken."""
        if len(self._slots) >= self._most:
            small = next(filter(is_free, self._slots), None)
            if small is None:
                return None
            self._slots.remove(small)
            del small       # before there is another one
        room = min(LONGEST, -(-need // LENGTH_STEP) * LENGTH_STEP)
        try:
            slot = Slot(language_model, layer, room, self._capture)
        except RuntimeError as error:
            if is_out_of_memory(error):
                return None     # that may be otherwise with the next answer
            logging.getLogger(__name__).warning(
                'a decoding step cannot be captured as a CUDA graph and runs kernel by kernel, '
                'which is slower: %s', error)
            self._capture = None
            return None
        self._slots.append(slot)
        return slot


def is_free(slot):
    """Tell whether no answer is under way in a slot."""
    return slot.user is None or slot.user() is None
