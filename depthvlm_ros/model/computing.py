# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Distances computed from where the model points and from its depth there, instead of its words.

A small model sees depth better than it puts it into words. Asked how far a thing is, or how far
two are apart, it is asked to point at them; what is measured at those places is the answer.
"""

from __future__ import annotations

from collections.abc import Callable
import math
import re

from depthvlm_ros import spatial
from depthvlm_ros.model.decoding import Answer, Decoding

POINT_QUESTION = 'Point at {thing}.'

# Matched against words with single spaces between them, so that no run of them is tried in
# every way.
_THING = r'((?:the|this|that|a|an|my|your) [^,?.;!]+?)'
_FROM_HERE = r'(?: from (?:me|here|us|you|the camera|the robot))?'
_END = r'(?: in met(?:re|er)s)? ?[?.!]*'
_FAR = re.compile(
    rf'(?:how far(?: away)? is|what is the distance{_FROM_HERE} to|'
    rf'how many met(?:re|er)s away is) {_THING}(?: away)?{_FROM_HERE}{_END}', re.IGNORECASE)
_APART = re.compile(
    rf'(?:(?:how far apart are|what is the distance between) {_THING} and|'
    rf'how far(?: away)? is {_THING}(?: away)? from|'
    rf'what is the distance from {_THING} to) {_THING}{_END}', re.IGNORECASE)
_LONGEST = 200      # characters of a question
_HERE = re.compile(r'the (?:camera|robot)', re.IGNORECASE)
# What cannot be pointed at, or says more than which thing is meant.
_UNCLEAR = re.compile(r'\b(?:and|or|from|to|camera|robot|lens|sensor|position|above|below|under|'
                      r'over|open)\b', re.IGNORECASE)
_DENIAL = re.compile(r"\b(?:no|not|none|cannot)\b|n't\b", re.IGNORECASE)
_ARTICLE = re.compile(r'\w+\s+')


def things_of(question: str) -> list[str]:
    """
    Return the things whose distance a question asks for, as it names them.

    :param question: a person's words, in English.
    :return: one thing (how far is it), two (how far apart are they), or none: another question,
        or one that is not understood.
    """
    words = ' '.join(question.split())
    if len(words) > _LONGEST:
        return []
    for form in (_FAR, _APART):
        match = form.fullmatch(words)
        things = [thing for thing in match.groups() if thing] if match else []
        things = [thing for thing in things if not _HERE.fullmatch(thing)]
        if things and not any(_UNCLEAR.search(thing) for thing in things):
            return things
    return []


class ComputedDistance:
    """
    An answer under way, as decoding.Decoding is, whose distance is measured.

    The model is asked to point at the things, one after the other. Where it says that one is not
    there, these are the words; where it says anything else, the question itself is put to it.

    :param begin: takes (question, max_tokens) and returns a Decoding about one view.
    :param question: what was asked.
    :param things: of things_of, not empty.
    :param depth_m: (H, W) float32, metres along the optical axis, NaN invalid.
    :param intrinsics: its camera.
    :param max_tokens: most tokens, of all that the model says, >= 1.
    :raises ValueError: max_tokens below 1.
    """

    def __init__(self, begin: Callable[[str, int], Decoding], question: str, things: list[str],
                 depth_m, intrinsics, max_tokens: int):
        self.max_tokens = max_tokens
        self.text = ''
        self.ended = ''
        self.computed = False       # whether the text is not the model's own
        self._begin, self._question, self._things = begin, question, things
        self._depth_m, self._intrinsics = depth_m, intrinsics
        self._found: list[spatial.Reference] = []
        self._said: list[str] = []
        self._points = True
        self._decodings = [begin(POINT_QUESTION.format(thing=things[0]), max_tokens)]

    @property
    def tokens(self) -> int:
        """Return how many tokens the model has said so far."""
        return sum(decoding.tokens for decoding in self._decodings)

    def step(self) -> bool:
        """Decode one token, or read a piece of a question; False once it has ended."""
        if self.ended:
            return False
        going = self._decodings[-1].step()
        if not self._points:
            self.text, self.ended = self._decodings[-1].text, self._decodings[-1].ended
        elif not going:
            self._take_point()
        return not self.ended

    def answer(self) -> Answer:
        """Return the answer so far, the places in it measured."""
        references = spatial.references_in(self.text, self._depth_m, self._intrinsics)
        return Answer(self.text, references, self.tokens, self.ended)

    def _take_point(self) -> None:
        """Use what the model said when it was to point."""
        said = self._decodings[-1].text
        found = spatial.references_in(said, self._depth_m, self._intrinsics)
        if len(found) == 1 and found[0].valid:
            self._found.append(found[0])
            self._said.append(said.strip())
            if len(self._found) < len(self._things):
                self._go_on(POINT_QUESTION.format(thing=self._things[len(self._found)]))
            else:
                self.text, self.ended, self.computed = self._sentence(), 'stop', True
        elif not spatial.names_coordinates(said) and _DENIAL.search(said):
            self.text, self.ended = said, self._decodings[-1].ended
        else:
            self._points = False
            self._go_on(self._question)

    def _go_on(self, question: str) -> None:
        """Put the next question to the model, if tokens are left."""
        left = self.max_tokens - self.tokens
        if left < 1:
            self.text, self.ended = self._decodings[-1].text, 'length'
        else:
            self._decodings.append(self._begin(question, left))

    def _sentence(self) -> str:
        """Return the answer: the distance, and the places it was measured at."""
        if len(self._found) == 1:
            name = _ARTICLE.sub('', self._things[0], count=1)
            distance = f'The {name} is {self._found[0].depth_m:.2f} m away.'
        else:
            one, other = (place.point_m for place in self._found)
            distance = f'They are {math.dist(one, other):.2f} m apart.'
        return ' '.join([distance, *self._said])
