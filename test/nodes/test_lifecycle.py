# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
import itertools
from pathlib import Path
import signal
import subprocess
import sys
import threading
import weakref

from builtin_interfaces.msg import Time
from depthvlm_ros.action import AnswerQuery
from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.nodes import depth_node
from depthvlm_ros.nodes.conversions import info_from_intrinsics
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
import numpy as np
import pytest
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.lifecycle import LifecycleNodeMixin
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from std_msgs.msg import Header

pytestmark = pytest.mark.ros

REPOSITORY = Path(__file__).resolve().parents[2]
CAMERA = Intrinsics(128, 96, 100.0, 105.0, 60.0, 50.0)
DEPTH = 'depthvlm/depth/image'
PATIENCE_S = 300.0
PICTURE = np.zeros((96, 128, 3), np.uint8)


def change(robot, transition):
    request = ChangeState.Request(transition=Transition(id=transition))
    return robot.call(ChangeState, 'depthvlm/change_state', request, PATIENCE_S).success


def state_of(robot):
    return robot.call(GetState, 'depthvlm/get_state', GetState.Request()).current_state.label


def publish(robot, sec):
    robot.publish(PICTURE, info_from_intrinsics(CAMERA, Header()), Time(sec=sec))


def test_a_full_round_twice_through_the_lifecycle_services(make_depth_node, make_robot):
    node, robot = make_depth_node(), make_robot()
    robot.subscribe(Image, DEPTH)
    for sec in (1, 2):
        assert state_of(robot) == 'unconfigured'
        assert change(robot, Transition.TRANSITION_CONFIGURE)
        assert state_of(robot) == 'inactive'
        assert robot.node.count_publishers(DEPTH) == 0, 'it connects on activate, not before'
        assert change(robot, Transition.TRANSITION_ACTIVATE)
        assert state_of(robot) == 'active'
        assert robot.until(robot.connected)
        assert robot.until(node.stream.first.outputs.depth_wanted)
        publish(robot, sec)
        assert robot.until(lambda n=sec: len(robot.got[DEPTH]) == n)
        assert change(robot, Transition.TRANSITION_DEACTIVATE)
        assert robot.until(lambda: robot.images.get_subscription_count() == 0)
        assert robot.until(lambda: robot.node.count_publishers(DEPTH) == 0)
        assert change(robot, Transition.TRANSITION_CLEANUP)
        assert node._predictor is None
    assert change(robot, Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
    assert state_of(robot) == 'finalized'


def test_diagnostics_tell_of_a_node_that_is_not_active(
        make_depth_node, make_robot, checkpoint, tmp_path):
    node, robot = make_depth_node(model=str(tmp_path)), make_robot()
    robot.subscribe(DiagnosticArray, '/diagnostics')
    keys = []

    def told(level, state):
        found = {}

        def comes():    # a report from before may still be under way
            for status in (array.status[0] for array in list(robot.got['/diagnostics'])):
                values = {pair.key: pair.value for pair in status.values}
                if (status.level, values['state']) == (level, state):
                    found.update(name=status.name, message=status.message, keys=set(values))
            return found
        assert robot.until(comes)
        assert found['name'] == 'depthvlm: depth'
        keys.append(found['keys'])
        return found['message']

    assert 'configure and activate it' in told(DiagnosticStatus.WARN, 'unconfigured')
    assert node.trigger_configure().name == 'FAILURE'
    assert 'config.json' in told(DiagnosticStatus.ERROR, 'unconfigured')
    node.set_parameters([Parameter('model', value=str(checkpoint))])
    assert node.trigger_configure().name == 'SUCCESS'
    assert told(DiagnosticStatus.WARN, 'inactive') == (
        'the node is inactive, wanted active: activate it')
    assert node.trigger_activate().name == 'SUCCESS'
    assert told(DiagnosticStatus.WARN, 'active')
    assert keys[-1] == keys[0], 'they do not come and go with the state'


def test_a_model_that_is_too_large_for_a_cpu_is_warned_of(make_depth_node, monkeypatch, capfd):
    node = make_depth_node()
    assert node.trigger_configure().name == 'SUCCESS'
    assert 'weights on a CPU' not in capfd.readouterr().err
    assert node.trigger_cleanup().name == 'SUCCESS'
    monkeypatch.setattr(depth_node, 'CPU_WEIGHTS', 1)
    assert node.trigger_configure().name == 'SUCCESS'
    assert 'weights on a CPU' in capfd.readouterr().err


def test_shutdown_of_an_active_node_frees_everything(make_depth_node):
    node = make_depth_node()
    node.trigger_configure()
    node.trigger_activate()
    assert node.shut_down(10.0)
    assert node.state == 'finalized'
    assert node._predictor is None
    assert node.stream is None


def test_a_transition_that_cannot_be_now_is_refused_and_nothing_else(make_depth_node, make_robot):
    node, robot = make_depth_node(), make_robot()
    assert not change(robot, Transition.TRANSITION_ACTIVATE)
    assert state_of(robot) == 'unconfigured'
    assert change(robot, Transition.TRANSITION_CONFIGURE)
    assert not change(robot, Transition.TRANSITION_CONFIGURE)
    assert state_of(robot) == 'inactive'
    node._on_autostart()    # somebody was faster
    assert state_of(robot) == 'inactive'


def test_what_rcl_raises_at_a_transition_is_answered(make_depth_node, make_robot, monkeypatch):
    """Before Kilted rclpy lets it through."""
    def refuse(*_):
        raise RuntimeError('Transition is not registered.')
    monkeypatch.setattr(LifecycleNodeMixin, '_LifecycleNodeMixin__on_change_state', refuse)
    make_depth_node()
    robot = make_robot()
    assert not change(robot, Transition.TRANSITION_ACTIVATE)
    assert state_of(robot) == 'unconfigured'


def test_a_model_that_hangs_does_not_keep_the_node_from_its_end(active, hold, monkeypatch):
    monkeypatch.setattr(depth_node, 'DEACTIVATE_S', 0.3)
    node, robot = active()
    robot.show(node)
    gate = hold(node)
    robot.node.create_subscription(Image, DEPTH, lambda message: None, 1)
    assert robot.until(node.stream.first.outputs.depth_wanted)
    robot.show(node, 2)
    assert robot.until(lambda: node.stream.worker.step_s() > 0)
    assert change(robot, Transition.TRANSITION_ACTIVE_SHUTDOWN)
    assert node.state == 'finalized'
    gate.set()


@pytest.mark.slow
def test_a_request_that_is_none_does_not_end_the_process(checkpoint, make_robot):
    robot = make_robot()
    robot.subscribe(DiagnosticArray, '/diagnostics')

    def is_told():
        values = [pair for array in list(robot.got['/diagnostics'])
                  for pair in array.status[0].values if pair.key == 'last_error']
        return any('a callback failed: ValueError: 77' in pair.value for pair in values)

    process = start(model=checkpoint, device='cpu')
    try:
        client = robot.node.create_client(SetParameters, 'depthvlm/set_parameters')
        assert client.wait_for_service(PATIENCE_S)
        assert change(robot, Transition.TRANSITION_CONFIGURE)
        assert change(robot, Transition.TRANSITION_ACTIVATE)
        malformed = ParameterMessage(name='max_rate', value=ParameterValue(type=77))
        client.call_async(SetParameters.Request(parameters=[malformed]))
        said, end = '', threading.Timer(PATIENCE_S, process.kill)
        end.start()
        while '77 is not a valid' not in said and process.poll() is None:
            said += process.stderr.readline()
        end.cancel()
        assert robot.until(is_told)
        assert state_of(robot) == 'active'
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
        print(process.communicate()[1])
    assert process.returncode == 0, said + log


def test_a_model_that_cannot_be_loaded_fails_and_says_what_to_do(make_depth_node, tmp_path, capfd):
    node = make_depth_node(model=str(tmp_path))
    assert node.trigger_configure().name == 'FAILURE'
    assert node.state == 'unconfigured'
    text = capfd.readouterr().err
    assert 'config.json' in text
    assert 'Set the parameter model' in text


def test_what_a_load_that_fails_has_made_is_gone_when_its_memory_is_given_back(
        make_depth_node, monkeypatch):
    made, gone = [], []

    def fail(*_, **__):
        weights = np.zeros(8)
        made.append(weakref.ref(weights))
        raise RuntimeError('CUDA out of memory')
    monkeypatch.setattr('depthvlm_ros.model.Predictor.from_pretrained', fail)
    monkeypatch.setattr(depth_node, 'give_back_device', lambda: gone.append(made[0]() is None))
    assert make_depth_node().trigger_configure().name == 'FAILURE'
    assert gone == [True]


@pytest.mark.usefixtures('old_pillow')
def test_a_package_too_old_to_be_imported_fails_and_says_what_to_do(make_depth_node, capfd):
    node = make_depth_node()
    assert node.trigger_configure().name == 'FAILURE'
    assert node.state == 'unconfigured'
    text = capfd.readouterr().err
    assert "too old or broken (AttributeError: module 'PIL.Image' has no" in text
    assert 'activate it first' in text and 'pip install' in text


@pytest.mark.parametrize('cached', [False, True])
def test_a_model_that_is_fetched_is_said_before(make_depth_node, tmp_path, monkeypatch, capfd,
                                              cached):
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path))
    if cached:
        folder = tmp_path / 'models--nobody--nothing'
        (folder / 'refs').mkdir(parents=True)
        (folder / 'refs/main').write_text('0' * 40)
        snapshot = folder / 'snapshots' / ('0' * 40)
        snapshot.mkdir(parents=True)
        for file in ('config.json', 'model.safetensors', 'tokenizer.json'):
            (snapshot / file).touch()
    node = make_depth_node(model='nobody/nothing')
    assert node.trigger_configure().name == 'FAILURE'       # the hub is not asked in tests
    assert ('nobody/nothing is not here yet and is fetched' in capfd.readouterr().err) != cached


