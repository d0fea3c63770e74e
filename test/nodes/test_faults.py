# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What goes wrong on robots: too many images, no memory, a model that hangs."""

import gc
import itertools
from pathlib import Path
import threading

from builtin_interfaces.msg import Time
from depthvlm_ros.model import shortage
from depthvlm_ros.nodes import diagnostics
from depthvlm_ros.nodes.conversions import info_from_intrinsics
from depthvlm_ros.srv import SpatialQuery
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
import pytest
from rcl_interfaces.srv import ListParameters
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Header
import torch

pytestmark = pytest.mark.ros

DEPTH, POINTS = 'depthvlm/depth/image', 'depthvlm/depth/points'
STATUS = SpatialQuery.Response


def resident_mb():
    gc.collect()
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith('VmRSS:'):
            return int(line.split()[1]) / 1024
    raise AssertionError('no VmRSS')


def publish(robot, sec, nanosec=0):
    robot.publish(robot.picture(sec), info_from_intrinsics(robot.camera, Header()),
                  Time(sec=sec, nanosec=nanosec))


def values_of(robot):
    """Return the newest diagnostics as a dictionary, with level and message."""
    status = robot.got['/diagnostics'][-1].status[0]
    return {'level': status.level, 'message': status.message,
            **{pair.key: pair.value for pair in status.values}}


def test_ten_times_the_rate_costs_images_but_neither_latency_nor_memory(active):
    faster, images = 10, 400
    node, robot = active([(DEPTH, Image)])
    publish(robot, 1)
    depth = robot.got[DEPTH]
    assert robot.until(lambda: depth)
    statistics, behind, turns = node.stream.first.statistics, [], threading.Semaphore(0)

    def take_a_turn(*_):
        assert turns.acquire(timeout=60.0)
    node._predictor.model.model.visual.register_forward_pre_hook(take_a_turn)
    before_mb = resident_mb()
    for sec in range(2, images + 2, faster):    # ten for each pass, on any machine
        so_far = len(depth)
        for newest in range(sec, sec + faster):
            received = statistics.received
            publish(robot, newest)
            assert robot.until(lambda: statistics.received > received)      # noqa: B023
        turns.release()
        assert robot.until(lambda: len(depth) > so_far)     # noqa: B023
        behind.append(newest - depth[-1].header.stamp.sec)
    turns.release()
    assert robot.until(lambda: depth[-1].header.stamp.sec == images + 1), 'newest wins'
    assert resident_mb() - before_mb < 50
    stamps = [message.header.stamp.sec for message in depth]
    assert stamps == sorted(stamps)
    # An image waits for one pass at most and takes one: never is it more behind the newest one.
    assert max(behind) <= faster
    dropped = node.stream.worker.dropped
    assert images - images // faster - dropped.total() in (0, 1)
    assert robot.until(lambda: statistics.received == statistics.published + dropped.total()
                       + statistics.refused + statistics.not_wanted)


def test_a_model_that_hangs_ends_unconfigured_and_can_be_configured_again(active, capfd):
    node, robot = active([(DEPTH, Image), ('/diagnostics', DiagnosticArray)], hang_timeout=600.0)
    let_go, hanging = threading.Event(), threading.Event()

    def hang(*_):
        hanging.set()
        assert let_go.wait(60.0)
    handle = node._predictor.model.model.visual.register_forward_pre_hook(hang)
    try:
        robot.show(node, 1)
        assert hanging.wait(60.0)
        client = robot.node.create_client(SpatialQuery, 'depthvlm/spatial_query')
        assert client.wait_for_service(60.0)
        answer = client.call_async(SpatialQuery.Request(question='How far?'))
        assert robot.until(lambda: node.stream.worker.open_questions == 1)
        node.set_parameters([Parameter('hang_timeout', value=0.5)])
        assert robot.until(answer.done)
        response = answer.result()
        assert response.status == STATUS.MODEL_FAILURE
        assert 'hang_timeout' in response.message
        assert response.message.endswith('; configure the node again')
        assert robot.until(lambda: node.state == 'unconfigured')
        assert robot.ask().status == STATUS.INACTIVE
        robot.got['/diagnostics'].clear()
        assert robot.until(lambda: robot.got['/diagnostics'])
        status = robot.got['/diagnostics'][-1].status[0]
        assert status.level == DiagnosticStatus.ERROR
        assert 'did not come back' in status.message
        assert 'the model hangs' in capfd.readouterr().err
        node.set_parameters([Parameter('hang_timeout', value=600.0)])
        assert node.trigger_configure().name == 'SUCCESS'
        assert node.trigger_activate().name == 'SUCCESS'
        assert robot.until(robot.connected)
        robot.got[DEPTH].clear()
        assert robot.until(node.stream.first.outputs.depth_wanted)
        robot.show(node, 2)
        assert robot.until(lambda: robot.got[DEPTH]), 'while the old thread still hangs'
    finally:
        let_go.set()
        handle.remove()


