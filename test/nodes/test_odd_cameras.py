# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Cameras that nothing comes of, or something odd: the node says what to do about it."""

import threading
import time
from types import SimpleNamespace

from builtin_interfaces.msg import Duration, Time
from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.msg import Pixel
from depthvlm_ros.nodes import diagnostics, lane, pacing
from depthvlm_ros.nodes.conversions import info_from_intrinsics
from depthvlm_ros.nodes.inputs import Inputs
from depthvlm_ros.nodes.pacing import Pace
from depthvlm_ros.nodes.silence import reason_of_silence
from depthvlm_ros.srv import Measure, SpatialQuery
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.srv import GetState
import pytest
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

pytestmark = pytest.mark.ros

DEPTH = 'depthvlm/depth/image'
STATUS = SpatialQuery.Response
IMAGE = 'sensor_msgs/msg/Image'
RELIABLE, BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT


def told(robot):
    """Return the newest diagnostics as a dictionary, with level and message."""
    status = robot.got['/diagnostics'][-1].status[0]
    return {'level': status.level, 'message': status.message,
            **{pair.key: pair.value for pair in status.values}}


def says(robot, words):
    return robot.until(lambda: robot.got['/diagnostics'] and words in told(robot)['message'])


@pytest.mark.parametrize(('kind', 'ours', 'theirs', 'came', 'words'), [
    (None, BEST_EFFORT, RELIABLE, False, 'nobody publishes /odd/image: start the camera, or'),
    (CompressedImage, BEST_EFFORT, RELIABLE, False, 'is published as sensor_msgs/msg/Comp'),
    (Image, BEST_EFFORT, RELIABLE, False, 'qos_overrides./odd/image.subscription.reliability'),
    (Image, BEST_EFFORT, RELIABLE, True, 'reliably, and nothing more comes: see that it runs; if'),
    (Image, RELIABLE, RELIABLE, False, 'silent_camera publishes /odd/image, and nothing comes'),
    (Image, BEST_EFFORT, BEST_EFFORT, False, 'publishes /odd/image, and nothing comes: see')])
def test_why_nothing_comes(ros, kind, ours, theirs, came, words):
    node = Node('silent_camera', context=ros)
    try:
        if kind is not None:
            node.create_publisher(kind, '/odd/image', QoSProfile(depth=1, reliability=theirs))
        for _ in range(100):
            found = reason_of_silence(node, '/odd/image', IMAGE, ours, came)
            if words in found:
                break
            time.sleep(0.05)
        assert words in found
    finally:
        node.destroy_node()


@pytest.mark.parametrize(('transport', 'name'), [
    ('raw', 'front/image'), ('compressed', 'front/image/compressed')])
def test_the_name_to_remap_is_the_one_that_is_subscribed_to(ros, transport, name):
    node = Node('silent_camera', context=ros)
    inputs = Inputs(node, transport, 0.0, lambda *_: None, lambda *_: None, camera='front')
    try:
        assert inputs.silence == (
            f'nobody publishes /{name}: start the camera, or remap {name} to its topic')
    finally:
        inputs.destroy()
        node.destroy_node()


@pytest.mark.parametrize(('stamps', 'words'), [
    ([0] * 100, "cannot be used: the image's stamp is zero"),
    (range(2, 102), 'other stamps than the images')])
def test_where_all_images_are_refused_no_old_one_is_asked_about(
        active, monkeypatch, stamps, words):
    monkeypatch.setattr(lane, 'REFUSED_S', 0.5)
    node, robot = active(sync='stamp')
    robot.show(node)
    statistics, stamps = node.stream.first.statistics, iter(stamps)

    def refuse():
        before = statistics.refused
        while statistics.refused == before:
            robot.publish(robot.picture(), None, Time(sec=next(stamps)))
            time.sleep(0.2)
    pixels = [Pixel(u=5.0, v=5.0)]

    def measure():
        return robot.call(Measure, 'depthvlm/measure', Measure.Request(pixels=pixels))
    refuse()
    assert (robot.ask().status, measure().status) == (STATUS.OK, STATUS.OK), 'one is no matter'
    time.sleep(0.5)
    refuse()
    for answer in (robot.ask(), measure()):
        assert answer.status == STATUS.NO_IMAGE and words in answer.message
    robot.show(node, 1000)
    assert (robot.ask().status, measure().status) == (STATUS.OK, STATUS.OK)


