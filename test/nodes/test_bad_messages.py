# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a camera sends that cannot be used, and drivers of all habits, over DDS."""

from array import array
import contextlib
import threading

from builtin_interfaces.msg import Time
from depthvlm_ros.camera import Calibration, Intrinsics
from depthvlm_ros.nodes import lane
from depthvlm_ros.nodes.conversions import calibration_from_info, info_from_intrinsics
from depthvlm_ros.nodes.inputs import Inputs
from diagnostic_msgs.msg import DiagnosticArray
import numpy as np
import pytest
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

pytestmark = pytest.mark.ros

DEPTH, INFO = 'depthvlm/depth/image', 'depthvlm/depth/camera_info'


def info_of(camera, **changed):
    info = info_from_intrinsics(camera, Header())
    for name, value in changed.items():
        setattr(info, name, value)
    return info


@pytest.fixture
def watched(make_depth_node, make_robot):
    """Return a function that makes an active node, and a robot that hears what it says."""
    def make(compressed=False, **values):
        transport = 'compressed' if compressed else 'raw'
        node = make_depth_node(image_transport=transport, **values)
        robot = make_robot(compressed=compressed)
        for topic, kind in ((DEPTH, Image), (INFO, CameraInfo),
                            ('/diagnostics', DiagnosticArray)):
            robot.subscribe(kind, topic)
        assert node.trigger_configure().name == node.trigger_activate().name == 'SUCCESS'
        assert robot.until(robot.connected)
        return node, robot
    return make


@pytest.fixture
def lines(capfd):
    """Return a function that returns the log lines so far that say something."""
    heard = []

    def lines(said):
        # Not from /rosout, where nodes of one name, as those of many tests, silence each other.
        heard.append(capfd.readouterr().err)
        return [line for line in ''.join(heard).splitlines() if said in line]
    return lines


def diagnosed(robot, said):
    return any(said in array.status[0].message for array in robot.got['/diagnostics'])


def refused(node, robot, send, first_sec):
    """
    Send one after the other until one is refused, since best effort may lose some.

    :param send: called with a stamp's seconds, from first_sec on.
    """
    before = node.stream.first.statistics.refused
    for sec in range(first_sec, first_sec + 5):
        send(sec)
        if robot.until(lambda: node.stream.first.statistics.refused > before, 15.0):
            return True
    return False


def good_frame(robot, first_sec):
    """Publish whole frames until depth comes."""
    before = len(robot.got[DEPTH])
    for sec in range(first_sec, first_sec + 5):
        robot.publish(robot.picture(), info_of(robot.camera), Time(sec=sec))
        if robot.until(lambda: len(robot.got[DEPTH]) > before, 15.0):
            return True
    return False


NAN_K = [float('nan'), *info_of(Intrinsics(128, 96, 1.0, 1.0, 0, 0)).k[1:]]


@pytest.mark.parametrize(('changed', 'said'), [
    ({'k': [0.0] * 9, 'p': [0.0] * 12}, 'uncalibrated: calibrate the camera'),
    ({'k': NAN_K}, 'wanted finite numbers'),
    ({'k': [-100.0, 0, 60.0, 0, 105.0, 50.0, 0, 0, 1]}, 'focal lengths -100.0'),
    ({'width': 64, 'height': 48}, 'camera_info is for 64 x 48'),
    ({'width': 2**32 - 1}, 'wanted 1 to 16384'),
    ({'d': [0.1] * 3}, 'plumb_bob has 3 coefficients, wanted 4, 5, 8, 12 or 14'),
    ({'d': [0.1] * 4, 'distortion_model': 'heavy'}, "distortion model is 'heavy', wanted one of")])
def test_a_calibration_that_is_none_gives_no_depth_but_a_reason(
        watched, lines, monkeypatch, changed, said):
    monkeypatch.setattr(lane, 'LOG_THROTTLE_S', 600.0)
    node, robot = watched()
    changed = {name: [float(v) for v in value] if isinstance(value, list) else value
               for name, value in changed.items()}
    for sec in (10, 20, 30):
        assert refused(node, robot, lambda sec: robot.publish(
            robot.picture(), info_of(robot.camera, **changed), Time(sec=sec)), sec)
    assert robot.until(lambda: diagnosed(robot, said))
    assert robot.until(lambda: lines(said))
    assert len(lines(said)) == 1, 'one line, not one an image'
    assert not robot.got[DEPTH]
    assert not robot.got[INFO]
    assert good_frame(robot, 40)


def test_images_without_camera_info_are_counted_and_said(watched, lines, monkeypatch):
    monkeypatch.setattr(lane, 'LOG_THROTTLE_S', 600.0)
    node, robot = watched()
    robot.publish(robot.picture(), None, Time(sec=5))   # given up when the next one comes
    for sec in (10, 20, 30):
        assert refused(node, robot, lambda sec: robot.publish(
            robot.picture(), None, Time(sec=sec)), sec)
    assert robot.until(lambda: diagnosed(robot, 'no camera_info: remap'))
    assert robot.until(lambda: len(lines('no camera_info: remap')) == 1)
    assert good_frame(robot, 40)


