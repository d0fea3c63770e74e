# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Distances computed from where the model points and from its depth there, beside its words.

A small model sees depth better than it puts it into words. Asked how far two things are apart, it
is asked to point at them; what is measured at those places is the answer. Asked how far a thing
is, or which of two is closer, it is right more often when the distances that it states and those
that are measured are combined: the two ways err apart.
"""

from __future__ import annotations

from collections.abc import Callable
import math
import re

from depthvlm_ros import spatial
from depthvlm_ros.model.decoding import Answer, Decoding

_METRES = r'(?<![\w.,-])(\d*\.?\d+) ?m(?:et(?:re|er)s?)?\b(?![/^²³])'

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
_TO_HERE = r'(?: to (?:me|here|us|you|the camera|the robot))?'
_NEARER = rf'(?:closer|nearer){_TO_HERE}'
_CLOSER = re.compile(
    rf'(?:which|what)(?: one| thing)? is {_NEARER} ?[,:]? {_THING},? or {_THING}{_END}|'
    rf'is {_THING} or {_THING} {_NEARER}{_END}', re.IGNORECASE)
_LONGEST = 200      # characters of a question
# Metres in words that differ more from the depth are of something else: how tall it is, say.
_MOST_RATIO = 2.0
_HERE = re.compile(r'the (?:camera|robot)', re.IGNORECASE)
# What cannot be pointed at, or says more than which thing is meant.
_UNCLEAR = re.compile(r'\b(?:and|or|from|to|camera|robot|lens|sensor|position|above|below|under|'
                      r'over|open|closer|nearer|in (?:feet|foot|ft|inch(?:es)?|yards?|miles?|'
                      r'(?:centi|milli|kilo)met(?:re|er)s?|[cmk]m))\b', re.IGNORECASE)
_DENIAL = re.compile(r"\b(?:no|not|none|cannot)\b|n't\b", re.IGNORECASE)
_ARTICLE = re.compile(r'\w+\s+')


def things_of(question: str) -> list[str]:
    """
    Return the things whose distance a question asks for, as it names them.

    :param question: a person's words, in English.
    :return: one thing (how far is it), two (how far apart are they), or none: another question,
        or one that is not understood.
    """
    for form in (_FAR, _APART):
        things = [thing for thing in _named(form, question) if not _HERE.fullmatch(thing)]
        if things and not any(_UNCLEAR.search(thing) for thing in things):
            return things
    return []


def compared_things(question: str) -> list[str]:
    """
    Return the two things that a question compares: which is closer to the camera.

    :param question: a person's words, in English.
    :return: two things as it names them, or none: another question, or one not understood.
    """
    things = _named(_CLOSER, question)
    return [] if any(_UNCLEAR.search(thing) for thing in things) else things


def _named(form: re.Pattern, question: str) -> list[str]:
    """Return the things that a question of a form names; none where it is of another form."""
    words = ' '.join(question.split())
    match = form.fullmatch(words) if len(words) <= _LONGEST else None
    return [thing for thing in match.groups() if thing] if match else []


def stated_distances(words: str, things: list[str]) -> list[float]:
    """
    Return the metres that words give for things, one for each; none where one is missing.

    :param words: such as 'The red box is at 2.31 m and the ball at 3.10 m, so ...'.
    :param things: with their articles; no name may be part of another.
    """
    names = [_name(thing).lower() for thing in things]
    if any(a in b for a in names for b in names if a is not b):
        return []
    found = [re.search(rf'\b{re.escape(name)}\b\D*?{_METRES}',
                       words.lower()) for name in names]
    # One number behind both names is the distance of one of them.
    found = list({match.start(1): match for match in found if match}.values())
    metres = [float(match[1]) for match in found]
    return metres if len(metres) == len(things) and all(metres) else []


def _name(thing: str) -> str:
    """Return a thing without its article."""
    return _ARTICLE.sub('', thing, count=1)


class ComputedDistance:
    """
    An answer under way, as decoding.Decoding is, whose distance is measured.

    The model is asked to point at the things, one after the other. Where it says that one is not
    there, these are the words; where it says anything else, the question itself is put to it.
    Of one thing that it has pointed at, it is asked the question itself too: where its words state
    a distance, the answer is the geometric mean of that and of the depth where it pointed, unless
    one is more than twice the other: then it is the depth.

    :param begin: takes (question, max_tokens) and returns a Decoding about one view.
    :param question: what was asked.
    :param things: of things_of, not empty.
    :param depth_m: (H, W) float32, metres along the optical axis, NaN invalid.
    :param intrinsics: its camera.
    :param max_tokens: most tokens, of all that the model says, >= 1.
    :raises ValueError: max_tokens below 1.
    """

    MEASURED = 'the depth where the model pointed'
    COMBINED = "the model's words and the depth where it pointed"

    def __init__(self, begin: Callable[[str, int], Decoding], question: str, things: list[str],
                 depth_m, intrinsics, max_tokens: int):
        self.max_tokens = max_tokens
        self.text = ''
        self.ended = ''
        self.computed = ''      # what the text was computed from; empty: it is the model's own
        self._begin, self._question, self._things = begin, question, things
        self._depth_m, self._intrinsics = depth_m, intrinsics
        self._found: list[spatial.Reference] = []
        self._said: list[str] = []
        self._stated_m: list[float] = []
        # What is done with the model's words once they have ended; None: they are the answer.
        self._take: Callable[[str], None] | None = self._take_point
        self._decodings = [begin(self._opening(), max_tokens)]

    @property
    def tokens(self) -> int:
        """Return how many tokens the model has said so far."""
        return sum(decoding.tokens for decoding in self._decodings)

    def step(self) -> bool:
        """Decode one token, or read a piece of a question; False once it has ended."""
        if self.ended:
            return False
        going = self._decodings[-1].step()
        if self._take is None:
            self.text, self.ended = self._decodings[-1].text, self._decodings[-1].ended
        elif not going or self._hears_distance():
            self._take(self._decodings[-1].text)
        return not self.ended

    def _opening(self) -> str:
        """Return what the model is asked first."""
        return POINT_QUESTION.format(thing=self._things[0])

    def answer(self) -> Answer:
        """Return the answer so far, the places in it measured."""
        references = spatial.references_in(self.text, self._depth_m, self._intrinsics)
        return Answer(self.text, references, self.tokens, self.ended)

    def _take_point(self, said: str) -> None:
        """Use what the model said when it was to point."""
        if self._measured(said):
            if len(self._found) < len(self._things):
                self._go_on(POINT_QUESTION.format(thing=self._things[len(self._found)]))
            elif len(self._things) == 1 and self.tokens < self.max_tokens:
                # Should this take too long, the depth alone is the answer.
                self.text, self.computed = self._sentence(), self.MEASURED
                self._take = self._take_words
                self._go_on(self._question)
            else:
                self._end()
        elif not spatial.names_coordinates(said) and _DENIAL.search(said):
            self.text, self.ended = said, self._decodings[-1].ended
        else:
            self._take = None
            self._go_on(self._question)

    def _hears_distance(self) -> bool:
        """Tell whether the words so far state all that is wanted of them."""
        return self._take == self._take_words and bool(
            stated_distances(self._decodings[-1].text, self._things))

    def _take_words(self, said: str) -> None:
        """Use what the model said to the question itself, beside the place that is measured."""
        self._stated_m = stated_distances(said, self._things)
        if not self._agree():
            self._stated_m = []
        self._end()

    def _agree(self) -> bool:
        """Tell whether what is stated can be the distances of what was pointed at."""
        return all(1 / _MOST_RATIO <= stated_m / place.depth_m <= _MOST_RATIO
                   for stated_m, place in zip(self._stated_m, self._found))

    def _end(self) -> None:
        """Give the answer that is computed."""
        self.text, self.ended = self._sentence(), 'stop'
        self.computed = self.COMBINED if self._stated_m else self.MEASURED

    def _means_m(self) -> list[float]:
        """Return each thing's distance: the geometric mean of the stated and the measured one."""
        return [math.sqrt(stated_m * place.depth_m)
                for stated_m, place in zip(self._stated_m, self._found, strict=True)]

    def _measured(self, said: str) -> bool:
        """Keep the one place that the words name; False where there is none that has depth."""
        found = spatial.references_in(said, self._depth_m, self._intrinsics)
        if len(found) != 1 or not found[0].valid:
            return False
        self._found.append(found[0])
        self._said.append(said.strip())
        return True

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
            distance_m, = self._means_m() if self._stated_m else [self._found[0].depth_m]
            distance = f'The {_name(self._things[0])} is {distance_m:.2f} m away.'
        else:
            one, other = (place.point_m for place in self._found)
            distance = f'They are {math.dist(one, other):.2f} m apart.'
        return ' '.join([distance, *self._said])


