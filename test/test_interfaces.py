# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The interfaces that other people's programs compile against."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.ros

SOURCE = Path(__file__).parents[1]
STATUS = {
    'OK': 0, 'NO_IMAGE': 1, 'STALE_IMAGE': 2, 'BAD_QUESTION': 3, 'BAD_PIXEL': 4,
    'UNKNOWN_FRAME': 5, 'NO_TRANSFORM': 6, 'TF_UNAVAILABLE': 7, 'BUSY': 8, 'TIMEOUT': 9,
    'CANCELLED': 10, 'INACTIVE': 11, 'MODEL_FAILURE': 12}
DURATION, HEADER = 'builtin_interfaces/Duration', 'std_msgs/Header'
REFERENCES = 'sequence<depthvlm_ros/SpatialReference>'
PIXELS = 'sequence<depthvlm_ros/Pixel>'
REQUEST = {
    'question': 'string', 'camera': 'string', 'pixels': PIXELS, 'box': 'sequence<double, 4>',
    'target_frame': 'string', 'max_age': DURATION, 'timeout': DURATION, 'max_tokens': 'uint32'}
RESPONSE = {
    'status': 'uint8', 'message': 'string', 'answer': 'string', 'header': HEADER,
    'points_frame': 'string', 'camera': 'string', 'references': REFERENCES, 'model': 'string',
    'tokens': 'uint32', 'latency': DURATION}


def interfaces():
    """Return every message class with the fields it must have, in order."""
    from depthvlm_ros.action import AnswerQuery
    from depthvlm_ros.msg import Pixel, SpatialAnswer, SpatialReference
    from depthvlm_ros.srv import Measure, SpatialQuery
    return [
        (Pixel, {'u': 'double', 'v': 'double'}),
        (SpatialReference, {
            'label': 'string', 'source': 'uint8', 'is_box': 'boolean',
            'pixel': 'depthvlm_ros/Pixel', 'box': 'double[4]', 'depth': 'float',
            'depth_spread': 'float', 'point': 'geometry_msgs/Point', 'valid': 'boolean'}),
        (SpatialAnswer, {'question': 'string', **RESPONSE}),
        (SpatialQuery.Request, REQUEST),
        (SpatialQuery.Response, RESPONSE),
        (AnswerQuery.Goal, REQUEST),
        (AnswerQuery.Result, RESPONSE),
        (AnswerQuery.Feedback, {'text': 'string', 'tokens': 'uint32'}),
        (Measure.Request, {
            'pixels': PIXELS, 'target_frame': 'string', 'camera': 'string', 'max_age': DURATION}),
        (Measure.Response, {
            'status': 'uint8', 'message': 'string', 'header': HEADER, 'points_frame': 'string',
            'references': REFERENCES, 'distances': 'sequence<double>'}),
    ]


@pytest.mark.parametrize('index', range(10))
def test_fields_and_their_order_are_fixed(index):
    message, fields = interfaces()[index]
    assert list(message.get_fields_and_field_types().items()) == list(fields.items())


def test_every_status_is_named_wherever_there_is_one():
    for message, fields in interfaces():
        if 'status' in fields:
            constants = {name: getattr(message, name) for name in STATUS}
            assert constants == STATUS, message


def test_a_reference_says_where_it_comes_from():
    from depthvlm_ros.msg import SpatialReference
    assert (SpatialReference.REQUEST, SpatialReference.MODEL) == (0, 1)


@pytest.mark.parametrize(
    'path', [path for folder in ('msg', 'srv', 'action')
             for path in sorted((SOURCE / folder).iterdir())], ids=lambda path: path.name)
def test_every_field_says_what_it_means(path):
    for line in path.read_text().splitlines():
        if line and line != '---' and not line.startswith('#') and line != 'uint8 status':
            definition, _, comment = line.partition('#')
            assert comment.strip(), line
        assert len(line) <= 99, line