def test_after_a_failure_another_model_can_be_configured(
        make_depth_node, tmp_path, checkpoint):
    node = make_depth_node(model=str(tmp_path))
    assert node.trigger_configure().name == 'FAILURE'
    assert node.set_parameters([Parameter('model', value=str(checkpoint))])[0].successful
    assert node.trigger_configure().name == 'SUCCESS'


@pytest.mark.parametrize('end', [
    '/image.subscription', '/camera_info.subscription_latched',
    '/depthvlm/depth/points.publisher'])
def test_an_error_while_activating_ends_unconfigured_and_is_logged(
        make_depth_node, make_robot, capfd, end):
    node = make_depth_node(**{f'qos_overrides.{end}.reliability': 'sideways'})
    robot = make_robot()
    robot.subscribe(Image, DEPTH)
    node.trigger_configure()
    assert node.trigger_activate().name == 'ERROR'
    assert node.state == 'unconfigured'
    assert node._predictor is None
    ends = (robot.node.count_publishers, DEPTH), (robot.node.count_subscribers, '/image')
    assert robot.until(lambda: not any(count(topic) for count, topic in ends))
    log = capfd.readouterr().err
    assert 'on_activate failed' in log
    assert 'sideways' in log


def test_quality_of_service_is_as_designed_and_can_be_overridden(make_depth_node, make_robot):
    node = make_depth_node(**{
        'qos_overrides./image.subscription.reliability': 'reliable',
        'qos_overrides./depthvlm/depth/points.publisher.reliability': 'best_effort'})
    node.trigger_configure()
    node.trigger_activate()

    def profiles(found):
        return sorted((end.qos_profile.reliability.name, end.qos_profile.durability.name)
                      for end in found)
    robot = make_robot()
    of_topic = robot.node.get_publishers_info_by_topic
    assert robot.until(lambda: of_topic('depthvlm/depth/points'))
    assert profiles(of_topic('depthvlm/depth/points')) == [('BEST_EFFORT', 'VOLATILE')]
    assert profiles(of_topic(DEPTH)) == [('RELIABLE', 'VOLATILE')]
    of_topic = robot.node.get_subscriptions_info_by_topic
    assert profiles(of_topic('image')) == [('RELIABLE', 'VOLATILE')]
    assert profiles(of_topic('camera_info')) == [
        ('BEST_EFFORT', 'VOLATILE'), ('RELIABLE', 'TRANSIENT_LOCAL')]


