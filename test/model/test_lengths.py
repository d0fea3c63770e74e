# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0

from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.model import Predictor
from depthvlm_ros.model.lengths import scaled
from depthvlm_ros.model.preprocessing import plan_resize
import numpy as np
import pytest


@pytest.mark.parametrize(('text', 'twice'), [
    ('The red box is 2.31 m away.', 'The red box is 4.62 m away.'),
    ('The box at 2.5 m, the ball at 3 m, so', 'The box at 5.0 m, the ball at 6 m, so'),
    ('.5 meters', '1.0 meters'), ('1.25 metres high', '2.50 metres high'),
    ('There are 2 boxes.', 'There are 2 boxes.'), ('12 m² of floor', '12 m² of floor'),
    ('[{"point_2d": [512, 430], "label": "box"}]', '[{"point_2d": [512, 430], "label": "box"}]'),
    ('1 m, 1 m', '2 m, 2 m'), ('', ''), ('2–3 m', '4–6 m'), ('2 to 3.5 m', '4 to 7.0 m'),
    ('5 m 20 cm', '10 m 40 cm'), ('150 cm away', '300 cm away'), ('1,250.5 m', '2,501.0 m'),
    ('at -0.5 m', 'at -1.0 m'), ('2.0 x 1.5 m', '4.0 x 3.0 m'), ('1 kilometre', '2 kilometre'),
    ('2 m/s', '2 m/s'), ('room A4 m', 'room A4 m'), ('2 of 3 m', '2 of 6 m'),
    ('0.5 x 0.4 x 0.3 m', '1.0 x 0.8 x 0.6 m'), ('image 2 and 3 m away', 'image 2 and 6 m away'),
    ('between 2 and 3 m', 'between 4 and 6 m'), ('cone A-4 m', 'cone A-4 m')])
def test_metres_are_multiplied_and_nothing_else(text, twice):
    assert scaled(text, 2.0) == twice
    assert scaled(text, 1.0) == text


@pytest.mark.parametrize(('begun', 'shown'), [
    ('The box is 2', 'The box is '), ('The box is 2.3', 'The box is '),
    ('The box is 2.31 ', 'The box is '), ('The box is 2.31 m', 'The box is '),
    ('The box is 2.31 me', 'The box is '), ('The box is 2.31 c', 'The box is '),
    ('The box is 2.31 m ', 'The box is 4.62 m '), ('The box is 2.31 m.', 'The box is 4.62 m.'),
    ('It is 2 to', 'It is '), ('It is 2 to ', 'It is '), ('It is 2 to 3', 'It is '),
    ('It is 2 –', 'It is '), ('It is 2 to 3 m', 'It is '), ('It is 1,', 'It is '),
    ('It is 1,2', 'It is '), ('It is .', 'It is '), ('It is 2.', 'It is '),
    ('The box', 'The box'), ('[{"point_2d": [51', '[{"point_2d": [')])
def test_a_number_at_the_end_waits_for_its_unit(begun, shown):
    assert scaled(begun, 2.0, unfinished=True) == shown


@pytest.mark.parametrize('text', [
    'The red box is 2.31 m away.', 'It is 2 to 3.5 metres, or 150 cm.', 'Some 1,250.5 m, -0.5 m.',
    'Boxes: 2\nThe door is 3 m\naway, 1 x 2 x 3 m, between 4 and 5 m, or 3\n',
    'There are 2 boxes, 2–3 m off; 12 m² of floor at 3 m/s.', 'A room of 2.0 x 1.5 m in 2026'])
def test_what_is_shown_as_words_come_is_the_beginning_of_the_whole(text):
    whole = scaled(text, 1.7)
    for end in range(len(text) + 1):
        assert whole.startswith(scaled(text[:end], 1.7, unfinished=True))


def test_words_and_depth_are_multiplied_alike(put_words):
    predictor = Predictor.from_pretrained('nano', device='cpu')
    rgb = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    put_words(predictor, 'The red box is 2.00 m away.')
    seen = {}
    for fx in (256.0, 512.0):
        camera = Intrinsics.centred(320, 240, fx)
        plan = plan_resize(camera, predictor.config)
        for told in (False, True):
            predictor.config.canonical_words = told
            view = predictor.look(rgb, camera)
            decoding, said = predictor.begin(view, 'How far is the red box?'), []
            while decoding.step():
                said.append(decoding.text)
            metres = 2 * plan.depth_scale if told else 2.0
            assert decoding.text == f'The red box is {metres:.2f} m away.'
            assert {text for text in said if ' m' in text} <= {
                decoding.text[:n] for n in range(len(decoding.text) + 1)}
        seen[fx] = plan.depth_scale
    assert abs(seen[256.0] - seen[512.0]) > 0.2
