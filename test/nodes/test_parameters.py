# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
from pathlib import Path
import re

from depthvlm_ros.nodes import parameters
from depthvlm_ros.nodes.camera_node import CameraNode
from depthvlm_ros.nodes.depth_node import DepthNode
from depthvlm_ros.nodes.parameters import ROWS, TABLE
from depthvlm_ros.nodes.stream import depth_range
import pytest
from rclpy.node import Node
from rclpy.parameter import Parameter
import yaml

pytestmark = pytest.mark.ros

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def node(ros):
    node = Node('parameters_under_test', context=ros)
    parameters.declare(node)
    yield node
    node.destroy_node()


def test_the_parameter_file_holds_every_parameter_with_its_default_and_description():
    text = (REPOSITORY / 'config' / 'depth.yaml').read_text()
    values = yaml.safe_load(text)['/**']['ros__parameters']
    assert values == {row.name: row.default for row in TABLE}
    assert [type(value) for value in values.values()] == [type(row.default) for row in TABLE]
    comments = {name: comment for comment, name in re.findall(
        r'^    # (.+)\n    (\w+):', text, re.MULTILINE)}
    assert comments == {row.name: row.description for row in TABLE}


def test_every_parameter_is_read_somewhere():
    code = ''.join(path.read_text() for path in (REPOSITORY / 'depthvlm_ros/nodes').glob('*.py')
                   if path.name != 'parameters.py')
    for row in TABLE:
        assert f"value('{row.name}')" in code, row.name


def test_every_parameter_is_described_typed_and_bounded(node):
    for row in TABLE:
        descriptor = node.describe_parameter(row.name)
        assert descriptor.description == row.description
        assert descriptor.type == Parameter(row.name, value=row.default).get_parameter_value().type
        bounds = [*descriptor.floating_point_range, *descriptor.integer_range]
        assert [(bound.from_value, bound.to_value) for bound in bounds] == (
            [row.span] if row.span else [])
        assert descriptor.read_only == (row.name == 'autostart')


def test_a_misspelt_parameter_is_warned_of(ros, capfd):
    node = Node('misspelt', context=ros, cli_args=[
        '--ros-args', '-p', 'edge_treshold:=0.1', '-p', 'zzz:=1', '-p', 'min_depth:=0.5',
        '-p', 'use_sim_time:=true', '-p', 'qos_overrides./image.subscription.depth:=3'])
    try:
        parameters.declare(node)
        capfd.readouterr()
        parameters.warn_of_unknown(node)
        said = capfd.readouterr().err
    finally:
        node.destroy_node()
    assert "parameter 'edge_treshold' is unknown here and does nothing; did you mean " \
        "'edge_threshold'?" in said
    assert "parameter 'zzz' is unknown here and does nothing" in said
    assert said.count('is unknown') == 2


@pytest.mark.parametrize('kind', [DepthNode, CameraNode])
def test_the_nodes_warn_of_what_they_do_not_know(ros, capfd, kind):
    node = kind(context=ros, cli_args=['--ros-args', '-p', 'frame_ids:=a', '-p', 'autostart:=false'
                                       if kind is DepthNode else 'source:=synthetic'])
    node.destroy_node()
    assert "parameter 'frame_ids' is unknown here" in capfd.readouterr().err


def test_a_list_that_yaml_leaves_without_a_type_is_refused_at_the_start(ros):
    node = Node('no_cameras', context=ros, cli_args=['--ros-args', '-p', 'cameras:=[]'])
    try:
        with pytest.raises(ValueError, match=r'cameras is \[\], wanted one empty name'):
            parameters.declare(node)
    finally:
        node.destroy_node()


@pytest.mark.parametrize(('name', 'value', 'reason'), [
    ('cloud_stride', 0, 'range'), ('max_rate', -1.0, 'range'), ('max_tokens', 'many', 'type'),
    ('device', 3, 'type')])
def test_wrong_types_and_values_out_of_range_are_refused(node, name, value, reason):
    result = node.set_parameters([Parameter(name, value=value)])[0]
    assert not result.successful
    assert reason in result.reason.lower()


@pytest.mark.parametrize(('changes', 'state', 'reason'), [
    ({'depth_encoding': '8UC1'}, 'active', "depth_encoding is '8UC1', wanted one of"),
    ({'max_rate': float('nan')}, 'active', 'max_rate is nan, wanted a finite number'),
    ({'model': ''}, 'unconfigured', 'model is empty'),
    ({'min_depth': 3.0, 'max_depth': 2.0}, 'active', 'max_depth is 2.0 m, wanted more than'),
    ({'model': 'nano'}, 'inactive', 'cannot change while inactive'),
    ({'model': 'nano'}, 'unconfigured', ''),
    ({'model': ROWS['model'].default}, 'active', ''),
    ({'rectify': False}, 'active', 'cannot change while active'),
    ({'rectify': False}, 'inactive', ''),
    ({'min_depth': 3.0, 'max_depth': 4.0}, 'active', ''),
    ({'somebody_elses': 1}, 'active', ''),
])
def test_changes_are_checked_with_the_reason(node, changes, state, reason):
    result = parameters.check(
        node, [Parameter(name, value=value) for name, value in changes.items()], state)
    assert result.successful == (not reason)
    assert reason in result.reason


def test_a_value_that_is_wrong_at_the_start_is_named(ros):
    node = Node('parameters_under_test', context=ros,
                parameter_overrides=[Parameter('image_transport', value='pigeon')])
    with pytest.raises(ValueError, match="image_transport is 'pigeon'"):
        parameters.declare(node)
    node.destroy_node()


def test_a_range_of_depth_that_is_set_between_two_looks_is_looked_at_again():
    settings = iter([('min_depth', 5.0), ('max_depth', 3.0),
                     ('min_depth', 0.0), ('max_depth', 3.0)])

    def value(name):
        told, found = next(settings)
        assert told == name
        return found
    assert depth_range(value) == (0.0, 3.0)
    assert depth_range({'min_depth': 5.0, 'max_depth': 0.0}.get) == (5.0, 0.0)