def test_autostart(make_depth_node, make_robot):
    node, robot = make_depth_node(autostart=True), make_robot()
    assert robot.until(lambda: node.state == 'active')


def test_parameters_that_cannot_change_now_are_refused_with_the_reason(make_depth_node):
    node = make_depth_node()
    node.trigger_configure()

    def refusal(name, value):
        return node.set_parameters([Parameter(name, value=value)])[0].reason
    assert 'model cannot change while inactive' in refusal('model', 'nano')
    assert refusal('image_transport', 'compressed') == ''
    node.trigger_activate()
    assert 'deactivate the node first' in refusal('image_transport', 'raw')
    assert refusal('max_tokens', 3) == ''


def start(*program, **values):
    command = [sys.executable, *(program or ['-m', 'depthvlm_ros.nodes.depth_node']), '--ros-args']
    for name, value in values.items():
        command += ['-p', f'{name}:={value}']
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY)


def ask_for_long(robot, client):
    """Send a goal that takes long; return the future of its result when words are coming."""
    words = []
    goal = client.send_goal_async(
        AnswerQuery.Goal(question='How far?', max_tokens=4096), feedback_callback=words.append)
    assert robot.until(goal.done)
    ended = goal.result().get_result_async()
    assert robot.until(lambda: words)
    return ended


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_as_a_process_it_works_and_ends_with_0_on_a_signal(
        checkpoint, make_robot, make_action_client, number):
    robot = make_robot()
    robot.subscribe(Image, DEPTH)
    # So that a slow machine too sends the last answers off.
    process = start('-c', 'from depthvlm_ros.nodes import depth_node\n'
                    'depth_node.SEND_S = 3.0\ndepth_node.main()',
                    model=checkpoint, device='cpu', autostart='true')
    try:
        assert robot.until(robot.connected, PATIENCE_S)
        sent = 0

        def answered():
            nonlocal sent
            sent += 1
            publish(robot, sent)
            return robot.until(lambda: robot.got[DEPTH], 0.5)
        assert robot.until(answered, PATIENCE_S)
        ended = ask_for_long(robot, make_action_client())
        publish(robot, 1000)    # so that it may be in the middle of a pass
        process.send_signal(number)
        _, log = process.communicate(timeout=PATIENCE_S)
        assert robot.until(ended.done), 'an open goal is told, too'
    finally:
        process.kill()
        process.communicate()
    assert ended.result().result.status == AnswerQuery.Result.CANCELLED
    assert process.returncode == 0, log
    assert 'Traceback' not in log
    assert 'Loading weights' not in log, 'no progress bar in a log'


