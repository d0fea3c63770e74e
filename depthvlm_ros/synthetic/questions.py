# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Questions about a frame, with answers that follow from its exact depth."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

from depthvlm_ros.synthetic import wording
from depthvlm_ros.synthetic.vocabulary import COLOURS, LABELS, PLURALS, SHAPES, SURFACES
from depthvlm_ros.synthetic.wording import the
import numpy as np

if TYPE_CHECKING:
    from depthvlm_ros.synthetic.frame import Frame, VisibleObject

# Two things closer to each other than these are not compared.
LEAST_DEPTH_RATIO = 1.10
LEAST_SIDE_SHARE = 0.05

# At most so many of a kind are asked in one frame.
PAIRS_ASKED = 4
COLOURS_COUNTED = 3
PLACES_ASKED = 4
ABSENTEES_ASKED = 3

# A place asked about shows the same thing this many pixels around.
_PLACE_MARGIN_PX = 2


def ask_about(frame: Frame, rng_seed: int = 0, canonical: bool = False):
    """
    Return questions about a frame and their exact answers.

    :param rng_seed: what is asked about, and in which words, depends on it.
    :param canonical: ask in the first wording of each kind only.
    :return: (question, answer, kind) each; kinds as in wording.KINDS.
    """
    rng = np.random.default_rng(rng_seed)
    asked = []

    def ask(kind, answer, filed_as=None, **fields):
        wordings = wording.QUESTIONS[kind]
        chosen = wordings[0 if canonical else int(rng.integers(len(wordings)))]
        asked.append((chosen.format(**fields), answer, filed_as or kind))

    clear = [thing for thing in frame.objects if thing.clear]
    _ask_each(frame, clear, ask)
    _ask_pairs(frame, clear, rng, ask)
    _ask_counts(frame, rng, ask)
    _ask_places(frame, rng, ask)
    _ask_absent(frame, clear, rng, ask)
    ask('depth', wording.DEPTH_ANSWER)
    return asked


def to_1000(frame: Frame, u: float, v: float) -> tuple[int, int]:
    """Return a pixel position in thousandths of the image, whole numbers."""
    k = frame.intrinsics
    return (int(np.clip(round((u + 0.5) / k.width * 1000), 0, 1000)),
            int(np.clip(round((v + 0.5) / k.height * 1000), 0, 1000)))


def pixel_at(frame: Frame, x_1000: float, y_1000: float) -> tuple[int, int]:
    """Return the pixel (u, v) that holds a position given in thousandths of the image."""
    k = frame.intrinsics
    return (int(np.clip(math.floor(x_1000 / 1000 * k.width), 0, k.width - 1)),
            int(np.clip(math.floor(y_1000 / 1000 * k.height), 0, k.height - 1)))


def point_1000(frame: Frame, thing: VisibleObject) -> tuple[int, int]:
    """
    Return a point of a thing in thousandths of the image.

    That of its middle pixel, or, where rounding leaves the thing, the nearest one that does not:
    a thousandth of an image wider than 1000 px is more than a pixel.
    """
    middle = to_1000(frame, *thing.pixel)
    u, v = pixel_at(frame, *middle)
    if frame.object_ids[v, u] == thing.index:
        return middle
    rows, columns = np.nonzero(frame.object_ids == thing.index)
    by_distance = np.argsort(np.hypot(columns - thing.pixel[0], rows - thing.pixel[1]))
    for point in (to_1000(frame, columns[i], rows[i]) for i in by_distance):
        u, v = pixel_at(frame, *point)
        if frame.object_ids[v, u] == thing.index:
            return point
    return middle


def box_1000(frame: Frame, thing: VisibleObject) -> tuple[int, int, int, int]:
    """Return the box of a thing in thousandths of the image."""
    u_min, v_min, u_max, v_max = thing.box
    return (*to_1000(frame, u_min, v_min), *to_1000(frame, u_max, v_max))


def name_at(frame: Frame, u: int, v: int) -> str:
    """Return what a pixel sees; empty for a thing that is not in Frame.objects."""
    index = frame.object_ids[v, u]
    if index < 0:
        return SURFACES[frame.surfaces[v, u]]
    return next((thing.label for thing in frame.objects if thing.index == index), '')


def _ask_each(frame, clear, ask):
    """Ask about single things."""
    for thing in clear:
        name = the(thing.label)
        ask('far', wording.answer_far(thing.label, thing.depth_m), a=name)
        ask('point', wording.answer_point(thing.label, point_1000(frame, thing)), a=name)
        ask('box', wording.answer_box(thing.label, box_1000(frame, thing)), a=name)


