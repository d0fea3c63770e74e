# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""An answer under way: words out of the model, one token a step."""

from dataclasses import dataclass

from depthvlm_ros import spatial
from depthvlm_ros.model.prompt import encode_words
from depthvlm_ros.model.stepping import Steps
import torch
from transformers import DynamicCache


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

    The first step reads the question behind the view's prefix, every step gives one token;
    nothing of the image is encoded again. Another thread may read `text`, `tokens` and `ended`.

    :param max_tokens: most tokens of the answer, >= 1.
    :raises ValueError: max_tokens below 1.
    """

    def __init__(self, model, tokenizer, prompt, view, question, max_tokens):
        if max_tokens < 1:
            raise ValueError(f'max_tokens is {max_tokens}, wanted >= 1')
        self.view = view
        self.max_tokens = max_tokens
        self.text = ''
        self.ended = ''
        self._model = model
        self._tokenizer = tokenizer
        self._stops = prompt.stops
        self._question = [*encode_words(tokenizer, question), *prompt.after_question]
        self._steps = None      # once the question has been read
        self._last = None       # the last token, on the device
        self._ids = []

    @property
    def tokens(self):
        """Return how many tokens there are so far."""
        return len(self._ids)

    @torch.inference_mode()
    def step(self):
        """Decode one token; return False once the answer has ended."""
        if self.ended:
            return False
        hidden = self._read_question() if self._steps is None else self._steps.step(self._last)
        self._last = self._model.lm_head(hidden).argmax(-1, keepdim=True)
        self._take(int(self._last))
        return not self.ended

    def _read_question(self):
        """Read the question behind the view's prefix; return the last hidden state."""
        device = self._model.device
        ids = torch.tensor([self._question], device=device)
        end = self.view.next_position + ids.shape[1]
        positions = torch.arange(self.view.next_position, end, device=device)
        cache = fork(self.view.cache)
        hidden = self._model.read(
            self._model.get_input_embeddings()(ids), positions.expand(3, 1, -1),
            past_key_values=cache)
        self._steps = Steps(self._model.model.language_model, cache, end, self.max_tokens)
        return hidden[:, -1]

    def _take(self, token):
        if token in self._stops:
            self.ended = 'stop'
        else:
            self._ids.append(token)
            self.text = self._tokenizer.decode(self._ids, skip_special_tokens=True)
            if len(self._ids) >= self.max_tokens:
                self.ended = 'length'
        if self.ended:
            self._steps = None

    def answer(self):
        """Return the answer so far, the places in it measured in the view's depth."""
        references = spatial.references_in(self.text, self.view.depth_m, self.view.intrinsics)
        return Answer(self.text, references, self.tokens, self.ended)
