# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A camera that walks through a synthetic room, and the depth node with the embedded model."""

import shlex

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution, ThisLaunchFileDir
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

ARGUMENTS = [
    ('seed', '7', 'Which synthetic room'),
    ('rate', '5.0', 'Images a second'),
    ('model', 'nano', "Model: 'nano' (embedded, for synthetic rooms), a folder, or a hub id"),
    ('device', 'auto', "Where the model runs: 'auto', 'cpu', 'cuda', 'cuda:1', ..."),
    ('namespace', '', 'Namespace of both nodes and their topics'),
    ('rviz', 'false', 'true: also start RViz'),
    ('record', '', 'Folder of a new bag to record the outputs in; empty: none'),
    ('python', '', 'Python interpreter of the nodes, for instance that of a virtual '
     'environment; empty: the first python3 on the PATH'),
]
PASSED_ON = ['model', 'device', 'namespace', 'rviz', 'record', 'python']


def camera(context):
    """Return the node that plays a room as a camera."""
    python = LaunchConfiguration('python').perform(context)
    return [Node(
        package='depthvlm_ros', executable='camera_node', name='camera',
        namespace=LaunchConfiguration('namespace'),
        prefix=shlex.quote(python) if python else None, output='screen', emulate_tty=True,
        parameters=[{
            'source': 'synthetic', 'moving': True,
            'seed': ParameterValue(LaunchConfiguration('seed'), value_type=int),
            'rate': ParameterValue(LaunchConfiguration('rate'), value_type=float)}])]


def generate_launch_description():
    """Return the two nodes."""
    depth = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(
            PathJoinSubstitution([ThisLaunchFileDir(), 'depth.launch.py'])),
        launch_arguments={
            'image_topic': 'image', 'camera_info_topic': 'camera_info',
            'image_transport': 'raw', 'image_reliability': 'reliable', 'params_file': '',
            'autostart': 'true', 'use_sim_time': 'false', 'fixed_frame': '',
            **{name: LaunchConfiguration(name) for name in PASSED_ON}}.items())
    return LaunchDescription([
        *[DeclareLaunchArgument(name, default_value=default, description=description)
          for name, default, description in ARGUMENTS],
        OpaqueFunction(function=camera), depth])
