# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The launch files: their arguments, what they make of them, and a real start."""

import os
from pathlib import Path
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip(
    'launch.actions', reason='launch is not on PyPI: needs a ROS 2 install')
pytest.importorskip('launch_ros', reason='launch_ros is not on PyPI: needs a ROS 2 install')

from depthvlm_ros.nodes.parameters import ROWS  # noqa: E402
from launch import LaunchContext  # noqa: E402

pytestmark = pytest.mark.ros

LAUNCH = Path(__file__).parents[1] / 'launch'
DEPTH_ARGUMENTS = {
    'image_topic', 'camera_info_topic', 'model', 'device', 'params_file', 'namespace',
    'cameras', 'image_transport', 'image_reliability', 'autostart', 'use_sim_time', 'rviz',
    'fixed_frame', 'record', 'python', *ROWS}
PATIENCE_S = 90.0
STARTER = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import GroupAction, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import PushRosNamespace

arguments = dict(argument.split(':=', 1) for argument in sys.argv[2:])
pushed = [PushRosNamespace(arguments.pop('pushed'))] if 'pushed' in arguments else []
service = LaunchService(noninteractive=True)
service.include_launch_description(LaunchDescription([GroupAction([
    *pushed, IncludeLaunchDescription(
        PythonLaunchDescriptionSource(sys.argv[1]), launch_arguments=arguments.items())])]))
sys.exit(service.run())
"""


def arguments_of(name):
    """Load a launch file, and return the arguments that it declares by name."""
    from launch.launch_description_sources import PythonLaunchDescriptionSource
    description = PythonLaunchDescriptionSource(str(LAUNCH / name)).get_launch_description(
        LaunchContext())
    return {argument.name: argument for argument in description.get_launch_arguments()}


def start(name, *arguments, **options):
    """Launch a file in a process of its own, as `ros2 launch` does."""
    return subprocess.Popen([sys.executable, '-c', STARTER, str(LAUNCH / name), *arguments],
                            **options)


def started(tmp_path, name='depth.launch.py', **arguments):
    """Return the command lines that a file starts; `echo` stands in for the programs."""
    programs = tmp_path / 'ros2', tmp_path / 'lib' / 'rviz2' / 'rviz2'
    for program in programs:
        echoing(program)
    packages = tmp_path / 'share' / 'ament_index' / 'resource_index' / 'packages'
    packages.mkdir(parents=True, exist_ok=True)
    (packages / 'rviz2').touch()
    arguments = {'python': '/bin/echo'} | arguments
    process = start(name, *(f'{k}:={v}' for k, v in arguments.items()),
                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                    env=os.environ | {
                        'PATH': f'{tmp_path}:{os.environ["PATH"]}',
                        'AMENT_PREFIX_PATH': f'{tmp_path}:{os.environ["AMENT_PREFIX_PATH"]}'})
    try:
        output = process.communicate(timeout=PATIENCE_S)[0]
    finally:
        process.kill()
    lines = re.findall(r'^\[echo-\d+\] (.*)$', output, re.MULTILINE)
    lines += [said.read_text() for said in map(said_by, programs) if said.exists()]
    assert lines, output
    return {Path(line.split()[0]).name: shlex.split(line) for line in lines}


def echoing(path):
    """Make a program that writes down how it was started."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\necho {path.name} "$@" > {said_by(path)}\n')
    path.chmod(0o755)
    said_by(path).unlink(missing_ok=True)


def said_by(program):
    return program.with_suffix('.said')


def parameters_of(command):
    """Return the parameters that a node with this command line gets."""
    import rclpy
    context = rclpy.Context()
    rclpy.init(context=context)
    try:
        node = rclpy.create_node(
            'any', context=context, cli_args=command[command.index('--ros-args'):],
            use_global_arguments=False, start_parameter_services=False,
            automatically_declare_parameters_from_overrides=True)
        values = {name: parameter.value
                  for name, parameter in node.get_parameters_by_prefix('').items()}
        node.destroy_node()
        return values
    finally:
        rclpy.shutdown(context=context)


def remaps_of(command):
    return [word for before, word in zip(command, command[1:], strict=False) if before == '-r']


def needs_the_installed_package():
    packages = pytest.importorskip('ament_index_python.packages')
    try:
        prefix = packages.get_package_prefix('depthvlm_ros')
    except packages.PackageNotFoundError:
        pytest.skip('depthvlm_ros is not installed where launch looks for it')
    if not (Path(prefix) / 'lib' / 'depthvlm_ros' / 'depth_node').exists():
        pytest.skip('the installed depthvlm_ros has no executables')


