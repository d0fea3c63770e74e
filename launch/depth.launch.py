# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Start the depth node on the topics of one camera or several, ready unless autostart is false.

Every parameter of the node is an argument too. An argument wins over params_file, unless it has
its default; autostart always wins.
"""

from pathlib import Path
import shlex
import tempfile

from ament_index_python.packages import get_package_share_directory
from depthvlm_ros.nodes.parameters import TABLE
from depthvlm_ros.nodes.topics import sibling
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction
from launch_ros.actions import Node

PACKAGE = 'depthvlm_ros'
NODE = 'depthvlm'

# Parameters of the node whose arguments are made of their rows; the others have their own.
ROWS = [row for row in TABLE if row.name not in ('cameras', 'autostart')]


def text_of(default):
    """Return a parameter's default as an argument has it."""
    return str(default).lower() if isinstance(default, bool) else str(default)


ARGUMENTS = [
    ('image_topic', 'image', "The camera's images"),
    ('camera_info_topic', '',
     "The camera's CameraInfo; empty: camera_info beside the image topic"),
    ('cameras', '',
     "Several cameras instead of one: 'front=/front/image_raw left=/left/image_raw', each name "
     'with its image topic, camera_info beside it; empty: the one camera of image_topic'),
    ('image_reliability', 'best_effort',
     "'best_effort' receives from any camera, but loses many images that are larger than what DDS "
     "buffers (often half a megabyte); 'reliable' has what is lost of them, and their "
     'camera_info, sent again, by a camera that publishes reliably'),
    ('params_file', '', 'YAML with parameters of the node; empty: their defaults'),
    ('namespace', '', 'Namespace of the node and its topics'),
    ('autostart', 'true',
     'false: leave configure and activate to a lifecycle manager, or to ros2 lifecycle set'),
    ('use_sim_time', 'false', 'true: the time of /clock, as a played bag or a simulator gives it'),
    ('rviz', 'false', 'true: also start RViz'),
    ('fixed_frame', '', "RViz's fixed frame, such as the frame_id of the camera's images or map; "
     'empty: camera_optical_frame'),
    ('record', '', 'Folder of a new bag to record the outputs in; empty: none'),
    ('python', '', 'Python interpreter of the node, for instance that of a virtual environment; '
     'empty: the first python3 on the PATH'),
    *((row.name, text_of(row.default), row.description) for row in ROWS),
]
SWITCHES = ('autostart', 'use_sim_time', 'rviz')
YES_NO = {'true': True, '1': True, 'false': False, '0': False, '': False}


def resolved(namespace, topic):
    """Return the full name of a topic that a node in the namespace calls by this name."""
    if topic.startswith('/'):
        return topic
    return '/'.join(['', *namespace.strip('/').split('/'), topic]).replace('//', '/')


def cameras_of(values):
    """
    Return for each camera's name ('' for one without) its image topic and camera_info topic.

    :raises ValueError: cameras that are no NAME=TOPIC, or beside the topics of a single one.
    """
    end = '/compressed' if values['image_transport'] == 'compressed' else ''
    if not values['cameras'].strip():
        image = values['image_topic'].removesuffix(end)
        return {'': (image, values['camera_info_topic'] or sibling(image, 'camera_info'))}
    wanted = "wanted different names with topics, such as 'front=/front/image left=/left/image'"
    cameras = {}
    for word in values['cameras'].split():
        name, _, image = word.partition('=')
        if not name or not image or name in cameras:
            raise ValueError(f"cameras is {values['cameras']!r}, {wanted}")
        image = image.removesuffix(end)
        cameras[name] = image, sibling(image, 'camera_info')
    for name, default, _ in ARGUMENTS[:2]:      # the topics of a single camera
        if values[name] != default:
            raise ValueError(f"{name} is {values[name]!r} beside cameras {values['cameras']!r}, "
                             'wanted one or the other')
    return cameras


def typed(row, text):
    """
    Return an argument as a value of its parameter's type.

    :raises ValueError: a text that is none.
    """
    if isinstance(row.default, bool):
        return switch(row.name, text)
    if isinstance(row.default, str):
        return text
    try:
        return type(row.default)(text)
    except ValueError as error:
        kind = 'a whole number' if isinstance(row.default, int) else 'a number'
        raise ValueError(f'{row.name} is {text!r}, wanted {kind}') from error


def switch(name, text):
    """Return whether an argument is true; a ValueError names any other word."""
    if text.lower() not in YES_NO:
        raise ValueError(f'{name} is {text!r}, wanted true or false')
    return YES_NO[text.lower()]


