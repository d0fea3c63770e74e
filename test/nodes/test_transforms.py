# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
import importlib.util
import math
import sys
from types import SimpleNamespace

from builtin_interfaces.msg import Duration, Time
from depthvlm_ros.msg import Pixel
from depthvlm_ros.nodes.transforms import (
    InvalidFrameError,
    NoTransformError,
    Transforms,
    TransformsUnavailableError,
    UnknownFrameError,
)
from depthvlm_ros.srv import SpatialQuery
import numpy as np
import pytest
from std_msgs.msg import Header

pytestmark = pytest.mark.ros

FRAME = 'camera_optical_frame'
STATUS = SpatialQuery.Response


@pytest.mark.skipif(importlib.util.find_spec('tf2_ros') is not None, reason='tf2_ros is installed')
def test_without_tf_words_and_depths_are_kept(active):
    node, robot = active()
    robot.show(node)
    answer = robot.ask(target_frame='map', pixels=[Pixel(u=5.0, v=5.0)])
    assert answer.status == STATUS.TF_UNAVAILABLE
    assert 'tf2_ros' in answer.message
    assert answer.answer
    assert answer.points_frame == 'map'
    reference, = answer.references
    assert reference.depth > 0
    assert all(math.isnan(value) for value in (
        reference.point.x, reference.point.y, reference.point.z))
    assert robot.ask(target_frame=FRAME).status == STATUS.OK, 'that is where they are already'


@pytest.mark.parametrize(('error', 'status'), [
    (UnknownFrameError('no frame map'), STATUS.UNKNOWN_FRAME),
    (InvalidFrameError('no name'), STATUS.UNKNOWN_FRAME),
    (NoTransformError('extrapolation'), STATUS.NO_TRANSFORM)])
def test_where_there_is_no_transform_only_the_points_are_unknown(active, error, status, transform):
    node, robot = active()
    robot.show(node)
    node.stream.transforms = transform(error)
    answer = robot.ask(target_frame='map', pixels=[Pixel(u=5.0, v=5.0)])
    assert answer.status == status
    assert str(error) in answer.message
    assert answer.answer
    assert answer.references[0].depth > 0
    assert math.isnan(answer.references[0].point.z)


def test_points_are_brought_into_the_target_frame(active, transform):
    node, robot = active()
    robot.show(node)
    here = robot.ask(question='', pixels=[Pixel(u=5.0, v=9.0)]).references[0].point
    # The usual camera on a robot: its z is ahead, its x to the right, 1 m up.
    node.stream.transforms = transform(np.array(
        [[0, 0, 1, 0.5], [-1, 0, 0, 0], [0, -1, 0, 1.0], [0, 0, 0, 1]]))
    answer = robot.ask(question='', pixels=[Pixel(u=5.0, v=9.0)], target_frame='map')
    there = answer.references[0].point
    assert (answer.status, answer.points_frame) == (STATUS.OK, 'map')
    assert (there.x, there.y, there.z) == pytest.approx((here.z + 0.5, -here.x, 1.0 - here.y))


def test_without_tf_transformations_there_are_no_transforms(monkeypatch):
    monkeypatch.setitem(sys.modules, 'tf2_ros', SimpleNamespace())
    monkeypatch.setitem(sys.modules, 'tf_transformations', None)    # cannot be imported
    transforms = Transforms(None, 1.0)
    with pytest.raises(TransformsUnavailableError, match='import of tf_transformations'):
        transforms.matrix('map', FRAME, Time(sec=1))
    transforms.close()


@pytest.mark.parametrize('error', [NoTransformError, UnknownFrameError])
def test_a_transform_that_is_a_little_late_is_waited_for(active, late_transform, error):
    node, robot = active()
    robot.show(node)
    node.stream.transforms = late_transform(2, error)
    answer = robot.ask(question='', target_frame='map', pixels=[Pixel(u=5.0, v=5.0)])
    assert answer.status == STATUS.OK, answer.message
    assert answer.references[0].point.z == pytest.approx(answer.references[0].depth)
    assert answer.references[0].point.z > 0