def test_every_argument_is_described():
    depth, demo = arguments_of('depth.launch.py'), arguments_of('demo.launch.py')
    assert set(depth) == DEPTH_ARGUMENTS
    assert {'seed', 'rate', 'model', 'rviz'} <= set(demo)
    for argument in [*depth.values(), *demo.values()]:
        assert len(argument.description) > 5, argument.name
    for arguments, model in ((depth, 'JonnyYu828/DepthVLM-4B'), (demo, 'nano')):
        words = arguments['model'].default_value
        assert ''.join(word.perform(LaunchContext()) for word in words) == model


def test_the_defaults_start_the_released_model_by_itself(tmp_path):
    needs_the_installed_package()
    command = started(tmp_path)['depth_node']
    assert '__node:=depthvlm' in remaps_of(command)
    assert {'image:=image', 'image/compressed:=image/compressed',
            'camera_info:=camera_info'} <= set(remaps_of(command))
    values = parameters_of(command)
    assert not set(ROWS) - {'autostart'} & set(values)      # the node has the same
    assert values['autostart'] is True
    assert values['use_sim_time'] is False


def test_every_parameter_is_an_argument_and_keeps_its_type(tmp_path):
    needs_the_installed_package()
    sent = {'quantise': 'int8', 'rectify': 'false', 'max_image_tokens': '256', 'max_rate': '5',
            'compute_distances': 'True', 'revision': '123', 'cloud_stride': '4'}
    values = parameters_of(started(tmp_path, **sent)['depth_node'])
    assert {name: values[name] for name in sent} == {
        'quantise': 'int8', 'rectify': False, 'max_image_tokens': 256, 'max_rate': 5.0,
        'compute_distances': True, 'revision': '123', 'cloud_stride': 4}
    assert isinstance(values['max_rate'], float)
    file = LAUNCH.parent / 'config' / 'depth.yaml'
    (tmp_path / 'file').mkdir()
    values = parameters_of(
        started(tmp_path / 'file', params_file=str(file), cloud_stride='2')['depth_node'])
    assert (values['cloud_stride'], values['max_rate']) == (2, 0.0)


@pytest.mark.parametrize('arguments', [
    {'image_topic': '/cam/image_raw/compressed'}, {'cameras': 'a=/cam/image_raw/compressed'}])
def test_a_compressed_topic_may_be_named_by_its_whole_name(tmp_path, arguments):
    needs_the_installed_package()
    remaps = remaps_of(started(tmp_path, image_transport='compressed', **arguments)['depth_node'])
    own = 'a/' if 'cameras' in arguments else ''
    assert {f'{own}image/compressed:=/cam/image_raw/compressed',
            f'{own}camera_info:=/cam/camera_info'} <= set(remaps)


def test_a_lifecycle_manager_and_simulated_time_can_be_asked_for(tmp_path):
    needs_the_installed_package()
    values = parameters_of(started(tmp_path, autostart='false', use_sim_time='true')['depth_node'])
    assert values['autostart'] is False
    assert values['use_sim_time'] is True


@pytest.mark.parametrize('topics, info', [
    ({'image_topic': '/cam/image_raw'}, '/cam/camera_info'),
    ({'image_topic': '/cam/image_raw', 'camera_info_topic': '/info'}, '/info'),
])
def test_topics_are_remapped_both_raw_and_compressed(tmp_path, topics, info):
    needs_the_installed_package()
    remaps = remaps_of(started(tmp_path, namespace='robot', **topics)['depth_node'])
    assert {'image:=/cam/image_raw', 'image/compressed:=/cam/image_raw/compressed',
            f'camera_info:={info}', '__ns:=/robot'} <= set(remaps)


def test_a_copy_of_the_packages_file_can_be_started_with(tmp_path):
    needs_the_installed_package()
    file = LAUNCH.parent / 'config' / 'depth.yaml'
    values = parameters_of(started(tmp_path, params_file=str(file), model='nano')['depth_node'])
    assert values['autostart'] is True and values['model'] == 'nano'
    assert values['dtype'] == 'auto'


@pytest.mark.parametrize('node', ['/**', '/depthvlm', 'depthvlm'])
def test_an_argument_beats_the_file_and_the_file_beats_the_default(tmp_path, node):
    needs_the_installed_package()
    file = tmp_path / 'depth.yaml'
    file.write_text(f'{node}:\n  ros__parameters:\n    model: nano\n    device: cuda\n')
    command = started(tmp_path, params_file=str(file), device='cpu',
                      image_transport='compressed')['depth_node']
    values = parameters_of(command)
    assert (values['model'], values['device']) == ('nano', 'cpu')
    assert values['image_transport'] == 'compressed'


