# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The judge accepts what is right and refuses what is not."""

import math

from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.synthetic import judge, Scene
from depthvlm_ros.synthetic.judge import metres_in
import numpy as np
import pytest

POINT = '[{"point_2d": [%d, %d], "label": "red box"}]'
BOX = '[{"bbox_2d": [%d, %d, %d, %d], "label": "red box"}]'
FAR = 'The red box is 2.00 m away.'
CLOSER = 'The red box is at 2.00 m and the blue ball at 3.10 m, so the red box is closer.'
SIDE = 'The red box is left of the blue ball.'


def test_the_truth_is_right_and_the_truth_of_another_is_not():
    camera = Intrinsics.centred(200, 150, 180.0)
    kinds = set()
    for seed in range(8):
        frame = Scene.random(seed).render(camera)
        for _, answer, kind in frame.questions(seed):
            kinds.add(kind)
            assert judge(kind, answer, answer, frame)
            assert judge(kind, answer, answer)
            assert not judge(kind, '', answer, frame)
            assert not judge(kind, 'I do not know.', answer, frame)
    assert len(kinds) == 10


@pytest.mark.parametrize('kind, answer, truth, right', [
    ('far', 'The red box is 2.49 m away.', FAR, True),
    ('far', 'About 1.51 meters.', FAR, True),
    ('far', 'The red box is 2.51 m away.', FAR, False),
    ('far', 'The red box is 1.49 m away.', FAR, False),
    ('far', 'There is no red box in the image.', FAR, False),
    ('far', '2.00', FAR, False),
    ('far', 'The red box is 1,002.00 m away', FAR, False), ('far', '2.00 m/s', FAR, False),
    ('far', 'The red box is -2.00 m away', FAR, False),
    ('apart', 'They are 1.20 m apart.', 'They are 1.00 m apart.', True),
    ('apart', 'They are 1.30 m apart.', 'They are 1.00 m apart.', False),
    ('closer', 'The red box is closer.', CLOSER, True),
    ('closer', 'The blue ball is closer.', CLOSER, False),
    ('closer', 'The red box is at 9.00 m and the blue ball at 1.00 m, so the red box is closer.',
     CLOSER, True),
    ('closer', 'The red box is at 2.00 m and the blue ball at 3.10 m, so the blue ball is '
     'closer.', CLOSER, False),
    ('closer', 'The red ball is closer.', CLOSER, False),
    ('count', 'There are 3 boxes.', 'There are 3 boxes.', True),
    ('count', 'There are 2 boxes.', 'There are 3 boxes.', False),
    ('count', 'There are 0 boxes.', 'There are no boxes.', True),
    ('count', 'There is 1 box.', 'There are no boxes.', False),
    ('count', 'There are 3 red objects.', 'There are 3 boxes.', False),
    ('count', 'There are 3 boxes in the image.', 'There are 3 boxes.', True),
    ('count', 'There are 3 boxes: a red box, a blue box and a white box.', 'There are 3 boxes.',
     True),
    ('count', 'There are 3 boxes visible!', 'There are 3 boxes.', True),
    ('count', 'There is no box.', 'There are no boxes.', True),
    ('count', 'There is no red object.', 'There are no boxes.', False),
    ('far', 'The blue ball is 2.00 m away.', FAR, False),
    ('far', 'The red box on the floor is 2.00 m away.', FAR, True),
    ('far', 'The red box is 2.00 m or 9.00 m away.', FAR, False),
    ('apart', 'The red box and the blue ball are 1.20 m apart.', 'They are 1.00 m apart.', True),
    ('what', 'The wall or the red box, 9.00 m away.', 'The wall, 2.00 m away.', False),
    ('what', 'The floor or the wall, 3.00 m away.', 'The floor, 3.00 m away.', False),
    ('absent', 'There is no red box in the image. The red ball is 2.00 m away.',
     'There is no red box in the image.', False),
    ('side', 'The blue ball is right of the red box.', SIDE, True),
    ('side', 'The red box is right of the blue ball.', SIDE, False),
    ('side', 'The red box is left of the blue cone.', SIDE, False),
    ('side', 'Left or right.', SIDE, False),
    ('side', 'To the right of the blue ball is the red box.', SIDE, False),
    ('side', 'The blue ball has the red box on its right.', SIDE, False),
    ('absent', 'There is no red box, the red box is closer.', 'There is no red box in the image.',
     False),
    ('what', 'The floor, 9.00 m away.', 'The floor, 3.00 m away.', True),
    ('what', 'The wall, 3.00 m away.', 'The floor, 3.00 m away.', False),
    ('what', 'The red box, 2.00 m away.', 'The red ball, 2.00 m away.', False),
    ('absent', 'There is no red box.', 'There is no red box in the image.', True),
    ('absent', 'There is no red ball in the image.', 'There is no red box in the image.', False),
    ('absent', FAR, 'There is no red box in the image.', False),
    ('closer', 'The red box is closer. The blue ball is closer.', CLOSER, False),
    ('closer', 'The red box is not closer.', CLOSER, False),
    ('count', 'There are 2 boxes. There are 3 boxes.', 'There are 2 boxes.', False),
    ('count', 'There are 1 boxes or there are 2 boxes.', 'There are 2 boxes.', False),
    ('absent', 'There is no red box in the image. The red box is 2.00 m away.',
     'There is no red box in the image.', False),
    ('absent', 'There is no red box. ' + POINT % (500, 500), 'There is no red box in the image.',
     False),
    ('absent', 'There is no red box in view. There is no red box in the image.',
     'There is no red box in the image.', True),
    ('far', 'There is no red box within 2.00 m.', FAR, False),
    ('far', "It isn't 2.00 m away.", FAR, False),
    ('side', 'The red box is not left of the blue ball.', SIDE, False),
    ('what', 'It is not the floor.', 'The floor, 3.00 m away.', False),
    ('point', POINT % (520, 480), POINT % (500, 500), True),
    ('point', POINT % (560, 500), POINT % (500, 500), False),
    ('point', POINT % (500, 500) + POINT % (500, 500), POINT % (500, 500), False),
    ('point', POINT % (500, 500), (POINT % (500, 500)).replace('box', 'ball'), False),
    ('point', BOX % (400, 400, 600, 600), POINT % (500, 500), False),
    ('box', BOX % (110, 100, 310, 300), BOX % (100, 100, 300, 300), True),
    ('box', BOX % (100, 100, 300, 190), BOX % (100, 100, 300, 300), False),
    ('box', BOX % (600, 600, 700, 700), BOX % (100, 100, 300, 300), False),
    ('box', BOX % (300, 300, 100, 100), BOX % (100, 100, 300, 300), False),
    ('box', '[{"bbox_2d": [100, 100', BOX % (100, 100, 300, 300), False),
])
def test_answers_are_judged(kind, answer, truth, right):
    assert judge(kind, answer, truth) is right


