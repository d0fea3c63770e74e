# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
import time
from types import SimpleNamespace

from builtin_interfaces.msg import Time
from depthvlm_ros import camera
from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.geometry import organised_points
from depthvlm_ros.model import Predictor
from depthvlm_ros.nodes import pacing
from depthvlm_ros.nodes.conversions import calibration_from_info, info_from_intrinsics
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
import numpy as np
import pytest
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from sensor_msgs_py import point_cloud2
from std_msgs.msg import Header
from std_srvs.srv import SetBool

pytestmark = pytest.mark.ros

CAMERA = Intrinsics(128, 96, 100.0, 105.0, 60.0, 50.0)
DEPTH, INFO = 'depthvlm/depth/image', 'depthvlm/depth/camera_info'
POINTS, COLOUR = 'depthvlm/depth/points', 'depthvlm/depth/image_color'
OUTPUTS = {DEPTH: Image, INFO: CameraInfo, POINTS: PointCloud2, COLOUR: Image}


def picture(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (96, 128, 3), dtype=np.uint8)


def info_of(camera=CAMERA):
    return info_from_intrinsics(camera, Header())


def depth_of(message):
    """Return the metres of a depth image message."""
    if message.encoding == '32FC1':
        depth = np.frombuffer(message.data, np.float32)
    else:
        depth_mm = np.frombuffer(message.data, np.uint16)
        depth = np.where(depth_mm == 0, np.nan, depth_mm / 1000)
    return depth.reshape(message.height, message.width)


def expected_depth(checkpoint, rgb, camera=CAMERA):
    return Predictor.from_pretrained(str(checkpoint), device='cpu').look(rgb, camera).depth_m


def activate(node, robot, topics=(DEPTH,)):
    for topic in topics:
        robot.subscribe(OUTPUTS[topic], topic)
    assert node.trigger_configure().name == 'SUCCESS'
    assert node.trigger_activate().name == 'SUCCESS'
    assert robot.until(robot.connected)
    if DEPTH in topics:
        assert robot.until(node.stream.first.outputs.depth_wanted)


def count_passes(node):
    """Return a list that grows with every pass of the model over an image."""
    passes = []
    node._predictor.model.model.visual.register_forward_hook(lambda *_: passes.append(1))
    return passes


def test_each_image_gives_one_output_of_each_kind_under_its_header(make_depth_node, make_robot):
    node, robot = make_depth_node(), make_robot()
    activate(node, robot, OUTPUTS)
    stamps = [Time(sec=1234, nanosec=987654321 + i) for i in range(3)]
    for i, stamp in enumerate(stamps):
        robot.publish(picture(i), info_of(), stamp, frame_id='left_optical')
        assert robot.until(lambda n=i + 1: all(len(got) == n for got in robot.got.values()))
    time.sleep(0.3)     # whatever came twice would be here now
    for got in robot.got.values():
        assert [message.header.stamp for message in got] == stamps
        assert {message.header.frame_id for message in got} == {'left_optical'}


def test_depth_is_the_models_and_info_and_cloud_match_it(
        make_depth_node, make_robot, checkpoint):
    node, robot = make_depth_node(), make_robot()
    activate(node, robot, OUTPUTS)
    robot.publish(picture(), info_of(), Time(sec=1))
    assert robot.until(lambda: all(robot.got.values()))
    depth, info, points, colour = (robot.got[topic][0] for topic in (DEPTH, INFO, POINTS, COLOUR))

    assert (depth.encoding, depth.step, depth.is_bigendian) == ('32FC1', 4 * 128, 0)
    depth_m = depth_of(depth)
    np.testing.assert_allclose(depth_m, expected_depth(checkpoint, picture()), rtol=1e-5)
    assert np.ptp(depth_m) > 0.01, 'a flat depth would prove nothing below'

    camera = calibration_from_info(info)
    assert camera.intrinsics == CAMERA
    assert not camera.distorted
    assert list(info.r) == [1, 0, 0, 0, 1, 0, 0, 0, 1]

    assert (points.height, points.width, points.point_step) == (96, 128, 32)
    assert not points.is_dense
    assert [(field.name, field.offset) for field in points.fields] == [
        ('x', 0), ('y', 4), ('z', 8), ('rgb', 16)]
    read = point_cloud2.read_points(points)
    xyz = np.stack([read[name] for name in 'xyz'], axis=-1).reshape(96, 128, 3)
    np.testing.assert_array_equal(xyz, organised_points(depth_m, CAMERA))
    packed = np.ascontiguousarray(read['rgb']).view(np.uint32).reshape(96, 128)
    red_green_blue = np.stack([packed >> 16 & 255, packed >> 8 & 255, packed & 255], axis=-1)
    np.testing.assert_array_equal(red_green_blue, picture())

    assert (colour.encoding, colour.height, colour.width) == ('bgr8', 96, 128)