def test_what_is_no_name_of_a_frame_is_not_waited_for(active, late_transform):
    node, robot = active()
    robot.show(node)
    tf = node.stream.transforms = late_transform(10**6, InvalidFrameError)
    answer = robot.ask(question='', target_frame='/map', pixels=[Pixel(u=5.0, v=5.0)])
    assert answer.status == STATUS.UNKNOWN_FRAME
    assert 10**6 - tf.left == 3, 'at the beginning, behind the look, and for the answer'


def test_a_transform_is_not_waited_for_without_end(active, late_transform):
    node, robot = active()
    robot.show(node)
    node.stream.transforms = late_transform(10**6)
    # It has a bound of its own, far below the timeout.
    answer = robot.ask(question='', target_frame='map', pixels=[Pixel(u=5.0, v=5.0)],
                       timeout=Duration(sec=3600))
    assert answer.status == STATUS.NO_TRANSFORM


def test_a_transform_known_at_the_beginning_is_kept_until_the_answer_is_there(
        active, transform, slow_down):
    node, robot = active()
    robot.show(node)
    slow_down(node, token_s=0.3)
    tf = node.stream.transforms = transform(np.eye(4))

    def forgets(*place):
        tf.found, found = NoTransformError('its buffer is too short'), tf.found
        if isinstance(found, Exception):
            raise found
        return found
    tf.matrix = forgets
    answer = robot.ask(target_frame='map', pixels=[Pixel(u=5.0, v=5.0)])
    assert answer.status == STATUS.OK, answer.message
    assert answer.references[0].point.z == pytest.approx(answer.references[0].depth)


def test_a_transform_that_is_a_little_late_is_kept_until_a_long_answer_is_there(
        active, late_transform, slow_down):
    node, robot = active()
    robot.show(node)
    slow_down(node, token_s=0.3)
    tf = node.stream.transforms = late_transform(1)
    look_up, looks = tf.matrix, []

    def forgets(*place):
        if len(looks) == 2:
            raise NoTransformError('its buffer is too short')
        looks.append(place)
        return look_up(*place)
    tf.matrix = forgets
    answer = robot.ask(target_frame='map', pixels=[Pixel(u=5.0, v=5.0)])
    assert answer.status == STATUS.OK, answer.message
    assert answer.references[0].point.z == pytest.approx(answer.references[0].depth)


def test_transforms_of_the_real_tf2(active):
    pytest.importorskip('tf2_ros', reason='tf2_ros comes with ROS 2 itself, not from PyPI')
    from geometry_msgs.msg import TransformStamped
    from tf2_ros import StaticTransformBroadcaster, TransformBroadcaster
    node, robot = active()
    robot.show(node, sec=100)
    static, moving = StaticTransformBroadcaster(robot.node), TransformBroadcaster(robot.node)
    fixed = TransformStamped(header=Header(frame_id='base'), child_frame_id=FRAME)
    fixed.transform.translation.x, fixed.transform.rotation.w = 0.5, 1.0
    static.sendTransform(fixed)
    pixels = {'question': '', 'pixels': [Pixel(u=5.0, v=5.0)]}
    here = robot.ask(**pixels).references[0].point

    def status(frame):
        return robot.ask(target_frame=frame, **pixels).status
    assert robot.until(lambda: status('base') == STATUS.OK, 20.0)
    there = robot.ask(target_frame='base', **pixels).references[0].point
    assert (there.x, there.y, there.z) == pytest.approx((here.x + 0.5, here.y, here.z))
    assert status('nowhere') == STATUS.UNKNOWN_FRAME
    later = TransformStamped(
        header=Header(frame_id='map', stamp=Time(sec=200)), child_frame_id='base')
    later.transform.rotation.w = 1.0

    def sent():
        moving.sendTransform(later)
        return status('map') == STATUS.NO_TRANSFORM
    assert robot.until(sent, 20.0)
