# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the demo asks, and whether the answers are right."""

from __future__ import annotations

from dataclasses import dataclass
import itertools

from depthvlm_ros.synthetic import Frame, judge, VisibleObject
from depthvlm_ros.synthetic.questions import LEAST_SIDE_SHARE, point_1000
from depthvlm_ros.synthetic.wording import answer_point, answer_side, QUESTIONS, the

# Kinds of question whose goals the embedded model reaches, in the order of asking.
KINDS_ASKED = ('side', 'point')
QUESTIONS_ASKED = 6
# Where a photo is asked about, in thousandths of its width and height.
PHOTO_PLACES_1000 = ((500, 500), (250, 500), (750, 500), (500, 250), (500, 800), (150, 800))


@dataclass(frozen=True)
class RoomQuestion:
    """
    A question about things in a synthetic room.

    :param kind: one of KINDS_ASKED.
    :param labels: the things, such as ('red box', 'blue ball').
    """

    kind: str
    labels: tuple[str, ...]

    @property
    def text(self) -> str:
        """Return the question in words."""
        names = dict(zip('ab', map(the, self.labels), strict=False))
        return QUESTIONS[self.kind][0].format(**names)

    def truth(self, frame: Frame) -> str | None:
        """Return the answer that is right for a frame, None where a thing is out of its view."""
        things = {thing.label: thing for thing in frame.objects}
        if not all(label in things for label in self.labels):
            return None
        if self.kind == 'point':
            return answer_point(self.labels[0], point_1000(frame, things[self.labels[0]]))
        u = [things[label].pixel[0] for label in self.labels]
        if abs(u[0] - u[1]) < LEAST_SIDE_SHARE * frame.intrinsics.width:
            return None
        return answer_side(*self.labels, u[0] < u[1])


def room_questions(frame: Frame) -> list[RoomQuestion]:
    """Return what can be asked about a frame, the kinds taking turns, the largest things first."""
    clear = sorted((thing for thing in frame.objects if thing.clear),
                   key=lambda thing: -thing.pixels)
    asked = {'point': [RoomQuestion('point', (thing.label,)) for thing in clear],
             'side': [_side(a, b, index) for index, (a, b)
                      in enumerate(itertools.combinations(clear, 2))]}
    turns = itertools.zip_longest(*(asked[kind] for kind in KINDS_ASKED))
    return [question for turn in turns for question in turn
            if question is not None and question.truth(frame) is not None]


def _side(a: VisibleObject, b: VisibleObject, index: int) -> RoomQuestion:
    """Return the question on which side one of two is, every second time the other way round."""
    labels = (a.label, b.label) if index % 2 else (b.label, a.label)
    return RoomQuestion('side', labels)


def photo_question(place_1000: tuple[int, int]) -> str:
    """Return the question what is at a place."""
    return QUESTIONS['what'][0].format(x=place_1000[0], y=place_1000[1])


def is_correct(question: RoomQuestion, answer: str, truth: str, frame: Frame) -> bool:
    """Tell whether an answer is right; a point is on the thing."""
    return judge(question.kind, answer, truth, frame)
