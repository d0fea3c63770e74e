# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""An answer under way: words out of the model, one token a step."""

from dataclasses import dataclass
from numbers import Integral

from depthvlm_ros import spatial
from depthvlm_ros.model.lengths import scaled
from depthvlm_ros.model.prompt import encode_words
from depthvlm_ros.model.stepping import Steps
import torch
from transformers import DynamicCache

PIECE = 128     # tokens of a question that are read at once
HALF_CHARACTER = '\ufffd'   # what a tokenizer writes for the bytes of a part of one


@dataclass(frozen=True)
class Answer:
    """
    An answer, or as much of it as there is.

    :param text: the words.
    :param references: the places that the words name (spatial.Reference), with depth and point.
    :param tokens: how many tokens were decoded.
    :param ended: 'stop', 'length', or '' while it could still go on.
    """

    text: str
    references: list
    tokens: int
    ended: str


def fork(cache):
    """Copy a key-value cache, so that a question can continue it and leave it as it was."""
    twin = DynamicCache()
    for i, layer in enumerate(cache.layers):
        twin.update(layer.keys, layer.values, i)
    return twin


class Decoding:
    """
    Greedy decoding of one question about one view.

    The first steps read the question behind the view's prefix, a piece each, so that a long one
    does not hold up others; every further step gives one token, as does the one that reads the
    last piece. Nothing of the image is encoded again. Another thread may read `text`, `tokens`
    and `ended`.

    :param max_tokens: most tokens of the answer, >= 1.
    :param steps: takes (language model, cache, position, max_tokens), returns what reads a token
        at a time: stepping.Steps, or the like.
    :raises ValueError: max_tokens below 1.
    """

    computed = ''       # the words are the model's own, see computing.ComputedDistance

    def __init__(self, model, tokenizer, prompt, view, question, max_tokens, steps=Steps):
        if not isinstance(max_tokens, Integral) or max_tokens < 1:
            raise ValueError(f'max_tokens is {max_tokens!r}, wanted a whole number >= 1')
        self.view = view
        self.max_tokens = max_tokens
        self.text = ''
        self.ended = ''
        self._model = model
        self._tokenizer = tokenizer
        self._stops = prompt.stops
        self._unread = [*encode_words(tokenizer, question), *prompt.after_question]
        self._cache = fork(view.cache)
        self._position = view.next_position
        self._make_steps = steps
        self._steps = None      # once the question has been read
        self._last = None       # the last token, on the device
        self._ids = []

    @property
    def tokens(self):
        """Return how many tokens there are so far."""
        return len(self._ids)

    @torch.inference_mode()
    def step(self):
        """Decode one token, or read a piece of a long question; False once it has ended."""
        if self.ended:
            return False
        if self._steps is not None:
            hidden = self._steps.step(self._last)
        else:
            hidden = self._read_piece()
            if self._unread:
                return True
            self._steps = self._make_steps(self._model.model.language_model, self._cache,
                                           self._position, self.max_tokens)
            self._cache = None
        self._last = self._model.lm_head(hidden).argmax(-1, keepdim=True)
        self._take(int(self._last))
        return not self.ended

    def _read_piece(self):
        """Read the next piece of the question behind what was read; the last hidden state."""
        device = self._model.device
        piece, self._unread = self._unread[:PIECE], self._unread[PIECE:]
        ids = torch.tensor([piece], device=device)
        positions = torch.arange(self._position, self._position + len(piece), device=device)
        self._position += len(piece)
        return self._model.read(
            self._model.get_input_embeddings()(ids), positions.expand(3, 1, -1),
            past_key_values=self._cache)[:, -1]

    def _take(self, token):
        if token in self._stops:
            self.ended = 'stop'
        else:
            self._ids.append(token)
            if len(self._ids) >= self.max_tokens:
                self.ended = 'length'
        text = self._tokenizer.decode(self._ids, skip_special_tokens=True)
        # A character of several tokens is shown when it is whole.
        self.text = scaled(text if self.ended else text.rstrip(HALF_CHARACTER),
                           self.view.words_scale, unfinished=not self.ended)
        if self.ended:
            self._steps = self._cache = None

    def answer(self):
        """Return the answer so far, the places in it measured in the view's depth."""
        references = spatial.references_in(self.text, self.view.depth_m, self.view.intrinsics)
        return Answer(self.text, references, self.tokens, self.ended)
