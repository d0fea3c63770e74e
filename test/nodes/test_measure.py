# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
import math

from builtin_interfaces.msg import Duration, Time
from depthvlm_ros.model import Predictor
from depthvlm_ros.msg import Pixel, SpatialReference
from depthvlm_ros.nodes import measuring, questions
from depthvlm_ros.nodes.transforms import (
    NoTransformError,
    TransformsUnavailableError,
    UnknownFrameError,
)
from depthvlm_ros.spatial import measure_pixel
from depthvlm_ros.srv import Measure
import numpy as np
import pytest
from sensor_msgs.msg import Image
from std_msgs.msg import Header

pytestmark = pytest.mark.ros

FRAME = 'camera_optical_frame'
DEPTH = 'depthvlm/depth/image'
STATUS = Measure.Response
PLACES = ((10.25, 20.5), (127.4, -0.5), (60.0, 80.0))


def pixels(places=PLACES):
    return [Pixel(u=u, v=v) for u, v in places]


def measure(robot, **fields):
    request = Measure.Request(**{'pixels': pixels(), **fields})
    return robot.call(Measure, 'depthvlm/measure', request)


def test_a_transform_that_is_a_little_late_is_waited_for(active, late_transform, monkeypatch):
    monkeypatch.setattr(questions, 'TRANSFORM_WAIT_S', 30.0)
    node, robot = active()
    robot.show(node)
    node.stream.transforms = late_transform(2)
    answer = measure(robot, target_frame='map', pixels=[Pixel(u=5.0, v=5.0)])
    assert answer.status == STATUS.OK, answer.message
    assert answer.references[0].point.z == pytest.approx(answer.references[0].depth)


def measure_later(robot, **fields):
    client = robot.node.create_client(Measure, 'depthvlm/measure')
    assert client.wait_for_service(60.0)
    return client.call_async(Measure.Request(**{'pixels': pixels(), **fields}))


def count_passes(node):
    passes = []
    node._predictor.model.model.visual.register_forward_hook(lambda *_: passes.append(1))
    return passes


def points(answer):
    return np.array([[r.point.x, r.point.y, r.point.z] for r in answer.references])


def test_places_and_distances_are_those_of_the_depth(active, checkpoint):
    node, robot = active()
    robot.show(node, sec=3)
    answer = measure(robot)
    view = Predictor.from_pretrained(str(checkpoint)).look(robot.picture(), robot.camera)
    assert (answer.status, answer.message, answer.points_frame) == (STATUS.OK, '', FRAME)
    assert answer.header == Header(stamp=Time(sec=3), frame_id=FRAME)
    for reference, (u, v) in zip(answer.references, PLACES, strict=True):
        wanted = measure_pixel(view.depth_m, robot.camera, u, v)
        assert reference.source == SpatialReference.REQUEST
        assert (reference.pixel.u, reference.pixel.v, reference.valid) == (u, v, True)
        assert reference.depth == pytest.approx(wanted.depth_m, rel=1e-4)
    expected_m = np.linalg.norm(np.diff(points(answer), axis=0), axis=1)
    np.testing.assert_allclose(answer.distances, expected_m)
    assert len(answer.distances) == 2


def test_inactive_until_active(make_depth_node, make_robot):
    node, robot = make_depth_node(), make_robot()
    assert measure(robot).status == STATUS.INACTIVE
    node.trigger_configure()
    answer = measure(robot)
    assert (answer.status, 'inactive' in answer.message) == (STATUS.INACTIVE, True)
    assert not answer.references
    assert not answer.distances


def test_what_came_before_any_usable_image(active):
    node, robot = active()
    assert measure(robot).status == STATUS.NO_IMAGE
    robot.publish(robot.picture()[:50], None, Time(sec=1))
    robot.show(node, sec=2)
    assert measure(robot, camera='rear').status == STATUS.NO_IMAGE
    assert measure(robot, camera='camera').status == STATUS.OK


def test_a_broken_newest_image_is_no_image(active):
    from depthvlm_ros.nodes.conversions import info_from_intrinsics
    node, robot = active()
    info = info_from_intrinsics(robot.camera, Header(stamp=Time(sec=1)))
    robot.infos.publish(info)
    robot.images.publish(Image(header=info.header, height=96, width=128, step=384,
                               encoding='rgb8', data=[1]))
    assert robot.until(lambda: node.stream.first.newest is not None)
    answer = measure(robot)
    assert (answer.status, '1 bytes' in answer.message) == (STATUS.NO_IMAGE, True)


