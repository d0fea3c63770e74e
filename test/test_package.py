# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The files that describe the package agree with each other and with the tree."""

import ast
import os
from pathlib import Path
import re
import subprocess
import sys
from xml.etree import ElementTree

import depthvlm_ros
import pytest
import yaml

SOURCE = Path(__file__).parents[1]
MANIFEST = ElementTree.parse(SOURCE / 'package.xml').getroot()
CMAKE = (SOURCE / 'CMakeLists.txt').read_text()
# What rosdep knows under a name other than the one that Python imports.
ROSDEP_KEYS = {'cv2': 'python3-opencv', 'numpy': 'python3-numpy', 'PIL': 'python3-pil',
               'tf2_ros': 'tf2_ros_py', 'tqdm': 'python3-tqdm', 'yaml': 'python3-yaml'}
# What comes from requirements.txt alone.
WITHOUT_KEY = {'huggingface_hub', 'safetensors', 'tokenizers', 'torch', 'transformers'}
TOO_OLD_BY_KEY = {'pillow'}      # Ubuntu 22.04's
# What comes from requirements-training.txt, and is imported where it is used.
FOR_TRAINING = {'accelerate', 'tensorboard'}
FOR_QUANTISATION = {'torchao'}


def dependencies(*kinds):
    return {element.text for kind in kinds for element in MANIFEST.findall(kind)}


def test_name_and_version_are_the_same_everywhere():
    name, version = MANIFEST.findtext('name'), MANIFEST.findtext('version')
    assert name == depthvlm_ros.__name__ == re.search(r'project\((\w+)\)', CMAKE)[1]
    assert version == depthvlm_ros.__version__
    described = subprocess.run(
        [sys.executable, 'setup.py', '--name', '--version'],
        cwd=SOURCE, capture_output=True, text=True, check=True, timeout=60)
    assert described.stdout.split() == [name, version]


def test_the_manifest_is_of_format_3_and_an_interface_package():
    assert MANIFEST.get('format') == '3'
    assert MANIFEST.findtext('export/build_type') == 'ament_cmake'
    assert MANIFEST.findtext('member_of_group') == 'rosidl_interface_packages'
    assert MANIFEST.findtext('license') == 'Apache-2.0'


def test_every_interface_is_generated():
    listed = set(re.findall(r'\b(?:msg|srv|action)/\w+\.(?:msg|srv|action)\b', CMAKE))
    there = {str(path.relative_to(SOURCE)) for folder in ('msg', 'srv', 'action')
             for path in (SOURCE / folder).iterdir()}
    assert listed == there


def test_every_package_that_cmake_finds_is_declared():
    found = set(re.findall(r'find_package\((\w+)', CMAKE))
    assert found <= dependencies('buildtool_depend', 'depend', 'test_depend')


def test_every_import_is_declared():
    declared = dependencies('depend', 'exec_depend')
    own = {'depthvlm_ros', '__future__'}
    for path in [*SOURCE.glob('depthvlm_ros/**/*.py'), *SOURCE.glob('launch/*.py')]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else (
                [node.module] if isinstance(node, ast.ImportFrom) and not node.level else [])
            for name in {name.split('.')[0] for name in names} - sys.stdlib_module_names - own:
                assert name in WITHOUT_KEY | FOR_TRAINING | FOR_QUANTISATION or (
                    ROSDEP_KEYS.get(name, name) in declared), (
                    f'{path.relative_to(SOURCE)} imports {name}')


@pytest.mark.parametrize(('file', 'packages'), [
    ('requirements.txt', WITHOUT_KEY | TOO_OLD_BY_KEY),
    ('requirements-training.txt', FOR_TRAINING),
    ('requirements-quantisation.txt', FOR_QUANTISATION)])
def test_what_rosdep_has_no_key_for_is_required(file, packages):
    required = {re.split(r'[^\w-]', line)[0]
                for line in (SOURCE / file).read_text().splitlines()
                if not line.startswith('#')}
    assert required == packages


EXECUTABLES = re.search(r'foreach\(node ([\w ]+)\)', CMAKE)[1].split()


@pytest.mark.parametrize('node', EXECUTABLES)
def test_every_executable_has_its_main(node):
    tree = ast.parse((SOURCE / f'depthvlm_ros/nodes/{node}.py').read_text())
    mains = [item for item in tree.body
             if isinstance(item, ast.FunctionDef) and item.name == 'main']
    assert len(mains) == 1
    assert [argument.arg for argument in mains[0].args.args] == ['args']
    assert len(mains[0].args.defaults) == 1


@pytest.mark.ros
@pytest.mark.parametrize('node', EXECUTABLES)
def test_ros2_run_finds_the_installed_executable(node):
    packages = pytest.importorskip('ament_index_python.packages')
    try:
        prefix = packages.get_package_prefix('depthvlm_ros')
    except (packages.PackageNotFoundError, OSError):   # OSError: no AMENT_PREFIX_PATH at all
        pytest.skip('depthvlm_ros is not installed where ros2 run looks for it')
    # ros2 run and ros2 launch take files with the permission to be run, and no others.
    assert os.access(Path(prefix) / 'lib' / 'depthvlm_ros' / node, os.X_OK)


def test_every_parameter_file_is_one():
    files = [*SOURCE.glob('config/*.yaml')]
    assert SOURCE / 'config/depth.yaml' in files
    for path in files:
        for node, content in yaml.safe_load(path.read_text()).items():
            assert 'ros__parameters' in content, f'{path.name}, {node}'


def test_every_launch_file_describes_a_launch():
    files = {path.name for path in SOURCE.glob('launch/*')}
    assert {'demo.launch.py', 'depth.launch.py'} <= files
    for path in SOURCE.glob('launch/*.py'):
        functions = {item.name for item in ast.parse(path.read_text()).body
                     if isinstance(item, ast.FunctionDef)}
        assert 'generate_launch_description' in functions, path.name


def test_every_source_file_says_whose_it_is():
    lines = ['Copyright 2026 the depthvlm_ros authors', 'SPDX-License-Identifier: Apache-2.0']
    folders = ('depthvlm_ros', 'launch', 'standalone', 'test', 'msg', 'srv', 'action', 'config')
    sources = [path for folder in folders for path in (SOURCE / folder).rglob('*')
               if path.suffix in ('.py', '.msg', '.srv', '.action', '.yaml')]
    assert sources
    for path in sources:
        head = path.read_text().splitlines()[:2]
        assert head == [f'# {line}' for line in lines], path.relative_to(SOURCE)