HANGING = """
from depthvlm_ros import model
from depthvlm_ros.nodes import depth_node
import torch

def hang(*_):
    unit = torch.eye(400)
    while True:
        unit = unit @ unit

class Hanging(model.Predictor):
    @classmethod
    def from_pretrained(cls, *arguments, **options):
        predictor = super().from_pretrained(*arguments, **options)
        predictor.model.model.visual.register_forward_pre_hook(hang)
        return predictor

model.Predictor = Hanging
depth_node.main()
"""


@pytest.mark.slow
def test_a_process_whose_model_hung_ends_with_0_too(checkpoint, make_robot):
    robot = make_robot()
    robot.subscribe(Image, DEPTH)
    robot.subscribe(DiagnosticArray, '/diagnostics')
    process = start('-c', HANGING, model=checkpoint, device='cpu', autostart='true',
                    hang_timeout=0.5)
    try:
        assert robot.until(robot.connected, PATIENCE_S)
        robot.got['/diagnostics'].clear()
        stamps = itertools.count(1)

        def told():
            publish(robot, next(stamps))    # one may get lost
            return robot.until(lambda: any('hang_timeout' in message.status[0].message
                                           for message in list(robot.got['/diagnostics'])), 0.5)
        assert robot.until(told, PATIENCE_S)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0, log


@pytest.mark.parametrize(('name', 'value'), [('cloud_stride', 0), ('image_transport', 'pigeon')])
def test_as_a_process_it_refuses_a_wrong_parameter_in_words(name, value):
    process = start(**{name: value})
    try:
        _, log = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 1
    assert name in log
    assert 'Traceback' not in log
