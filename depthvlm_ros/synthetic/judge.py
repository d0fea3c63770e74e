# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Judging an answer in words against the exact one."""

from __future__ import annotations

import re

from depthvlm_ros.spatial import Place, read_places
from depthvlm_ros.synthetic import wording
from depthvlm_ros.synthetic.frame import Frame
from depthvlm_ros.synthetic.questions import pixel_at
from depthvlm_ros.synthetic.vocabulary import COLOURS, LABELS, SHAPES, SURFACES
from depthvlm_ros.synthetic.wording import things

DEFAULT_TOLERANCE = 0.25
LEAST_BOX_OVERLAP = 0.5
# Without a frame a point is right within this distance of the true one, thousandths of the image.
POINT_TOLERANCE_1000 = 50.0

_NAME = '(' + '|'.join(sorted({*LABELS, *SURFACES}, key=len, reverse=True)) + ')'
_METRES = re.compile(
    r'(?<![\d.,])(-?(?:\d+(?:\.\d+)?|\.\d+))\s*(?:m|meters?|metres?)\b(?![/^²³])')
_DENIAL = re.compile(r"\b(?:no|not|cannot)\b|n't\b")
_CLOSER = re.compile(rf'\b{_NAME} is (?:the )?(?:closer|nearer)')
_NAMED = re.compile(rf'\b{_NAME}\b')
_COUNTED = re.compile(
    r'\bthere (?:is|are) (?P<number>no|\d+) (?P<what>[a-z ]+?)(?: (?:in|visible|here)\b.*)?'
    r'(?:[.,:;!?]|$)')
_NUMBERED = re.compile(r'\bthere (?:is|are) (no|\d+)\b')
_PLURALS = {things(kind, 1): things(kind) for kind in (*SHAPES, *COLOURS)}
_ABSENT = re.compile(rf'\bthere is no {_NAME}\b')


def judge(
    kind: str,
    answer: str,
    truth: str,
    frame: Frame | None = None,
    tolerance: float = DEFAULT_TOLERANCE,
) -> bool:
    """
    Tell whether an answer is right.

    Answers are read in the forms that wording.py gives them. Distances are right within a share of
    the true one, boxes when they overlap the true one at least by half (intersection over union),
    points when they lie on the thing, places when the thing is the right one; all else when it
    says the same. An answer that names another thing, says two things where one was asked for, or
    denies what it says, is wrong.

    :param kind: the question's kind, one of wording.KINDS.
    :param answer: the words to judge.
    :param truth: the exact answer, as Frame.questions gives it.
    :param frame: what was asked about; without it, a point is right near the true one.
    :param tolerance: accepted share of error in distances.
    :raises ValueError: another kind.
    """
    if kind not in wording.KINDS:
        raise ValueError(f'kind is {kind!r}, wanted one of {wording.KINDS}')
    answer, truth = answer.strip().lower(), truth.strip().lower()
    if kind in ('far', 'apart', 'closer', 'side', 'what') and _DENIAL.search(answer):
        return False
    if kind in ('far', 'apart'):
        off_m = abs(metres_in(answer) - metres_in(truth))      # NaN where nothing is said
        return (len(_METRES.findall(answer)) == 1 and not _names_another(answer, truth)
                and off_m <= tolerance * metres_in(truth) + 1e-9)
    if kind == 'point':
        return _is_on(answer, truth, frame)
    if kind == 'box':
        return _overlaps(answer, truth)
    if kind == 'side':
        return _side(answer) is not None and _side(answer) == _side(truth)
    if kind == 'depth':
        return answer == truth
    if kind == 'count':
        return _counted(answer) is not None and _counted(answer) == _counted(truth)
    if kind == 'absent' and (_METRES.search(answer) or read_places(answer)
                             or _CLOSER.search(answer)):
        return False    # one that is not there is nowhere
    said = {'closer': _CLOSER, 'what': _NAMED, 'absent': _ABSENT}[kind]
    found = _only(said, answer)
    return (found is not None and found == _first(said, truth)
            and not _names_another(answer, truth))


def metres_in(text: str) -> float:
    """Return the first distance in metres that a text names; NaN where it names none."""
    return float(_first(_METRES, text) or 'nan')


def _first(pattern: re.Pattern, text: str) -> str | None:
    """Return the first group of a pattern's first match."""
    match = pattern.search(text)
    return match.group(1) if match else None


def _only(pattern: re.Pattern, text: str) -> str | None:
    """Return what all of a pattern's matches say; None where there are none, or they differ."""
    found = {*pattern.findall(text)}
    return found.pop() if len(found) == 1 else None


def _names_another(answer: str, truth: str) -> bool:
    """Tell whether an answer names a thing that the true one, which names some, does not."""
    named = {*_NAMED.findall(truth)}
    others = {*_NAMED.findall(answer)} - named
    return bool(named) and bool(others & {*LABELS} or named & {*SURFACES} and others)


def _counted(text: str) -> tuple[str, str] | None:
    """Return the one number of things that a text tells, and what things; None without one."""
    found = _COUNTED.search(text)
    if found is None or _only(_NUMBERED, text) is None:
        return None
    number, what = found['number'].replace('no', '0'), found['what']
    return number, _PLURALS.get(what, what) if number == '0' else what


def _only_place(text: str, truth: Place) -> Place | None:
    """Return the place in an answer; None when it names none, several, or another thing."""
    places = read_places(text)
    if len(places) != 1 or places[0].label not in ('', truth.label):
        return None
    return places[0]


def _is_on(answer: str, truth: str, frame: Frame | None) -> bool:
    """Tell whether a point is on its thing."""
    true = read_places(truth)[0]
    place = _only_place(answer, true)
    if place is None or place.point_1000 is None:
        return False
    x, y = place.point_1000
    if frame is None:
        far = max(abs(x - true.point_1000[0]), abs(y - true.point_1000[1]))
        return far <= POINT_TOLERANCE_1000
    index = next(thing.index for thing in frame.objects if thing.label == true.label)
    u, v = pixel_at(frame, x, y)
    return bool(frame.object_ids[v, u] == index)


def _overlaps(answer: str, truth: str) -> bool:
    """Tell whether a box covers its thing."""
    true = read_places(truth)[0]
    place = _only_place(answer, true)
    if place is None or place.box_1000 is None:
        return False
    a, b = place.box_1000, true.box_1000
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return False
    common = width * height
    both = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)) - common
    return common / both >= LEAST_BOX_OVERLAP


def _side(text: str) -> tuple[str, str] | None:
    """Return (left thing, right thing); None unless one side is named, between two things."""
    names = [*_NAMED.finditer(text)]
    sides = [*re.finditer(r'\b(left|right)\b', text)]
    if len(names) != 2 or len(sides) != 1 or not (
            names[0].end() <= sides[0].start() < names[1].start()):
        return None
    one, other = (name[1] for name in names)
    return (one, other) if sides[0][1] == 'left' else (other, one)