def test_tolerance_is_a_share_of_the_true_distance():
    assert judge('far', 'It is 2.19 m away.', FAR, tolerance=0.1)
    assert not judge('far', 'It is 2.21 m away.', FAR, tolerance=0.1)


def test_a_point_is_right_anywhere_on_the_thing_and_nowhere_else():
    frame = Scene.random(0).render(Intrinsics.centred(200, 150, 180.0))
    thing = next(thing for thing in frame.objects if thing.clear)
    truth = next(answer for _, answer, kind in frame.questions()
                 if kind == 'point' and thing.label in answer)
    answer = '{"point_2d": [%g, %g], "label": "' + thing.label + '"}'
    for inside in (True, False):
        rows, columns = np.nonzero((frame.object_ids == thing.index) == inside)
        for row, column in list(zip(rows, columns, strict=True))[::97]:
            x, y = (column + 0.5) / 200 * 1000, (row + 0.5) / 150 * 1000
            assert judge('point', answer % (x, y), truth, frame) is inside
    assert not judge('point', answer % (-5, 500), truth, frame)


def test_another_kind_is_refused():
    with pytest.raises(ValueError, match='colour'):
        judge('colour', '', '')


@pytest.mark.parametrize(('text', 'metres'), [
    ('The wall, 2.31 m away.', 2.31), ('about 3 metres, or 4 m', 3.0), ('12.5 meters', 12.5),
    ('1-2 m', 2.0), ('-2 m', -2.0), ('.5 m', 0.5), ('-.5 m', -0.5),
    ('It is at [250, 300].', math.nan), ('3 mm', math.nan), ('', math.nan)])
def test_metres_are_read_out_of_words(text, metres):
    assert metres_in(text) == pytest.approx(metres, nan_ok=True)