def test_a_long_pass_within_its_time_is_no_hang(active, slow_down):
    node, robot = active([(DEPTH, Image)], hang_timeout=60.0)
    slow_down(node, 1.5)
    robot.show(node, 1)
    assert robot.until(lambda: robot.got[DEPTH])
    assert node.state == 'active'


@pytest.mark.parametrize('make_error', [
    lambda: torch.OutOfMemoryError('CUDA out of memory'),
    lambda: RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_out_of_memory_the_next_frame_has_fewer_tokens(active, make_error):
    node, robot = active([(DEPTH, Image), ('/diagnostics', DiagnosticArray)])
    patches_had = []

    def run_out(module, inputs):
        patches_had.append(inputs[0].shape[0])
        if inputs[0].shape[0] > 0.9 * patches_had[0]:
            raise make_error()
    node._predictor.model.model.visual.register_forward_pre_hook(run_out)
    sec = 0

    def seen():
        nonlocal sec
        sec += 1
        robot.show(node, sec)
        return robot.until(lambda: robot.got[DEPTH], 1.0)
    assert robot.until(seen)
    assert node.state == 'active'
    assert patches_had[-1] < 0.9 * patches_had[0]
    depth = robot.got[DEPTH][-1]
    assert (depth.height, depth.width) == (robot.camera.height, robot.camera.width)
    assert 'no memory for' in node.stream.first.statistics.last_error
    assert robot.until(lambda: robot.got['/diagnostics'] and int(
        values_of(robot)['max_image_tokens']) > 0)


def test_out_of_memory_at_the_fewest_tokens_is_reported_and_the_node_goes_on(active):
    node, robot = active([(DEPTH, Image)])

    def run_out(*_):
        raise torch.OutOfMemoryError('CUDA out of memory')
    handle = node._predictor.model.model.visual.register_forward_pre_hook(run_out)
    for sec in range(1, 5):
        robot.show(node, sec)
        assert robot.until(lambda n=sec: node.stream.first.statistics.failed == n)
    assert 'no memory even for' in node.stream.first.statistics.last_error
    handle.remove()
    robot.show(node, 9)
    assert robot.until(lambda: robot.got[DEPTH])


def test_what_a_shortage_of_memory_leaves_behind_is_told(active, patient):
    node, robot = active([(DEPTH, Image), ('/diagnostics', DiagnosticArray)])

    def run_out(*_):
        raise torch.OutOfMemoryError('CUDA out of memory')
    handle = node._predictor.model.model.visual.register_forward_pre_hook(run_out)
    robot.show(node, 1)
    assert robot.until(lambda: node.stream.first.statistics.failed == 1)
    handle.remove()
    robot.show(node, 2)
    assert robot.until(lambda: robot.got[DEPTH])
    # For some seconds it is the fault itself that is told.
    assert robot.until(lambda: robot.got['/diagnostics'] and (
        'tokens since memory ran out' in values_of(robot)['message']))
    assert values_of(robot)['level'] == DiagnosticStatus.WARN


def test_an_answer_for_which_memory_runs_out_lets_go_of_what_is_kept(active, monkeypatch):
    node, robot = active()
    robot.show(node)
    let_go = []
    monkeypatch.setattr(shortage, 'let_go', let_go.append)

    def run_out(*_):
        raise torch.OutOfMemoryError('CUDA out of memory')
    handle = node._predictor.model.lm_head.register_forward_pre_hook(run_out)
    assert robot.ask().status == STATUS.MODEL_FAILURE
    assert robot.until(lambda: let_go == [node._predictor])
    handle.remove()
    assert robot.ask().status == STATUS.OK
    assert len(let_go) == 1


@pytest.mark.slow
def test_fifty_rounds_of_the_lifecycle_do_not_grow(active):
    node, robot = active([(DEPTH, Image)])
    robot.show(node, 1)
    resident = []
    for cycle in range(50):
        node.trigger_deactivate()
        node.trigger_cleanup()
        assert node.trigger_configure().name == 'SUCCESS'
        assert node.trigger_activate().name == 'SUCCESS'
        if cycle % 10 == 0:      # now and then with a pass
            assert robot.until(robot.connected)
            assert robot.until(node.stream.first.outputs.depth_wanted)
            robot.got[DEPTH].clear()
            robot.show(node, cycle + 2)
            assert robot.until(lambda: robot.got[DEPTH])
        resident.append(resident_mb())
    assert threading.active_count() < 30
    assert max(resident[40:]) - max(resident[5:15]) < 25, resident


def test_activated_without_images_it_waits_and_says_so(active, patient):
    node, robot = active([('/diagnostics', DiagnosticArray)])
    assert robot.until(lambda: robot.got['/diagnostics']    # one of before may be under way
                       and 'no image has arrived' in values_of(robot)['message'])
    assert values_of(robot)['level'] == DiagnosticStatus.WARN
    assert robot.ask().status == STATUS.NO_IMAGE


def test_why_a_camera_is_silent_can_be_asked_while_the_node_is_deactivated(active):
    node, robot = active()
    inputs = node.stream.first.inputs
    robot.show(node)
    assert node.trigger_deactivate().name == 'SUCCESS'
    assert inputs.topic == '/image'
    assert inputs.silence


def test_a_camera_that_falls_silent_is_told(active, monkeypatch):
    monkeypatch.setattr(diagnostics, 'SILENT_S', 2.0)
    node, robot = active([('/diagnostics', DiagnosticArray)])
    robot.show(node)
    assert robot.until(lambda: robot.got['/diagnostics'] and 'no image for' in values_of(
        robot)['message'])
    values = values_of(robot)
    assert values['level'] == DiagnosticStatus.WARN
    assert float(values['image_age_s']) >= 2.0
    stamps = itertools.count(2)

    def well():
        robot.show(node, next(stamps))
        values = values_of(robot)
        return values['level'] == DiagnosticStatus.OK and float(values['image_age_s']) < 2.0
    assert robot.until(well)


def test_a_camera_info_of_another_size_is_told_without_subscribers(active, patient):
    node, robot = active([('/diagnostics', DiagnosticArray)])
    small = info_from_intrinsics(robot.camera.resize(64, 48), Header())
    robot.publish(robot.picture(), small, Time(sec=1))
    assert robot.until(lambda: robot.got['/diagnostics'] and (
        'but camera_info is for 64 x 48' in values_of(robot)['message']))
    assert values_of(robot)['received'] == '1'
    assert values_of(robot)['level'] == DiagnosticStatus.WARN


def test_the_cloud_has_a_rate_of_its_own(active):
    node, robot = active([(DEPTH, Image), (POINTS, PointCloud2)], max_cloud_rate=0.001)
    for sec in (1, 2, 3):
        robot.show(node, sec)
        assert robot.until(lambda n=sec: len(robot.got[DEPTH]) == n)
    assert robot.until(lambda: robot.got[POINTS])
    assert [message.header.stamp.sec for message in robot.got[POINTS]] == [1]
    node.set_parameters([Parameter('max_cloud_rate', value=0.0)])
    robot.show(node, 4)
    assert robot.until(lambda: len(robot.got[POINTS]) == 2)


def test_the_model_does_not_look_for_clouds_that_are_not_due(active):
    node, robot = active([(POINTS, PointCloud2)], max_cloud_rate=0.001)
    for sec in (1, 2, 3):
        robot.show(node, sec)
        assert robot.until(lambda: robot.got[POINTS])
    statistics = node.stream.first.statistics
    assert (statistics.published, statistics.rate_limited) == (1, 2)
    node.set_parameters([Parameter('max_cloud_rate', value=0.0)])
    robot.show(node, 4)
    assert robot.until(lambda: len(robot.got[POINTS]) == 2)


def test_an_event_of_a_publisher_that_never_ends_holds_up_no_service(active):
    """As one does whose publisher is destroyed before rclpy takes it."""
    node, robot = active()
    for publisher in (node.stream.answers, *node.stream.first.outputs._publishers):
        for event in publisher.event_handlers:
            assert event.callback_group.beginning_execution(event)
    request = ListParameters.Request()
    assert robot.call(ListParameters, 'depthvlm/list_parameters', request).result.names


def test_qos_that_does_not_fit_is_reported_from_the_middlewares_event(active, capfd):
    node, robot = active(
        [('/diagnostics', DiagnosticArray)],
        **{'qos_overrides./image.subscription.reliability': 'reliable'})
    robot.node.create_publisher(
        Image, 'image', QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT))
    reason = 'a publisher of /image offers another RELIABILITY'
    assert robot.until(lambda: robot.got['/diagnostics']
                       and reason in values_of(robot)['qos_mismatch'])
    assert values_of(robot)['level'] == DiagnosticStatus.WARN
    said = []   # the log comes a moment later
    assert robot.until(lambda: said.append(capfd.readouterr().err) or (
        'qos_overrides./image.subscription.reliability' in ''.join(said)))
    robot.node.create_subscription(
        Image, DEPTH, lambda message: None,
        QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL))
    assert robot.until(lambda: f'a subscriber of /{DEPTH} wants another DURABILITY'
                       in values_of(robot)['qos_mismatch'])
