# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Several cameras on one model: topics, batches, fairness, questions by camera."""

import threading

from builtin_interfaces.msg import Time
from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.model import Predictor
from depthvlm_ros.model.batching import look_batch
from depthvlm_ros.msg import Pixel
from depthvlm_ros.nodes.conversions import info_from_intrinsics
from depthvlm_ros.nodes.filling import image_message
from depthvlm_ros.srv import Measure, SpatialQuery
from diagnostic_msgs.msg import DiagnosticArray
import numpy as np
import pytest
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
import torch

pytestmark = pytest.mark.ros

NAMES = ('front', 'left', 'right')
STATUS = SpatialQuery.Response
WIDE = Intrinsics(160, 96, 100.0, 100.0, 80.0, 48.0)


class Rig:
    """Several cameras, published by a robot's node."""

    def __init__(self, robot, names=NAMES):
        self.robot = robot
        self.images, self.infos = (
            {name: robot.node.create_publisher(kind, f'{name}/{topic}', 10) for name in names}
            for kind, topic in ((Image, 'image'), (CameraInfo, 'camera_info')))
        for name in names:
            robot.subscribe(Image, depth_topic(name))

    def joined(self):
        return all(publisher.get_subscription_count()
                   for publisher in (*self.images.values(), *self.infos.values()))

    def show(self, name, rgb, camera, sec=1):
        header = Header(stamp=Time(sec=sec), frame_id=f'{name}_optical_frame')
        info = info_from_intrinsics(camera, header)
        self.infos[name].publish(info)
        self.images[name].publish(image_message(rgb, 'rgb8', header))


def depth_topic(name):
    return f'depthvlm/{name}/depth/image'


def picture(seed, camera):
    return np.random.default_rng(seed).integers(
        0, 256, (camera.height, camera.width, 3), dtype=np.uint8)


def metres(message):
    return np.frombuffer(bytes(message.data), '<f4').reshape(message.height, message.width)


@pytest.fixture
def rig(make_depth_node, make_robot):
    """Return an active node of three cameras, and the rig that it has joined."""
    node, robot = make_depth_node(cameras=list(NAMES), max_tokens=6), make_robot()
    rig = Rig(robot)
    robot.subscribe(DiagnosticArray, '/diagnostics')
    node.trigger_configure()
    node.trigger_activate()
    assert robot.until(rig.joined)
    assert robot.until(lambda: all(
        lane.outputs.depth_wanted() for lane in node.stream.lanes.values()))
    return node, rig


def test_each_camera_has_topics_of_its_own_and_the_depth_that_it_has_alone(rig, checkpoint):
    node, rig = rig
    robot, predictor = rig.robot, Predictor.from_pretrained(checkpoint, device='cpu')
    shown = {'front': (picture(0, robot.camera), robot.camera), 'left': (picture(1, WIDE), WIDE),
             'right': (picture(2, robot.camera), robot.camera)}
    for name, (rgb, camera) in shown.items():
        rig.show(name, rgb, camera)
    for name, (rgb, camera) in shown.items():
        assert robot.until(lambda n=name: robot.got[depth_topic(n)])
        message = robot.got[depth_topic(name)][0]
        assert message.header.frame_id == f'{name}_optical_frame'
        wanted_m = predictor.look(rgb, camera).depth_m
        np.testing.assert_allclose(metres(message), wanted_m, rtol=2e-4, equal_nan=True)


def test_frames_that_wait_together_are_one_pass_and_none_is_starved(rig):
    node, rig = rig
    robot, passes, may_end = rig.robot, [], threading.Semaphore(0)

    def look(_, inputs):
        passes.append(inputs[0].shape[0])
        may_end.acquire(timeout=300.0)
    node._predictor.model.model.visual.register_forward_pre_hook(look)
    try:
        rig.show('front', picture(0, robot.camera), robot.camera)
        assert robot.until(lambda: passes)
        for sec in range(2, 10):    # the front camera alone would fill the model
            for name in ('front', 'front', 'left', 'right'):
                rig.show(name, picture(sec, robot.camera), robot.camera, sec)
            assert robot.until(lambda sec=sec: all(
                lane.newest and lane.newest.streamed and lane.newest.source.header.stamp.sec == sec
                for lane in node.stream.lanes.values()))
            may_end.release()
            assert robot.until(lambda sec=sec: len(passes) == sec)
    finally:
        may_end.release(100)
    assert robot.until(lambda: all(
        robot.got[depth_topic(name)][-1:] and robot.got[depth_topic(name)][-1].header.stamp.sec
        == 9 for name in NAMES)), 'the newest of each'
    assert passes[1:9] == [3 * passes[0]] * 8


def test_questions_are_about_the_camera_that_they_name(rig):
    node, rig = rig
    robot = rig.robot
    for sec, name in enumerate(NAMES, start=1):
        rig.show(name, picture(sec, robot.camera), robot.camera, sec)
    assert robot.until(lambda: all(lane.newest for lane in node.stream.lanes.values()))
    for asked, name, sec in (('', 'front', 1), ('left', 'left', 2), ('right', 'right', 3)):
        response = robot.ask(camera=asked)
        assert (response.status, response.camera, response.header.stamp.sec) == (
            STATUS.OK, name, sec)
        assert response.header.frame_id == f'{name}_optical_frame'
    response = robot.call(Measure, 'depthvlm/measure', Measure.Request(
        pixels=[Pixel(u=3.0, v=4.0)], camera='right'))
    assert (response.status, response.header.stamp.sec) == (STATUS.OK, 3)
    response = robot.ask(camera='rear')
    assert response.status == STATUS.NO_IMAGE
    assert "'rear'" in response.message and "'left'" in response.message
    assert response.camera == '', 'no camera answered'


