# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Imports run downward only, so that all but the nodes runs where there is no ROS."""

import ast
from pathlib import Path
import subprocess
import sys

import pytest

SOURCE = Path(__file__).parents[1]
PACKAGE = SOURCE / 'depthvlm_ros'
ROS = {
    'action_msgs', 'ament_index_python', 'builtin_interfaces', 'cv_bridge', 'diagnostic_msgs',
    'geometry_msgs', 'launch', 'launch_ros', 'lifecycle_msgs', 'rcl_interfaces', 'rclpy',
    'sensor_msgs', 'sensor_msgs_py', 'std_msgs', 'std_srvs', 'tf2_ros', 'tf_transformations'}
INTERFACES = {'depthvlm_ros.action', 'depthvlm_ros.msg', 'depthvlm_ros.srv'}
LEARNING = {'torch', 'transformers', 'tokenizers', 'safetensors'}
NODES = {'depthvlm_ros.nodes'}
ABOVE_NUMPY = {f'depthvlm_ros.{layer}' for layer in (
    'model', 'synthetic', 'training', 'benchmark')}
FORBIDDEN = {
    'camera': ROS | INTERFACES | NODES | LEARNING | ABOVE_NUMPY,
    'geometry': ROS | INTERFACES | NODES | LEARNING | ABOVE_NUMPY,
    'options': ROS | INTERFACES | NODES | LEARNING | ABOVE_NUMPY,
    'processes': ROS | INTERFACES | NODES | LEARNING | ABOVE_NUMPY,
    'spatial': ROS | INTERFACES | NODES | LEARNING | ABOVE_NUMPY,
    'model': ROS | INTERFACES | NODES | ABOVE_NUMPY - {'depthvlm_ros.model'},
    'synthetic': ROS | INTERFACES | NODES | LEARNING | ABOVE_NUMPY - {'depthvlm_ros.synthetic'},
    'training': ROS | INTERFACES | NODES,
    'benchmark': ROS | INTERFACES | NODES,
}
LOADED = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(*sys.modules)
"""


def modules_of(layer):
    """Return the names of a layer's modules, the layer itself first."""
    if (PACKAGE / f'{layer}.py').exists():
        return [f'depthvlm_ros.{layer}']
    paths = (path for path in (PACKAGE / layer).rglob('*.py') if path.name != '__init__.py')
    return [f'depthvlm_ros.{layer}', *sorted(
        '.'.join(path.relative_to(SOURCE).with_suffix('').parts) for path in paths)]


@pytest.mark.parametrize('layer', FORBIDDEN)
def test_a_layer_loads_nothing_from_above(layer):
    run = subprocess.run(
        [sys.executable, '-c', LOADED,
         *(name for name in modules_of(layer) if not name.endswith('__main__'))],
        cwd=SOURCE, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    loaded = set(run.stdout.split())
    assert f'depthvlm_ros.{layer}' in loaded
    assert not loaded & FORBIDDEN[layer]


def imported_names(path):
    """Return the full names that a file imports anywhere, also inside of functions."""
    parts = path.relative_to(SOURCE).with_suffix('').parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = '.'.join(parts[:-node.level]) if node.level else ''
            name = '.'.join(filter(None, (base, node.module)))
            yield from (f'{name}.{alias.name}' for alias in node.names)


def below(name, packages):
    """Return whether a full name stands in one of the packages."""
    return any(name == package or name.startswith(f'{package}.') for package in packages)


@pytest.mark.parametrize('layer', FORBIDDEN)
def test_a_layer_imports_nothing_from_above_later_either(layer):
    for module in modules_of(layer):
        path = SOURCE.joinpath(*module.split('.'))
        path = path / '__init__.py' if path.is_dir() else path.with_suffix('.py')
        if not path.exists():
            continue
        upward = [name for name in imported_names(path) if below(name, FORBIDDEN[layer])]
        assert not upward, f'{path.relative_to(SOURCE)} imports {upward}'


def test_nothing_imports_the_nodes():
    for path in PACKAGE.rglob('*.py'):
        if 'nodes' not in path.relative_to(PACKAGE).parts:
            upward = [name for name in imported_names(path) if below(name, NODES)]
            assert not upward, f'{path.relative_to(SOURCE)} imports {upward}'