def _ask_pairs(frame, clear, rng, ask):
    """Compare things with each other."""
    pairs = list(itertools.combinations(clear, 2))
    rng.shuffle(pairs)
    pairs = [pair if rng.random() < 0.5 else pair[::-1] for pair in pairs]
    # Shuffled anew for each kind, so that all kinds do not ask about the same pairs.
    for kind in ('closer', 'apart', 'side'):
        fitting = [pair for pair in pairs if comparable(kind, frame, *pair)]
        for index in rng.permutation(len(fitting))[:PAIRS_ASKED]:
            a, b = fitting[index]
            ask(kind, answer_pair(kind, a, b), a=the(a.label), b=the(b.label))


def comparable(kind: str, frame: Frame, a: VisibleObject, b: VisibleObject) -> bool:
    """
    Tell whether the answer about a pair leaves no doubt.

    :param kind: 'closer', 'apart' or 'side'.
    """
    if kind == 'closer':
        near_m, far_m = sorted((a.depth_m, b.depth_m))
        return far_m >= LEAST_DEPTH_RATIO * near_m
    if kind == 'side':
        return abs(a.pixel[0] - b.pixel[0]) >= LEAST_SIDE_SHARE * frame.intrinsics.width
    return True


def answer_pair(kind: str, a: VisibleObject, b: VisibleObject) -> str:
    """
    Return the exact answer to a question about two things, in the order of asking.

    :param kind: 'closer', 'apart' or 'side'.
    """
    if kind == 'closer':
        return wording.answer_closer(a.label, a.depth_m, b.label, b.depth_m)
    if kind == 'apart':
        return wording.answer_apart(math.dist(a.point_m, b.point_m))
    return wording.answer_side(a.label, b.label, a.pixel[0] < b.pixel[0])


def _ask_counts(frame, rng, ask):
    """Count shapes and colours, unless one of them is only half in view."""
    colours = [str(colour) for colour in rng.permutation(COLOURS)]
    present = {thing.colour for thing in frame.objects}
    # The colours in view first, then the others; the last one asked is of the others.
    colours.sort(key=lambda colour: colour not in present)
    for kind in (*SHAPES, *colours[:COLOURS_COUNTED - 1], colours[-1]):
        of_kind = [
            thing for thing in frame.objects
            if (thing.shape if kind in PLURALS else thing.colour) == kind]
        if all(thing.clear for thing in of_kind):
            ask('count', wording.answer_count(kind, len(of_kind)), things=wording.things(kind))


def _ask_places(frame, rng, ask):
    """Ask what is at some places, half of them on things where there are any."""
    height, width = frame.object_ids.shape
    clear = {thing.index for thing in frame.objects if thing.clear}
    windows = [thing.box for thing in frame.objects if thing.clear]
    found = 0
    for attempt in range(8 * PLACES_ASKED):
        u_min, v_min, u_max, v_max = -0.5, -0.5, width - 0.5, height - 0.5
        if windows and attempt % 2:
            u_min, v_min, u_max, v_max = windows[int(rng.integers(len(windows)))]
        x, y = to_1000(frame, rng.uniform(u_min, u_max), rng.uniform(v_min, v_max))
        u, v = pixel_at(frame, x, y)
        if not _is_uniform(frame, u, v):
            continue
        if frame.object_ids[v, u] >= 0 and frame.object_ids[v, u] not in clear:
            continue
        ask('what', wording.answer_what(name_at(frame, u, v), float(frame.depth_m[v, u])),
            x=x, y=y)
        found += 1
        if found == PLACES_ASKED:
            return


def _is_uniform(frame, u, v) -> bool:
    """Tell whether a pixel and those around it see the same thing."""
    window = (slice(max(0, v - _PLACE_MARGIN_PX), v + _PLACE_MARGIN_PX + 1),
              slice(max(0, u - _PLACE_MARGIN_PX), u + _PLACE_MARGIN_PX + 1))
    ids, surfaces = frame.object_ids[window], frame.surfaces[window]
    return bool((ids == ids[0, 0]).all()) and (
        ids[0, 0] >= 0 or len({SURFACES[plane] for plane in np.unique(surfaces)}) == 1)


def _ask_absent(frame, clear, rng, ask):
    """Ask about things that are nowhere in view, most of them like one that is."""
    seen = {thing.label for thing in frame.objects}
    words = {word for label in seen for word in label.split()}
    absent = [label for label in LABELS if label not in seen]
    alike = [label for label in absent if words.intersection(label.split())]
    for kind in wording.ABSENT_KINDS[:ABSENTEES_ASKED]:
        pool = alike if alike and rng.random() < 0.6 else absent
        label = pool[int(rng.integers(len(pool)))]
        fields = {'a': the(label)}
        if kind == 'closer':
            if not clear:
                continue
            other = the(clear[int(rng.integers(len(clear)))].label)
            fields = {'a': the(label), 'b': other}
            if rng.random() < 0.5:
                fields = {'a': other, 'b': the(label)}
        ask(kind, wording.answer_absent(label), filed_as='absent', **fields)