def test_silence_is_explained_to_everybody_who_asks(active, monkeypatch, capfd):
    monkeypatch.setattr(lane, 'SILENT_S', 0.5)
    node, robot = active([('/diagnostics', DiagnosticArray)])
    words = 'robot publishes /image reliably, and nothing comes: see that it runs; if its images'
    assert says(robot, words)
    assert told(robot)['level'] == DiagnosticStatus.WARN
    assert words in robot.ask().message
    said = []
    assert robot.until(lambda: said.append(capfd.readouterr().err) or words in ''.join(said))
    time.sleep(1.5)     # in which it is looked at once more
    assert (''.join(said) + capfd.readouterr().err).count(words) == 1
    monkeypatch.setattr(lane, 'SILENT_S', 600.0)
    monkeypatch.setattr(diagnostics, 'SILENT_S', 600.0)
    robot.show(node)
    assert says(robot, 'ok')


def test_images_that_find_no_camera_info_are_no_silent_camera(active, monkeypatch, capfd):
    monkeypatch.setattr(lane, 'SILENT_S', 600.0)
    node, robot = active([('/diagnostics', DiagnosticArray)])
    robot.publish(robot.picture(), None, Time(sec=1))
    inputs = node.stream.first.inputs
    assert robot.until(lambda: 'images arrive' in inputs.reason)
    monkeypatch.setattr(lane, 'SILENT_S', 0.0)
    time.sleep(1.5)     # in which it is looked at once
    assert says(robot, 'images arrive, but no camera_info: remap camera_info')
    assert robot.ask().message.startswith('images arrive, but no camera_info')
    assert 'no image comes' not in capfd.readouterr().err
    robot.node.destroy_publisher(robot.images)
    assert says(robot, 'nobody publishes /image')


def test_a_limit_that_is_raised_holds_at_once(monkeypatch):
    now_s = [50.0]
    monkeypatch.setattr(pacing, 'time', SimpleNamespace(monotonic=lambda: now_s[0]))
    pace = Pace()
    assert pace.allows(0.01)
    now_s[0] += 1.0
    assert not pace.allows(0.01)
    assert pace.allows(10.0)
    # It keeps its beat: of 30 Hz every third.
    passed = []
    for number in range(1, 31):
        now_s[0] = 51.0 + number / 30 + 1e-6
        passed.append(pace.allows(10.0))
    assert sum(passed) == 10


def test_the_rate_of_a_fast_stream_is_told(monkeypatch):
    now_s = [50.0]
    monkeypatch.setattr(diagnostics, 'time', SimpleNamespace(monotonic=lambda: now_s[0]))
    statistics = diagnostics.Statistics()
    for _ in range(1000):
        now_s[0] += 0.005
        statistics.add_published(0.01)
    assert statistics.rate_hz() == pytest.approx(200, rel=0.02)
    now_s[0] += 10.0
    assert statistics.rate_hz() == 0.0


def test_an_info_of_another_frame_with_the_same_stamp_is_doubted(active, patient, capfd):
    node, robot = active([('/diagnostics', DiagnosticArray)])
    info = info_from_intrinsics(
        robot.camera, Header(stamp=Time(sec=5), frame_id='right_optical'))
    robot.infos.publish(info)
    robot.publish(robot.picture(), None, Time(sec=5), 'left_optical')
    assert says(robot, "of frame 'left_optical' and their camera_info of 'right_optical'")
    assert told(robot)['level'] == DiagnosticStatus.WARN
    said = []
    assert robot.until(
        lambda: said.append(capfd.readouterr().err) or "'right_optical'" in ''.join(said))
    robot.show(node, 6)
    assert says(robot, 'ok')