def depth_node(values):
    """Return the action that starts the node."""
    cameras = cameras_of(values)
    chosen = {row.name: typed(row, values[row.name]) for row in ROWS
              if values[row.name] != text_of(row.default)}
    if values['use_sim_time']:
        chosen['use_sim_time'] = True
    if '' not in cameras:
        chosen['cameras'] = list(cameras)
    params_file = [values['params_file']] if values['params_file'] else []
    remappings = []
    for name, (image_topic, info_topic) in cameras.items():
        own = f'{name}/' if name else ''
        remappings += [(f'{own}image', image_topic),
                       (f'{own}image/compressed', f'{image_topic}/compressed'),
                       (f'{own}camera_info', info_topic)]
        if values['image_reliability'] == 'reliable':
            image, info = (resolved(values['namespace'], topic)
                           for topic in (image_topic, info_topic))
            chosen |= {f'qos_overrides.{topic}.subscription.reliability': 'reliable'
                       for topic in (image, f'{image}/compressed')}
            chosen[f'qos_overrides.{info}.subscription_any.reliability'] = 'reliable'
    return Node(
        package=PACKAGE, executable='depth_node', name=NODE, namespace=values['namespace'],
        # rcl takes a name's later parameters into its first place: nothing may stand before the
        # file, whose names may be wildcards.
        parameters=[*params_file, {**chosen, 'autostart': values['autostart']}],
        remappings=remappings,
        prefix=shlex.quote(values['python']) if values['python'] else None,
        output='screen', emulate_tty=True)


def rviz(values):
    """Return the action that starts RViz on the first camera's images and depth."""
    namespace = values['namespace']
    camera, (image_topic, _) = next(iter(cameras_of(values).items()))
    image = resolved(namespace, image_topic)
    own = f'{NODE}/{camera}' if camera else NODE
    outputs = ['image', 'camera_info', 'points', 'image_color']
    config = Path(get_package_share_directory(PACKAGE), 'config', 'depth.rviz')
    if values['image_transport'] == 'compressed':
        config = compressed_view(config)
    frame = ['-f', values['fixed_frame']] if values['fixed_frame'] else []
    return Node(package='rviz2', executable='rviz2', arguments=['-d', str(config), *frame],
                parameters=[{'use_sim_time': values['use_sim_time']}], output='log',
                remappings=[('/image', image), ('/image/compressed', f'{image}/compressed'),
                            *((f'/{NODE}/depth/{output}',
                               resolved(namespace, f'{own}/depth/{output}'))
                              for output in outputs)])


def compressed_view(config):
    """Return RViz's settings with the compressed image, which it knows by the topic's end."""
    with tempfile.NamedTemporaryFile('w', suffix='.rviz', delete=False) as copy:
        copy.write(config.read_text().replace('Value: /image\n', 'Value: /image/compressed\n'))
    return copy.name


def bag(folder, namespace, use_sim_time):
    """Return the action that records the node's outputs, its answers and the transforms."""
    prefix = resolved(namespace, NODE)
    topics = f'^({prefix}/(([^/]+/)?depth/.*|answers)|/diagnostics|/tf|/tf_static)$'
    clock = ['--use-sim-time'] if use_sim_time else []
    return ExecuteProcess(cmd=['ros2', 'bag', 'record', '-o', folder, *clock, '--regex', topics],
                          output='screen')


def start(context):
    """Return the actions that the arguments ask for."""
    values = {name: context.launch_configurations[name] for name, _, _ in ARGUMENTS}
    for name in SWITCHES:
        values[name] = switch(name, values[name])
    # As launch_ros does it for the node: within the namespace that an including file has pushed.
    values['namespace'] = resolved(
        context.launch_configurations.get('ros_namespace', ''), values['namespace']).rstrip('/')
    actions = [depth_node(values)]
    if values['rviz']:
        actions.append(rviz(values))
    if values['record']:
        actions.append(bag(values['record'], values['namespace'], values['use_sim_time']))
    return actions


def generate_launch_description():
    """Return the arguments and what they start."""
    choices = {row.name: row.choices for row in ROWS if row.choices}
    choices['image_reliability'] = 'best_effort', 'reliable'
    return LaunchDescription([
        *[DeclareLaunchArgument(name, default_value=default, description=description,
                                choices=choices.get(name))
          for name, default, description in ARGUMENTS],
        OpaqueFunction(function=start)])
