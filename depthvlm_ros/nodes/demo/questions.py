# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the demo asks, and whether the answers are right."""

from __future__ import annotations

from dataclasses import dataclass
import itertools

from depthvlm_ros.synthetic import Frame, judge, VisibleObject
from depthvlm_ros.synthetic.questions import answer_pair, comparable, point_1000
from depthvlm_ros.synthetic.wording import answer_point, QUESTIONS, the

# Kinds of question whose goals the embedded model reaches, in the order of asking.
KINDS_ASKED = ('closer', 'side', 'point')
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
        """
        Return the answer that is right for a frame.

        None where a thing is out of its view, or two are too alike in what is asked about.
        """
        in_view = {thing.label: thing for thing in frame.objects}
        if not all(label in in_view for label in self.labels):
            return None
        things = [in_view[label] for label in self.labels]
        if self.kind == 'point':
            return answer_point(self.labels[0], point_1000(frame, *things))
        if not comparable(self.kind, frame, *things):
            return None
        return answer_pair(self.kind, *things)


def room_questions(frame: Frame) -> list[RoomQuestion]:
    """Return what can be asked about a frame, the kinds taking turns, the largest things first."""
    clear = sorted((thing for thing in frame.objects if thing.clear),
                   key=lambda thing: -thing.pixels)
    pairs = list(enumerate(itertools.combinations(clear, 2)))
    asked = [[RoomQuestion(kind, (thing.label,)) for thing in clear] if kind == 'point'
             else [_of_pair(kind, a, b, index) for index, (a, b) in pairs]
             for kind in KINDS_ASKED]
    turns = itertools.zip_longest(*asked)
    return [question for turn in turns for question in turn
            if question is not None and question.truth(frame) is not None]


def _of_pair(kind: str, a: VisibleObject, b: VisibleObject, index: int) -> RoomQuestion:
    """Return a question about two things, every second time the other way round."""
    return RoomQuestion(kind, (a.label, b.label) if index % 2 else (b.label, a.label))


def photo_question(place_1000: tuple[int, int]) -> str:
    """Return the question what is at a place."""
    return QUESTIONS['what'][0].format(x=place_1000[0], y=place_1000[1])


def is_correct(question: RoomQuestion, answer: str, truth: str, frame: Frame) -> bool:
    """Tell whether an answer is right; a point is on the thing."""
    return judge(question.kind, answer, truth, frame)