@pytest.mark.parametrize('arguments, topic', [
    ({'namespace': 'robot'}, '/robot/image'),
    ({'image_topic': '/cam/image_raw'}, '/cam/image_raw'),
])
def test_images_are_joined_reliably_on_request(tmp_path, arguments, topic):
    needs_the_installed_package()
    name = 'qos_overrides.{}.subscription.reliability'
    values = parameters_of(
        started(tmp_path, image_reliability='reliable', **arguments)['depth_node'])
    assert values[name.format(topic)] == values[name.format(f'{topic}/compressed')] == 'reliable'
    info = f'{topic.rpartition("/")[0]}/camera_info'
    assert values[f'qos_overrides.{info}.subscription_any.reliability'] == 'reliable'
    values = parameters_of(started(tmp_path, **arguments)['depth_node'])
    assert not [key for key in values if 'qos_overrides' in key]


@pytest.mark.parametrize('namespace, prefix', [('', ''), ('robot', '/robot'), ('/a/b/', '/a/b')])
def test_recording_takes_the_outputs_of_this_node(tmp_path, namespace, prefix):
    needs_the_installed_package()
    arguments = {'namespace': namespace} if namespace else {}
    bag = started(tmp_path, record='my_bag', **arguments)['ros2']
    assert bag[:5] == ['ros2', 'bag', 'record', '-o', 'my_bag']
    pattern = bag[-1]
    for topic in ('depth/image', 'depth/points', 'depth/camera_info', 'answers'):
        assert re.search(pattern, f'{prefix}/depthvlm/{topic}'), topic
    assert re.search(pattern, f'{prefix}/depthvlm/front/depth/image')
    assert re.search(pattern, '/diagnostics')
    assert not re.search(pattern, f'{prefix}/image')
    assert not re.search(pattern, f'/other{prefix}/depthvlm/depth/image')


def test_with_simulated_time_the_bag_is_of_that_time(tmp_path):
    needs_the_installed_package()
    bag = started(tmp_path, record='my_bag', use_sim_time='true')['ros2']
    assert '--use-sim-time' in bag


def test_rviz_shows_this_camera_and_this_node(tmp_path):
    needs_the_installed_package()
    rviz = started(tmp_path, rviz='true', image_topic='/cam/image_raw', namespace='robot',
                   fixed_frame='map', use_sim_time='true')['rviz2']
    assert rviz[rviz.index('-f') + 1] == 'map'
    assert Path(rviz[rviz.index('-d') + 1]).name == 'depth.rviz'
    assert {'/image:=/cam/image_raw',
            '/depthvlm/depth/points:=/robot/depthvlm/depth/points'} <= set(remaps_of(rviz))
    assert parameters_of(rviz)['use_sim_time'] is True
    (tmp_path / 'again').mkdir()
    assert '-f' not in started(tmp_path / 'again', rviz='true')['rviz2']


def test_rviz_shows_the_compressed_image_where_the_node_takes_it(tmp_path):
    needs_the_installed_package()
    rviz = started(tmp_path, rviz='true', image_topic='/cam/image_raw',
                   image_transport='compressed')['rviz2']
    topics = re.findall(r'Value: (/image\S*)', Path(rviz[rviz.index('-d') + 1]).read_text())
    assert topics == ['/image/compressed']
    assert '/image/compressed:=/cam/image_raw/compressed' in remaps_of(rviz)


def test_several_cameras(tmp_path):
    needs_the_installed_package()
    commands = started(tmp_path, cameras='front=/f/image_raw left=left/image', namespace='robot',
                       image_reliability='reliable', rviz='true')
    values = parameters_of(commands['depth_node'])
    assert values['cameras'] == ['front', 'left']
    assert {'front/image:=/f/image_raw', 'front/image/compressed:=/f/image_raw/compressed',
            'front/camera_info:=/f/camera_info', 'left/image:=left/image',
            'left/camera_info:=left/camera_info'} <= set(remaps_of(commands['depth_node']))
    for name in ('/f/image_raw.subscription', '/robot/left/image/compressed.subscription',
                 '/f/camera_info.subscription_any', '/robot/left/camera_info.subscription_any'):
        assert values[f'qos_overrides.{name}.reliability'] == 'reliable'
    assert {'/image:=/f/image_raw',
            '/depthvlm/depth/points:=/robot/depthvlm/front/depth/points'} <= set(
                remaps_of(commands['rviz2']))