def test_one_bad_image_does_not_cost_the_others_theirs(rig, slow_down):
    node, rig = rig
    robot = rig.robot
    slow_down(node, 0.2)
    rig.show('front', picture(0, robot.camera), robot.camera, 1)
    broken = picture(1, robot.camera)[:50]
    rig.show('left', broken, robot.camera, 2)
    rig.show('right', picture(2, robot.camera), robot.camera, 2)
    assert robot.until(lambda: robot.got[depth_topic('right')])
    lanes = node.stream.lanes
    assert robot.until(lambda: lanes['left'].statistics.refused == 1)
    assert robot.until(lambda: lanes['right'].statistics.published == 1)
    rig.show('left', picture(1, robot.camera), robot.camera, 3)
    assert robot.until(lambda: robot.got[depth_topic('left')])


def test_diagnostics_tell_of_each_camera(rig):
    node, rig = rig
    robot = rig.robot
    rig.show('left', picture(0, robot.camera), robot.camera)
    assert robot.until(lambda: robot.got[depth_topic('left')])

    def told():
        statuses = robot.got['/diagnostics'][-1].status if robot.got['/diagnostics'] else []
        return [(status.name, *(v.value for v in status.values if v.key == 'published'))
                for status in statuses]
    assert robot.until(lambda: told() == [
        (f'depthvlm: depth {name}', published) for name, published in zip(NAMES, '010')]), told()


@pytest.mark.parametrize('names', [[], ['a', 'a'], ['a', ''], ['a/b'], ['1a'], ['x'] * 17])
def test_names_that_cannot_be_are_refused_with_the_reason(make_depth_node, names):
    node = make_depth_node()
    result = node.set_parameters([Parameter('cameras', Parameter.Type.STRING_ARRAY, names)])[0]
    assert not result.successful
    assert 'cameras' in result.reason


def test_a_batch_gives_each_image_what_it_gets_alone(checkpoint):
    predictor = Predictor.from_pretrained(checkpoint, device='cpu')
    camera = Intrinsics(128, 96, 100.0, 105.0, 60.0, 50.0)
    images = [(picture(0, camera), camera), (picture(1, WIDE), WIDE),
              (picture(2, camera), camera), (np.zeros((3, 3, 3), np.uint8), camera)]
    views = look_batch(predictor, images)
    assert isinstance(views[3], ValueError)
    for (rgb, k), view in zip(images[:3], views):
        alone = predictor.look(rgb, k)
        np.testing.assert_allclose(view.depth_m, alone.depth_m, rtol=2e-4)
        assert (view.next_position, view.image_tokens) == (
            alone.next_position, alone.image_tokens)
        words = [predictor.ask(v, 'How far is the red box?', 5).text for v in (view, alone)]
        assert words[0] == words[1]


def test_no_memory_for_a_batch_costs_tokens_once(rig, slow_down):
    node, rig = rig
    robot, first, failures = rig.robot, [], []
    slow_down(node, 0.3)
    rig.show('front', picture(0, robot.camera), robot.camera)
    assert robot.until(lambda: robot.got[depth_topic('front')])

    def run_out(_, inputs):
        first.append(inputs[0].shape[0])
        if inputs[0].shape[0] > 16 * 4:     # patches of 16 tokens
            failures.append(1)
            raise torch.OutOfMemoryError('CUDA out of memory')
    node._predictor.model.model.visual.register_forward_pre_hook(run_out)
    for sec in (2, 3):
        for name in NAMES:
            rig.show(name, picture(sec, robot.camera), robot.camera, sec)
        robot.until(lambda: len(failures) > 3, 1.0)
    assert robot.until(lambda: node._predictor.max_image_tokens == 16)
    errors = {lane.statistics.last_error for lane in node.stream.lanes.values()}
    assert not any('no memory even' in error for error in errors), errors


def test_a_camera_that_cannot_be_does_not_fail_the_batch(checkpoint):
    predictor = Predictor.from_pretrained(checkpoint, device='cpu')
    camera = Intrinsics(128, 96, 100.0, 105.0, 60.0, 50.0)
    odd = Intrinsics(128, 96, 0.2, 105.0, 60.0, 50.0)     # hundreds of times as wide as high
    views = look_batch(predictor, [(picture(0, camera), camera), (picture(1, odd), odd)])
    assert isinstance(views[1], ValueError)
    assert np.isfinite(views[0].depth_m).any()


def test_a_batch_that_fails_is_said_once_and_not_tried_again(checkpoint, caplog):
    predictor = Predictor.from_pretrained(checkpoint, device='cpu')
    camera, passes = Intrinsics(128, 96, 100.0, 105.0, 60.0, 50.0), []

    def run_out(_, inputs):
        passes.append(inputs[0].shape[0])
        if inputs[0].shape[0] > passes_alone:
            raise torch.OutOfMemoryError('CUDA out of memory')
    images = [(picture(seed, camera), camera) for seed in range(2)]
    passes_alone = 10**6
    predictor.model.model.visual.register_forward_pre_hook(run_out)
    predictor.look(*images[0])
    passes_alone = passes[0]
    for _ in range(2):
        assert all(np.isfinite(view.depth_m).any() for view in look_batch(predictor, images))
    assert passes.count(2 * passes_alone) == 1
    assert caplog.text.count('from now on looked at one by one') == 1