def test_depth_in_millimetres(make_depth_node, make_robot, checkpoint):
    node, robot = make_depth_node(depth_encoding='16UC1'), make_robot()
    activate(node, robot)
    robot.publish(picture(), info_of(), Time(sec=1))
    assert robot.until(lambda: robot.got[DEPTH])
    assert robot.got[DEPTH][0].encoding == '16UC1'
    np.testing.assert_allclose(depth_of(robot.got[DEPTH][0]),
                               expected_depth(checkpoint, picture()), atol=0.00051)


def test_compressed_images(make_depth_node, make_robot, checkpoint):
    node = make_depth_node(image_transport='compressed')
    robot = make_robot(compressed=True)
    activate(node, robot)
    robot.publish(picture(), info_of(), Time(sec=1))
    assert robot.until(lambda: robot.got[DEPTH])
    np.testing.assert_allclose(depth_of(robot.got[DEPTH][0]),
                               expected_depth(checkpoint, picture()), rtol=1e-5)


def test_camera_info_that_was_published_once_before(make_depth_node, make_robot):
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    node, robot = make_depth_node(), make_robot(info_qos=latched)
    info = info_of()
    info.header.frame_id = 'camera_optical_frame'
    robot.infos.publish(info)
    activate(node, robot)
    assert robot.until(lambda: node.stream.first.inputs._pairing._newest is not None)
    for i in range(2):
        robot.publish(picture(i), None, Time(sec=5, nanosec=i))
        assert robot.until(lambda n=i + 1: len(robot.got[DEPTH]) == n)
    assert robot.got[DEPTH][1].header.stamp == Time(sec=5, nanosec=1)