@pytest.mark.parametrize('namespace, full', [
    (None, '/robot'), ('arm', '/robot/arm'), ('/arm', '/arm')])
def test_an_including_file_may_have_pushed_a_namespace(tmp_path, namespace, full):
    needs_the_installed_package()
    arguments = {'namespace': namespace} if namespace else {}
    commands = started(tmp_path, pushed='robot', image_reliability='reliable', rviz='true',
                       record='my_bag', **arguments)
    assert f'__ns:={full}' in remaps_of(commands['depth_node'])
    values = parameters_of(commands['depth_node'])
    assert values[f'qos_overrides.{full}/image.subscription.reliability'] == 'reliable'
    assert {f'/image:={full}/image', f'/depthvlm/depth/image:={full}/depthvlm/depth/image'} <= set(
        remaps_of(commands['rviz2']))
    assert re.search(commands['ros2'][-1], f'{full}/depthvlm/depth/image')


@pytest.mark.parametrize('arguments, said', [
    (['cameras:=front'], "cameras is 'front', wanted different names with topics"),
    (['cameras:=a=/b a=/c'], "cameras is 'a=/b a=/c', wanted different names"),
    (['cameras:=a=/b', 'image_topic:=/c'], "image_topic is '/c' beside cameras 'a=/b'"),
    (['cameras:=a=/b', 'camera_info_topic:=/c'], "camera_info_topic is '/c' beside cameras")])
def test_cameras_that_cannot_be_are_refused(arguments, said):
    process = start('depth.launch.py', *arguments, stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT, text=True)
    output = process.communicate(timeout=PATIENCE_S)[0]
    assert process.returncode != 0
    assert said in output


@pytest.mark.parametrize(('argument', 'wanted'), [
    ('max_rate:=fast', "max_rate is 'fast', wanted a number"),
    ('cloud_stride:=1.5', "cloud_stride is '1.5', wanted a whole number"),
    ('quantise:=int3', 'quantise')])
def test_values_of_another_type_are_refused(argument, wanted):
    process = start('depth.launch.py', argument, stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT, text=True)
    output = process.communicate(timeout=PATIENCE_S)[0]
    assert process.returncode != 0
    assert wanted in output


@pytest.mark.parametrize('name', ['rviz', 'autostart', 'use_sim_time', 'rectify'])
def test_a_switch_is_told_apart_from_other_words(name):
    process = start('depth.launch.py', f'{name}:=maybe', stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT, text=True)
    output = process.communicate(timeout=PATIENCE_S)[0]
    assert process.returncode != 0
    assert f"{name} is 'maybe', wanted true or false" in output


@pytest.mark.parametrize(('name', 'nodes'), [
    ('depth.launch.py', {'depth_node'}), ('demo.launch.py', {'camera_node', 'depth_node'})])
def test_an_interpreter_whose_path_has_a_space(tmp_path, name, nodes):
    needs_the_installed_package()
    python = tmp_path / 'my venv' / 'echo'
    python.parent.mkdir()
    python.symlink_to('/bin/echo')
    assert set(started(tmp_path, name, python=python)) == nodes


@pytest.mark.slow
def test_the_demo_starts_and_depth_comes_out():
    needs_the_installed_package()
    import rclpy
    from sensor_msgs.msg import Image
    process = start('demo.launch.py', 'rate:=2.0', 'namespace:=robot', 'device:=cpu',
                    f'python:={sys.executable}')
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node('audience', context=context)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(node)
    images, depths = [], []
    node.create_subscription(Image, '/robot/image', images.append, 10)
    node.create_subscription(Image, '/robot/depthvlm/depth/image', depths.append, 10)
    try:
        deadline_s = time.monotonic() + PATIENCE_S
        while len(depths) < 2 and time.monotonic() < deadline_s and process.poll() is None:
            executor.spin_once(timeout_sec=0.1)
        assert len(depths) >= 2, f'{len(images)} images, exit code {process.poll()}'
        stamps = {(image.header.stamp.sec, image.header.stamp.nanosec) for image in images}
        stamp = depths[-1].header.stamp
        assert (stamp.sec, stamp.nanosec) in stamps
        assert depths[-1].encoding == '32FC1'
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
        node.destroy_node()
        executor.shutdown()
        rclpy.try_shutdown(context=context)
