# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The language of the questions, as text to train a tokenizer on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from . import wording
from .vocabulary import COLOURS, LABELS, SHAPES, SURFACES
from .wording import the


def all_texts(count: int = 20000, seed: int = 0) -> Iterator[str]:
    """
    Yield questions and answers about nothing in particular, in every wording and with every name.

    :param count: how many strings, half of them questions.
    :param seed: the same seed gives the same strings.
    """
    rng = np.random.default_rng(seed)
    kinds = tuple(wording.QUESTIONS)
    for number in range(count // 2):
        kind = kinds[number % len(kinds)]
        wordings = wording.QUESTIONS[kind]
        label_a, label_b = (str(label) for label in rng.choice(LABELS, 2, replace=False))
        things = str(rng.choice(COLOURS + SHAPES))
        x, y = (int(value) for value in rng.integers(0, 1001, 2))
        yield wordings[number // len(kinds) % len(wordings)].format(
            a=the(label_a), b=the(label_b), things=wording.things(things), x=x, y=y)
        absent = kind in wording.ABSENT_KINDS and rng.random() < 0.2
        yield wording.answer_absent(label_a) if absent else _answer(
            kind, rng, label_a, label_b, things)


def _answer(kind, rng, label_a: str, label_b: str, things: str) -> str:
    """Return an answer with made-up numbers."""
    depth_a_m, depth_b_m = rng.uniform(0.5, 10.0, 2)
    x_1, y_1, x_2, y_2 = (int(value) for value in rng.integers(0, 1001, 4))
    if kind == 'far':
        return wording.answer_far(label_a, depth_a_m)
    if kind == 'closer':
        return wording.answer_closer(label_a, depth_a_m, label_b, depth_b_m)
    if kind == 'apart':
        return wording.answer_apart(depth_a_m)
    if kind == 'point':
        return wording.answer_point(label_a, (x_1, y_1))
    if kind == 'box':
        return wording.answer_box(label_a, (x_1, y_1, x_2, y_2))
    if kind == 'count':
        return wording.answer_count(things, int(rng.integers(0, 8)))
    if kind == 'side':
        return wording.answer_side(label_a, label_b, bool(rng.random() < 0.5))
    if kind == 'what':
        name = label_a if rng.random() < 0.7 else str(rng.choice(SURFACES))
        return wording.answer_what(name, depth_a_m)
    return wording.DEPTH_ANSWER