def test_an_old_image_is_stale(active):
    node, robot = active()
    robot.show(node, sec=1)
    assert measure(robot, max_age=Duration(sec=5)).status == STATUS.STALE_IMAGE
    assert measure(robot).status == STATUS.OK
    assert measure(robot, max_age=Duration(sec=5)).status == STATUS.STALE_IMAGE, 'its depth too'
    robot.show(node, sec=node.get_clock().now().nanoseconds // 10**9)
    assert measure(robot, max_age=Duration(sec=30)).status == STATUS.OK


@pytest.mark.parametrize('places', [
    (), ((math.nan, 1.0),), ((1.0, math.inf),), ((1.0, 1.0), (127.5, 1.0)), ((0.0, -0.6),),
    ((1.0, 1.0),) * 1001])
def test_bad_pixels(active, places):
    node, robot = active()
    robot.show(node)
    answer = measure(robot, pixels=pixels(places))
    assert answer.status == STATUS.BAD_PIXEL
    assert 'wanted' in answer.message
    assert node.stream.first.newest.seen is None, 'it takes no pass to know that'
    assert measure(robot).status == STATUS.OK
    assert measure(robot, pixels=pixels(places)).status == STATUS.BAD_PIXEL, 'nor with depth'


def test_pixels_at_the_border_and_one_alone(active):
    node, robot = active()
    robot.show(node)
    answer = measure(robot, pixels=pixels([(-0.5, -0.5), (127.49, 95.49)]))
    assert (answer.status, len(answer.distances)) == (STATUS.OK, 1)
    answer = measure(robot, pixels=pixels([(5.0, 5.0)]))
    assert (answer.status, len(answer.references), len(answer.distances)) == (STATUS.OK, 1, 0)


def test_the_unknown_is_nan(active):
    node, robot = active(max_depth=0.001)
    robot.show(node)
    answer = measure(robot)
    assert answer.status == STATUS.OK
    assert not any(reference.valid for reference in answer.references)
    assert np.isnan(points(answer)).all()
    assert np.isnan(answer.distances).all()
    assert len(answer.distances) == 2


@pytest.mark.parametrize(('error', 'status'), [
    (UnknownFrameError('no frame map'), STATUS.UNKNOWN_FRAME),
    (NoTransformError('extrapolation'), STATUS.NO_TRANSFORM),
    (TransformsUnavailableError('no tf2_ros'), STATUS.TF_UNAVAILABLE)])
def test_without_a_transform_depths_and_distances_stay_known(active, error, status, transform):
    node, robot = active()
    robot.show(node)
    here = measure(robot)
    node.stream.transforms = transform(error)
    answer = measure(robot, target_frame='map')
    assert (answer.status, str(error) in answer.message) == (status, True)
    assert answer.points_frame == 'map'
    assert np.isnan(points(answer)).all()
    assert answer.distances == here.distances
    assert [r.depth for r in answer.references] == [r.depth for r in here.references]


def test_points_are_brought_into_the_target_frame(active, transform):
    node, robot = active()
    robot.show(node)
    here = measure(robot)
    node.stream.transforms = transform(np.array(
        [[0, 0, 1, 0.5], [-1, 0, 0, 0], [0, -1, 0, 1.0], [0, 0, 0, 1]]))
    answer = measure(robot, target_frame='map')
    assert (answer.status, answer.points_frame) == (STATUS.OK, 'map')
    x, y, z = points(here).T
    np.testing.assert_allclose(points(answer), np.stack([z + 0.5, -x, 1.0 - y], axis=1))
    assert answer.distances == here.distances


def test_a_failing_model_is_said_and_the_node_goes_on(active):
    node, robot = active()
    robot.show(node)

    def fail(*_):
        raise RuntimeError('out of memory')
    hook = node._predictor.model.model.visual.register_forward_hook(fail)
    answer = measure(robot)
    assert (answer.status, 'out of memory' in answer.message) == (STATUS.MODEL_FAILURE, True)
    assert answer.header.stamp == Time(sec=1)
    hook.remove()
    robot.show(node, sec=2)
    assert measure(robot).status == STATUS.OK


def test_a_pass_that_takes_too_long_is_a_timeout_and_a_full_queue_busy(active, hold):
    node, robot = active(question_timeout=600.0, max_questions=1)
    robot.show(node)
    hold(node)
    first = measure_later(robot)
    assert robot.until(lambda: node.stream.worker.open_questions == 1)
    assert measure(robot).status == STATUS.BUSY
    node.stream.worker.end_overdue(math.inf)
    assert robot.until(first.done)
    assert first.result().status == STATUS.TIMEOUT
    assert not first.result().references


def test_deactivating_meanwhile_cancels(active):
    node, robot = active()
    robot.show(node)
    worker = node.stream.worker

    def wait_for_the_end(*_):
        robot.until(lambda: worker._stopping)
    node._predictor.model.model.visual.register_forward_hook(wait_for_the_end)
    future = measure_later(robot)
    assert robot.until(lambda: node.stream.worker.open_questions == 1)
    assert node.trigger_deactivate().name == 'SUCCESS'
    assert robot.until(future.done)
    assert future.result().status == STATUS.CANCELLED


def test_depth_of_the_newest_image_costs_no_pass(active):
    node, robot = active()
    robot.show(node)
    passes = count_passes(node)
    assert [measure(robot).status for _ in range(4)] == [STATUS.OK] * 4
    assert robot.ask().status == STATUS.OK
    assert len(passes) == 1
    robot.show(node, sec=2)
    assert measure(robot).header.stamp == Time(sec=2), 'nobody streams: a pass of its own'
    assert len(passes) == 2


def test_max_age_says_how_old_depth_may_be(active):
    node, robot = active()
    sec = node.get_clock().now().nanoseconds // 10**9
    robot.show(node, sec=sec)
    passes = count_passes(node)
    assert measure(robot).status == STATUS.OK
    robot.show(node, sec=sec + 1)
    answer = measure(robot, max_age=Duration(sec=60))
    assert (answer.status, answer.header.stamp) == (STATUS.OK, Time(sec=sec))
    assert len(passes) == 1
    answer = measure(robot)
    assert (answer.status, answer.header.stamp) == (STATUS.OK, Time(sec=sec + 1))


def test_it_does_not_wait_for_a_pass_of_the_stream(active, hold, monkeypatch):
    monkeypatch.setattr(measuring, 'BEHIND_S', 600.0)
    node, robot = active(topics=[(DEPTH, Image)])
    assert robot.until(node.stream.first.outputs.depth_wanted)
    robot.show(node, sec=1)
    assert robot.until(lambda: robot.got[DEPTH])
    gate = hold(node)
    robot.show(node, sec=2)
    answer = measure(robot)
    assert (answer.status, answer.header.stamp) == (STATUS.OK, Time(sec=1))
    newest = node.stream.first.newest
    newest.source.__dict__['received_s'] += 1000.0      # the depth at hand is far behind
    future = measure_later(robot)
    assert robot.until(lambda: node.stream.worker.open_questions == 1)
    gate.set()
    assert robot.until(future.done)
    answer = future.result()
    assert (answer.status, answer.header.stamp) == (STATUS.OK, Time(sec=2))


def test_images_that_max_rate_leaves_out_cost_no_pass(active, monkeypatch):
    monkeypatch.setattr(measuring, 'BEHIND_S', 600.0)
    node, robot = active(topics=[(DEPTH, Image)], max_rate=0.001)
    assert robot.until(node.stream.first.outputs.depth_wanted)
    robot.show(node, sec=1)
    assert robot.until(lambda: robot.got[DEPTH])
    passes = count_passes(node)
    robot.show(node, sec=2)
    assert robot.until(lambda: node.stream.first.statistics.rate_limited == 1)
    answer = measure(robot)
    assert (answer.status, answer.header.stamp, passes) == (STATUS.OK, Time(sec=1), [])
    node.stream.first.newest.source.__dict__['received_s'] += 1000.0    # depth is far behind
    assert measure(robot).header.stamp == Time(sec=2)
    assert len(passes) == 1


def test_depth_from_before_a_jump_of_time_is_forgotten(active):
    node, robot = active()
    robot.show(node, sec=9)
    assert measure(robot).status == STATUS.OK
    node.stream.forget()
    assert measure(robot).status == STATUS.NO_IMAGE
    robot.show(node, sec=1)
    assert measure(robot).header.stamp == Time(sec=1)


def test_the_depth_at_hand_keeps_no_cache(active):
    node, robot = active()
    robot.show(node)
    assert measure(robot).status == STATUS.OK
    assert node.stream.first.newest_depth.seen.view is None