class ComputedComparison(ComputedDistance):
    """
    Which of two things is closer: an answer under way, as ComputedDistance is.

    The question is put to the model first. Where it states both distances in its words, it is
    asked to point at both things, and each distance is the geometric mean of what it stated and
    of the depth there, if neither is more than twice the other. Anywhere else its words stand as
    they are.
    """

    def __init__(self, *args, **kwargs):
        self._own: Decoding | None = None       # in whose words the distances are stated
        super().__init__(*args, **kwargs)

    def _opening(self) -> str:
        """Return the question itself."""
        return self._question

    def _take_point(self, said: str) -> None:
        """Use the model's own words first, then the places it points at."""
        if self._own is None:
            self._own = self._decodings[0]
            self._stated_m = stated_distances(said, self._things)
            going_on = self._own.ended == 'stop' and bool(self._stated_m)
        else:
            going_on = self._measured(said) and self._agree()
        if going_on and len(self._found) == len(self._things):
            self._end()
        elif going_on and self.tokens < self.max_tokens:
            self.text = self._own.text      # the answer, should pointing take too long
            self._go_on(POINT_QUESTION.format(thing=self._things[len(self._found)]))
        else:
            self.text, self.ended = self._own.text, self._own.ended

    def _sentence(self) -> str:
        """Return the answer, both distances first, and the places that were measured."""
        means_m = self._means_m()
        one, other = (_name(thing) for thing in self._things)
        closer = one if means_m[0] < means_m[1] else other
        return ' '.join([f'The {one} is at {means_m[0]:.2f} m and the {other} at '
                         f'{means_m[1]:.2f} m, so the {closer} is closer.', *self._said])