def test_a_distorted_image_is_rectified(make_depth_node, make_robot, checkpoint):
    info = info_of()
    info.d = [-0.3, 0.1, 0.001, -0.001, 0.0]
    info.p = [80.0, 0.0, 62.0, 0.0, 0.0, 82.0, 47.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    camera = Intrinsics(128, 96, 80.0, 82.0, 62.0, 47.0)
    maps = calibration_from_info(info).rectification()
    node, robot = make_depth_node(), make_robot()
    activate(node, robot, [DEPTH, INFO])
    robot.publish(picture(), info, Time(sec=1))
    assert robot.until(lambda: robot.got[DEPTH] and robot.got[INFO])
    assert calibration_from_info(robot.got[INFO][0]).intrinsics == camera
    assert not any(robot.got[INFO][0].d)
    expected_m = expected_depth(checkpoint, maps.apply(picture()), camera)
    expected_m[~maps.valid] = np.nan
    assert 0.3 < maps.valid.mean() < 0.99
    np.testing.assert_allclose(depth_of(robot.got[DEPTH][0]), expected_m, rtol=1e-5)


def test_an_image_that_is_rectified_already_is_not_remapped(
        make_depth_node, make_robot, checkpoint):
    info = info_of()
    info.d = [-0.3, 0.1, 0.001, -0.001, 0.0]
    node, robot = make_depth_node(rectify=False), make_robot()
    activate(node, robot)
    robot.publish(picture(), info, Time(sec=1))
    assert robot.until(lambda: robot.got[DEPTH])
    np.testing.assert_allclose(depth_of(robot.got[DEPTH][0]),
                               expected_depth(checkpoint, picture()), rtol=1e-5)


@pytest.mark.parametrize('raw', [
    {'distortion_model': 'kannala_brandt', 'd': [0.1] * 6}, {'k': [0.0] * 9},
    {'d': [float('nan')] * 5}, {'r': [2.0] * 9}])
def test_an_image_that_is_rectified_already_needs_p_alone(make_depth_node, make_robot, raw):
    info = info_of()
    for name, value in raw.items():
        setattr(info, name, value)
    with pytest.raises(ValueError, match='wanted|uncalibrated'):
        calibration_from_info(info)
    node, robot = make_depth_node(rectify=False), make_robot()
    activate(node, robot)
    robot.publish(picture(), info, Time(sec=1))
    assert robot.until(lambda: robot.got[DEPTH])


def test_no_subscriber_no_pass(make_depth_node, make_robot):
    node, robot = make_depth_node(), make_robot()
    activate(node, robot, [INFO])
    passes = count_passes(node)
    robot.publish(picture(), info_of(), Time(sec=1))
    assert robot.until(lambda: robot.got[INFO])
    assert node.stream.first.statistics.received == 1
    assert not passes
    assert robot.got[INFO][0].header.stamp == Time(sec=1), 'camera_info needs no pass'


def test_the_newest_image_wins(make_depth_node, make_robot, hold):
    node, robot = make_depth_node(), make_robot()
    activate(node, robot)
    gate = hold(node)
    for i in range(8):
        robot.publish(picture(i), info_of(), Time(sec=1 + i))
        assert robot.until(lambda n=i + 1: node.stream.first.statistics.received == n)
        if i == 0:
            assert robot.until(lambda: node.stream.worker.step_s() > 0)
    gate.set()
    assert robot.until(lambda: node.stream.first.statistics.published
                       + node.stream.worker.dropped.total() == 8)
    assert robot.until(lambda: len(robot.got[DEPTH]) >= 2)
    assert [message.header.stamp.sec for message in robot.got[DEPTH]] == [1, 8]
    assert node.stream.worker.dropped.total() == 6


def test_a_broken_image_does_not_stop_the_node(make_depth_node, make_robot):
    node, robot = make_depth_node(), make_robot()
    activate(node, robot)
    for i, broken in enumerate((
            Image(height=96, width=128, step=384, encoding='rgb8', data=[1, 2, 3]),
            Image(height=0, width=0, encoding='rgb8'),
            Image(height=96, width=128, step=384, encoding='smell8', data=bytes(96 * 384)),
            Image(height=48, width=64, step=192, encoding='rgb8', data=bytes(48 * 192)))):
        broken.header.stamp = Time(sec=1 + i)
        info = info_of()
        info.header = broken.header
        robot.infos.publish(info)
        robot.images.publish(broken)
        assert robot.until(lambda n=i + 1: node.stream.first.statistics.refused == n), (
            broken.encoding)
    robot.publish(picture(), info_of(), Time(sec=99))
    assert robot.until(lambda: robot.got[DEPTH])
    assert robot.got[DEPTH][0].header.stamp.sec == 99


def test_a_broken_calibration_is_refused_and_said(make_depth_node, make_robot):
    node, robot = make_depth_node(), make_robot()
    activate(node, robot)
    robot.subscribe(DiagnosticArray, '/diagnostics')
    uncalibrated = CameraInfo(width=128, height=96)
    robot.publish(picture(), uncalibrated, Time(sec=1))
    assert robot.until(lambda: node.stream.first.statistics.refused == 1)
    assert robot.until(lambda: any(
        'uncalibrated' in array.status[0].message for array in robot.got['/diagnostics']))
    robot.publish(picture(), info_of(), Time(sec=2))
    assert robot.until(lambda: robot.got[DEPTH])


def test_a_model_failure_does_not_stop_the_node(make_depth_node, make_robot):
    node, robot = make_depth_node(), make_robot()
    activate(node, robot)

    def fail(*_):
        raise RuntimeError('out of memory')
    hook = node._predictor.model.model.visual.register_forward_hook(fail)
    robot.publish(picture(), info_of(), Time(sec=1))
    assert robot.until(lambda: node.stream.first.statistics.failed == 1)
    assert 'out of memory' in node.stream.first.statistics.last_error
    hook.remove()
    robot.publish(picture(), info_of(), Time(sec=2))
    assert robot.until(lambda: robot.got[DEPTH])


def test_range_stride_and_edges_as_parameters_that_change_while_active(
        make_depth_node, make_robot, checkpoint):
    node, robot = make_depth_node(), make_robot()
    activate(node, robot, [DEPTH, POINTS])
    expected_m = expected_depth(checkpoint, picture())
    near_m, far_m = (float(value) for value in np.percentile(expected_m, (30, 80)))
    assert all(result.successful for result in node.set_parameters([
        Parameter('min_depth', value=near_m), Parameter('max_depth', value=far_m),
        Parameter('cloud_stride', value=3), Parameter('edge_threshold', value=1e-6)]))
    robot.publish(picture(), info_of(), Time(sec=1))
    assert robot.until(lambda: robot.got[DEPTH] and robot.got[POINTS])
    depth_m = depth_of(robot.got[DEPTH][0])
    kept = np.isfinite(depth_m)
    assert kept.mean() == pytest.approx(0.5, abs=0.02)
    assert depth_m[kept].min() >= near_m
    assert depth_m[kept].max() <= far_m
    points = robot.got[POINTS][0]
    assert (points.height, points.width) == (32, 43)
    z = point_cloud2.read_points(points)['z'].reshape(32, 43)
    assert np.isfinite(z).sum() < 0.5 * np.isfinite(depth_m[::3, ::3]).sum()
    assert set(z[np.isfinite(z)]) <= set(depth_m[::3, ::3][kept[::3, ::3]])


def test_max_rate_limits_the_passes(make_depth_node, make_robot, monkeypatch):
    now_s = [100.0]
    monkeypatch.setattr(pacing, 'time', SimpleNamespace(monotonic=lambda: now_s[0]))
    node, robot = make_depth_node(max_rate=2.0), make_robot()
    activate(node, robot)
    for i in range(5):
        robot.publish(picture(), info_of(), Time(sec=1 + i))
        assert robot.until(lambda n=i + 1: node.stream.first.statistics.received == n)
    assert robot.until(lambda: node.stream.first.statistics.rate_limited == 4)
    now_s[0] += 0.5
    robot.publish(picture(), info_of(), Time(sec=9))
    assert robot.until(lambda: [m.header.stamp.sec for m in robot.got[DEPTH]] == [1, 9])


def test_enable_pauses_the_stream(make_depth_node, make_robot):
    node, robot = make_depth_node(), make_robot()
    enable = 'depthvlm/enable'
    refused = robot.call(SetBool, enable, SetBool.Request(data=True))
    assert not refused.success
    assert 'unconfigured' in refused.message
    activate(node, robot)
    assert robot.call(SetBool, enable, SetBool.Request(data=False)).success
    robot.publish(picture(), info_of(), Time(sec=1))
    assert robot.until(lambda: node.stream.first.statistics.received == 1)
    time.sleep(0.3)
    assert not robot.got[DEPTH]
    assert robot.call(SetBool, enable, SetBool.Request(data=True)).success
    robot.publish(picture(), info_of(), Time(sec=2))
    assert robot.until(lambda: robot.got[DEPTH])
    assert robot.got[DEPTH][0].header.stamp.sec == 2


def test_diagnostics_once_a_second(make_depth_node, make_robot, patient):
    node, robot = make_depth_node(), make_robot()
    activate(node, robot)
    robot.subscribe(DiagnosticArray, '/diagnostics')
    robot.publish(picture(), info_of(), Time(sec=1))
    assert robot.until(lambda: robot.got[DEPTH])
    seen = len(robot.got['/diagnostics'])
    assert robot.until(lambda: len(robot.got['/diagnostics']) >= seen + 2)
    status = robot.got['/diagnostics'][-1].status[0]
    values = {pair.key: pair.value for pair in status.values}
    assert (status.level, status.name) == (DiagnosticStatus.OK, 'depthvlm: depth')
    assert (values['published'], values['dropped'], values['calibration']) == ('1', '0', 'ok')
    assert 0 < float(values['latency_p50_ms']) <= float(values['latency_p99_ms']) < 10000


def test_time_that_jumps_back_drops_old_images(make_depth_node, make_robot):
    node, robot = make_depth_node(use_sim_time=True), make_robot()
    clock = robot.node.create_publisher(Clock, '/clock', 1)

    def tell(seconds):
        clock.publish(Clock(clock=Time(sec=seconds)))
        return node.get_clock().now().nanoseconds == seconds * 10**9
    activate(node, robot)
    assert robot.until(lambda: tell(10))
    robot.publish(picture(), info_of(), Time(sec=10))
    assert robot.until(lambda: node.stream.first.newest is not None)
    assert robot.until(lambda: tell(11))
    assert node.stream.first.newest is not None
    assert robot.until(lambda: tell(5))
    assert robot.until(lambda: node.stream.first.newest is None)


def test_what_is_under_way_while_time_jumps_back_is_not_published(
        make_depth_node, make_robot, hold):
    node, robot = make_depth_node(), make_robot()
    activate(node, robot)
    robot.subscribe(DiagnosticArray, '/diagnostics')
    gate = hold(node)
    robot.publish(picture(), info_of(), Time(sec=100))
    assert robot.until(lambda: node.stream.worker.step_s() > 0)
    node.set_parameters([Parameter('use_sim_time', value=True)])
    gate.set()
    assert robot.until(lambda: not node.stream.worker.step_s())
    robot.publish(picture(), info_of(), Time(sec=1))
    assert robot.until(lambda: robot.got[DEPTH])
    assert [message.header.stamp.sec for message in robot.got[DEPTH]] == [1]

    def dropped():
        said = [status for array in robot.got['/diagnostics'] for status in array.status]
        return said and {pair.key: pair.value for pair in said[-1].values}['dropped'] == '1'
    assert robot.until(dropped)


def test_an_image_counts_from_when_it_came_and_not_from_its_camera_info(
        make_depth_node, make_robot):
    node, robot = make_depth_node(sync='stamp'), make_robot()
    activate(node, robot)
    robot.publish(picture(), None, Time(sec=1))
    assert robot.until(lambda: node.stream.first.inputs._pairing._waiting is not None)
    came_s = time.monotonic()
    info = info_of()
    info.header = Header(stamp=Time(sec=1), frame_id='camera_optical_frame')
    robot.infos.publish(info)
    assert robot.until(lambda: node.stream.first.newest is not None)
    assert node.stream.first.newest.source.received_s <= came_s


def test_cleanup_frees_the_maps_of_rectification(make_depth_node, make_robot):
    info = info_of()
    info.d = [-0.3, 0.1, 0.001, -0.001, 0.0]
    node, robot = make_depth_node(), make_robot()
    activate(node, robot)
    robot.publish(picture(), info, Time(sec=1))
    assert robot.until(lambda: robot.got[DEPTH])
    assert camera._rectification.cache_info().currsize
    node.trigger_deactivate()
    node.trigger_cleanup()
    assert not camera._rectification.cache_info().currsize


def test_a_clock_that_becomes_another_drops_old_images(make_depth_node, make_robot):
    node, robot = make_depth_node(), make_robot()
    activate(node, robot)
    robot.publish(picture(), info_of(), Time(sec=1))
    assert robot.until(lambda: node.stream.first.newest is not None)
    node.set_parameters([Parameter('use_sim_time', value=True)])
    assert robot.until(lambda: node.stream.first.newest is None)