def test_stamps_that_are_zero_or_go_back_are_refused_and_the_next_one_is_taken(watched):
    node, robot = watched()
    for stamp, said in ((Time(), 'stamp is zero'), (Time(sec=-3), 'stamp is zero'),
                        (Time(sec=7), 'went back by ')):
        assert good_frame(robot, 50)
        published = len(robot.got[DEPTH])
        assert refused(node, robot, lambda _: robot.publish(
            robot.picture(), info_of(robot.camera), stamp), 0)   # noqa: B023
        assert said in node.stream.first.statistics.last_error
        assert len(robot.got[DEPTH]) == published
        assert good_frame(robot, 8), 'a camera that began again goes on'


def test_a_corrupt_jpeg_is_refused_and_the_next_frame_is_taken(watched):
    node, robot = watched(compressed=True)
    assert good_frame(robot, 1)
    for sec, data in enumerate((b'', b'\xff\xd8\xff\xe0 and nothing more', b'GIF89a'), 1):
        assert refused(node, robot, lambda sec: robot.images.publish(CompressedImage(
            header=Header(stamp=Time(sec=sec), frame_id='camera_optical_frame'), format='jpeg',
            data=array('B', data))), 10 * sec)  # noqa: B023
    assert 'wanted JPEG or PNG' in node.stream.first.statistics.last_error
    assert robot.until(lambda: diagnosed(robot, 'wanted JPEG or PNG'))
    assert good_frame(robot, 90)


def test_pictures_that_were_never_readable_are_no_missing_ones(watched):
    node, robot = watched(compressed=True)
    assert refused(node, robot, lambda sec: robot.images.publish(CompressedImage(
        header=Header(stamp=Time(sec=sec), frame_id='camera_optical_frame'), format='jpeg',
        data=array('B', b'GIF89a'))), 1)
    assert 'wanted JPEG or PNG' in robot.ask().message


def test_a_picture_of_nan_is_refused(watched):
    node, robot = watched()
    values = np.full((96, 128), np.nan, '<f4')

    def send(sec):
        header = Header(stamp=Time(sec=sec), frame_id='camera_optical_frame')
        robot.infos.publish(info_of(robot.camera, header=header))
        robot.images.publish(Image(
            header=header, height=96, width=128, encoding='32FC1', step=512,
            data=array('B', values.tobytes())))
    assert refused(node, robot, send, 1)
    assert "'32FC1' cannot be used, wanted one of" in node.stream.first.statistics.last_error
    assert good_frame(robot, 20)


@pytest.mark.parametrize('with_each_image', [True, False])
def test_intrinsics_that_change_hold_from_the_next_frame_on(watched, with_each_image):
    node, robot = watched()
    pairing = node.stream.first.inputs._pairing
    zoomed = Intrinsics(128, 96, 150.0, 151.0, 62.0, 47.0)
    for sec, camera in enumerate((robot.camera, robot.camera, zoomed, zoomed, robot.camera), 1):
        info = info_of(camera)
        if not with_each_image:     # a driver that publishes it now and then, never by stamp
            info.header = Header(stamp=Time(sec=1000 + sec), frame_id='camera_optical_frame')
            robot.infos.publish(info)
            assert robot.until(lambda n=sec: pairing._newest is not None
                               and pairing._newest.stamp_ns == (1000 + n) * 10**9)
            info = None
        robot.publish(robot.picture(), info, Time(sec=sec))
        assert robot.until(lambda n=sec: len(robot.got[INFO]) == len(robot.got[DEPTH]) == n)
        assert robot.got[INFO][-1].header.stamp.sec == sec
        assert calibration_from_info(robot.got[INFO][-1]).intrinsics == camera


@contextlib.contextmanager
def inputs_beside(context, sync):
    """Join the camera without a model; yield the inputs and the pairs that come."""
    pairs, node = [], Node('inputs', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    inputs = Inputs(node, 'raw', 0.0, lambda *image: pairs.append(image[:2]), lambda *_: None,
                    sync)
    thread.start()
    try:
        yield inputs, pairs
    finally:
        executor.shutdown(timeout_sec=5.0)
        thread.join(2.0)
        inputs.destroy()
        node.destroy_node()


@pytest.mark.parametrize('sync', ['auto', 'stamp', 'newest'])
@pytest.mark.parametrize('habit', ['each', 'rarely', 'latched'])
def test_every_way_of_joining_with_every_habit_of_drivers(
        ros, make_robot, sync, habit):
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    robot = make_robot(info_qos=latched if habit == 'latched' else 10)
    info = info_of(robot.camera)
    if habit == 'latched':
        info.header = Header(stamp=Time(sec=1), frame_id='camera_optical_frame')
        robot.infos.publish(info)
    with inputs_beside(ros, sync) as (inputs, pairs):
        assert robot.until(robot.connected)
        if habit == 'latched':
            assert robot.until(lambda: inputs._pairing._newest is not None)
        for sec in range(1, 7):
            often = habit == 'each' or (habit == 'rarely' and sec == 1)
            robot.publish(robot.picture(), info if often else None, Time(sec=sec))
            assert robot.until(lambda n=sec: inputs._newest_stamp_ns == n * 10**9)
            if often:
                assert robot.until(lambda n=sec: len(pairs) >= n)
        expected = 6 if habit == 'each' or sync != 'stamp' else 1
        assert robot.until(lambda: len(pairs) >= expected - 1)
        # One image may wait for the stamp of an info that comes no more.
        assert expected - 1 <= len(pairs) <= expected
        assert all(isinstance(calibration, Calibration) for _, calibration in pairs)
        seconds = [message.header.stamp.sec for message, _ in pairs]
        assert seconds == list(range(1, len(pairs) + 1))
