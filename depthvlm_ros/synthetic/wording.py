# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
How questions are put and answered.

Each kind has several wordings of its question, the canonical one first, and one form of answer.
Places in questions and answers count from 0 to 1000 across and down the image.
"""

from __future__ import annotations

from depthvlm_ros.synthetic.vocabulary import PLURALS

# Asks for the depth map instead of words; the wording is fixed.
DEPTH_QUESTION = ('Given this image, estimate the metric depth (in meters, rounded to two decimal '
                  'places) for every pixel of the image.')
DEPTH_ANSWER = 'OK, I will estimate the depth map of this image.'

# {a} and {b} are things such as 'the red box', {things} a plural, {x} and {y} a place.
QUESTIONS = {
    'far': (
        'How far is {a}?',
        'How far away is {a}?',
        'What is the distance to {a}?',
        'How many metres away is {a}?',
    ),
    'closer': (
        'Which is closer, {a} or {b}?',
        'Which is nearer, {a} or {b}?',
        'What is closer to the camera, {a} or {b}?',
        'Is {a} or {b} closer?',
    ),
    'apart': (
        'How far apart are {a} and {b}?',
        'What is the distance between {a} and {b}?',
        'How far is {a} from {b}?',
    ),
    'point': (
        'Point at {a}.',
        'Point to {a}.',
        'Where is {a}?',
        'Mark {a} with a point.',
    ),
    'box': (
        'Give the bounding box of {a}.',
        'Draw a bounding box around {a}.',
        'What is the bounding box of {a}?',
    ),
    'count': (
        'How many {things} are there?',
        'How many {things} do you see?',
        'How many {things} are in the image?',
        'Count the {things}.',
    ),
    'side': (
        'Is {a} left or right of {b}?',
        'Is {a} to the left or to the right of {b}?',
        'On which side of {b} is {a}, left or right?',
    ),
    'what': (
        'What is at [{x}, {y}]?',
        'What do you see at [{x}, {y}]?',
        'What is at [{x}, {y}] and how far is it?',
    ),
    'depth': (DEPTH_QUESTION,),
}

# A question of one of these kinds about a thing that is nowhere in view has the kind 'absent'.
ABSENT_KINDS = ('far', 'point', 'closer')

KINDS = (*QUESTIONS, 'absent')


def the(label: str) -> str:
    """Return a thing with its article."""
    return f'the {label}'


def answer_far(label: str, depth_m: float) -> str:
    """Answer how far a thing is."""
    return f'The {label} is {depth_m:.2f} m away.'


def answer_closer(label_a: str, depth_a_m: float, label_b: str, depth_b_m: float) -> str:
    """Answer which of two things is closer, both distances first."""
    closer = label_a if depth_a_m < depth_b_m else label_b
    return (f'The {label_a} is at {depth_a_m:.2f} m and the {label_b} at {depth_b_m:.2f} m, '
            f'so the {closer} is closer.')


def answer_apart(distance_m: float) -> str:
    """Answer how far two things are from each other."""
    return f'They are {distance_m:.2f} m apart.'


def answer_point(label: str, point_1000: tuple[int, int]) -> str:
    """Answer with a point on a thing."""
    return f'[{{"point_2d": {list(point_1000)}, "label": "{label}"}}]'


def answer_box(label: str, box_1000: tuple[int, int, int, int]) -> str:
    """Answer with the bounding box of a thing."""
    return f'[{{"bbox_2d": {list(box_1000)}, "label": "{label}"}}]'


def things(kind: str, number: int = 2) -> str:
    """Return a class of things, a shape or a colour, in the number that is wanted."""
    if kind in PLURALS:
        return kind if number == 1 else PLURALS[kind]
    return f'{kind} object' if number == 1 else f'{kind} objects'


def answer_count(kind: str, number: int) -> str:
    """Answer how many things of a shape or of a colour there are."""
    if number == 0:
        return f'There are no {things(kind)}.'
    verb = 'is' if number == 1 else 'are'
    return f'There {verb} {number} {things(kind, number)}.'


def number_in(answer: str) -> int:
    """Return how many things there are by an answer of answer_count."""
    number = answer.split()[2]
    return 0 if number == 'no' else int(number)


def answer_side(label_a: str, label_b: str, is_left: bool) -> str:
    """Answer on which side of the second thing the first one is."""
    return f'The {label_a} is {"left" if is_left else "right"} of the {label_b}.'


def answer_what(label: str, depth_m: float) -> str:
    """Answer what is at a place."""
    return f'The {label}, {depth_m:.2f} m away.'


def answer_absent(label: str) -> str:
    """Answer a question about a thing that is nowhere in view."""
    return f'There is no {label} in the image.'