def test_images_without_a_frame_are_told(active, patient):
    node, robot = active([('/diagnostics', DiagnosticArray)])
    robot.publish(robot.picture(), info_from_intrinsics(robot.camera, Header()), Time(sec=1), '')
    assert says(robot, 'the images have no frame_id')


def test_depth_without_a_valid_pixel_is_told(active, patient):
    node, robot = active([('/diagnostics', DiagnosticArray), (DEPTH, Image)], min_depth=1000.0)
    robot.show(node)
    assert says(robot, 'no depth of the last image is valid: see min_depth')
    node.set_parameters([Parameter('min_depth', value=0.0)])
    robot.show(node, 2)
    assert says(robot, 'ok')


@pytest.mark.parametrize(('camera', 'fields', 'words'), [
    (None, {'r': [-1.0, 0, 0, 0, 1, 0, 0, 0, -1]}, 'leave nothing of the image'),
    (None, {'d': [1e30] * 5}, 'its distortion and rectification (d, r, p) leave nothing'),
    (Intrinsics(128, 96, 1.5, 1000.0, 64.0, 48.0), {}, 'the model cannot take this camera')])
def test_a_camera_that_cannot_be_is_refused_and_no_fault_of_the_model(
        active, camera, fields, words):
    node, robot = active([('/diagnostics', DiagnosticArray), (DEPTH, Image)])
    assert robot.until(node.stream.first.outputs.depth_wanted)
    info = info_from_intrinsics(camera or robot.camera, Header())
    for name, value in fields.items():
        setattr(info, name, value)
    robot.publish(robot.picture(), info, Time(sec=1))
    assert robot.until(lambda: robot.got['/diagnostics'] and words in told(robot)['last_error'])
    assert (told(robot)['refused'], told(robot)['failed']) == ('1', '0')


def test_an_image_ages_here_too_whatever_the_cameras_clock_says(active):
    node, robot = active()
    ahead = node.get_clock().now().nanoseconds // 10**9 + 3600
    robot.show(node, ahead)
    assert robot.ask(max_age=Duration(sec=30)).status == STATUS.OK
    assert robot.until(lambda: robot.ask(max_age=Duration(nanosec=10**8)).status
                       == STATUS.STALE_IMAGE)


def test_without_a_clock_no_image_has_an_age(active):
    node, robot = active(use_sim_time=True)
    robot.show(node)
    answer = robot.ask(max_age=Duration(sec=1))
    assert answer.status == STATUS.STALE_IMAGE
    assert 'no /clock has come' in answer.message
    assert robot.ask().status == STATUS.OK


def test_a_misspelt_override_of_qos_is_warned_of(active, capfd):
    active(**{'qos_overrides./camera_info.subscription.reliability': 'reliable',
              'qos_overrides./image/compressed.subscription.reliability': 'reliable',
              'qos_overrides./image.subscription.reliability': 'reliable'})
    said = capfd.readouterr().err
    assert ("parameter 'qos_overrides./camera_info.subscription.reliability' is unknown here and "
            'does nothing; did you mean ') in said
    assert said.count('is unknown here') == 1, 'the other transport is no mistake'


def test_the_state_is_told_while_the_model_is_loaded(make_depth_node, make_robot, monkeypatch):
    from depthvlm_ros.model import Predictor
    loading, go_on = threading.Event(), threading.Event()
    load = Predictor.from_pretrained

    def slow(*words, **named):
        loading.set()
        assert go_on.wait(300.0)
        return load(*words, **named)
    monkeypatch.setattr(Predictor, 'from_pretrained', slow)
    node, robot = make_depth_node(autostart=True), make_robot()
    try:
        assert loading.wait(300.0)
        answer = robot.call(GetState, 'depthvlm/get_state', GetState.Request())
        assert answer.current_state.label == 'configuring'
    finally:
        go_on.set()
    assert robot.until(lambda: node.state == 'active')


def test_a_node_that_is_shut_down_says_that_it_must_be_started_again(active):
    node, robot = active()
    assert node.shut_down(10.0)
    assert 'start its process again' in robot.ask().message
