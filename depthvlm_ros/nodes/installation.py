# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
What an installation has: each function looks at one thing and returns findings.

Nothing here is fetched from anywhere, no model is loaded, and what could crash the interpreter is
tried in another one.
"""

from __future__ import annotations

from collections.abc import Iterator
import importlib
from importlib import metadata, util
import os
from pathlib import Path
import subprocess
import sys
import sysconfig

from depthvlm_ros.nodes.findings import fail, Finding, ok, warn

PYTHON = (3, 10), (3, 14)
FUSED_SINCE = (8, 0)    # compute capability, of attention in bfloat16 that keeps no scores
PACKAGES = {'numpy': '>=1.21', 'torch': '>=2.6', 'transformers': '>=5.17,<6',
            'tokenizers': '>=0.22', 'safetensors': '>=0.5', 'huggingface_hub': '>=1.3',
            'pillow': '>=9.1'}
OPTIONAL = {
    'tf2_ros': 'points stay in the optical frame: target_frame is answered TF_UNAVAILABLE',
    'tf_transformations': 'as without tf2_ros',
    'launch_ros': 'there is no ros2 launch: start the nodes by themselves, as README shows',
    'ros2cli': 'there is no ros2 command: README shows the same through Python',
    'rosbag2_py': 'nothing records or plays bags here',
}
VENV_INSTALL = (
    'pip may install nothing into this Python: activate the virtual environment that has it, or '
    'python3 -m venv --system-site-packages torch_venv && torch_venv/bin/python -m pip install')
TRY_S = 120.0
NODE = (
    'import rclpy; from rclpy.utilities import get_rmw_implementation_identifier as rmw; '
    'rclpy.init(); n = rclpy.create_node("doctor_trial", enable_rosout=False); '
    'n.destroy_node(); rclpy.try_shutdown(); print(rmw())')
CONVERSION = (
    'import numpy; from std_msgs.msg import Header; '
    'from depthvlm_ros.nodes import conversions as c; '
    "m = c.depth_image(numpy.ones((4, 6), 'f4'), '32FC1', Header()); "
    "m = c.colour_picture(numpy.ones((4, 6), 'f4'), Header()); "
    'assert c.rgb_from_image(m).shape == (4, 6, 3)')


def check_python() -> Iterator[Finding]:
    """Check the interpreter."""
    version, (least, most) = sys.version_info[:2], PYTHON
    what = f'Python {".".join(map(str, sys.version_info[:3]))} at {sys.executable}'
    if least <= version <= most:
        yield ok(what)
    else:
        yield fail(what, f'use Python {least[0]}.{least[1]} to {most[0]}.{most[1]}')


def pip_install() -> str:
    """Return what installs, a package's name behind it, for this interpreter (PEP 668)."""
    marker = Path(sysconfig.get_path('stdlib')) / 'EXTERNALLY-MANAGED'
    if sys.prefix == sys.base_prefix and marker.exists():
        return VENV_INSTALL
    return f'"{sys.executable}" -m pip install'


def check_packages() -> Iterator[Finding]:
    """Check the versions of what rosdep has no key for."""
    install = pip_install()
    for name, wanted in PACKAGES.items():
        least, _, limit = wanted.removeprefix('>=').partition(',<')
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield fail(f'{name} is not installed', f'{install} "{name}{wanted}"')
            continue
        numbers = _numbers(version)
        if numbers < _numbers(least) or limit and numbers >= _numbers(limit):
            yield fail(f'{name} {version}', f'wanted {wanted}: {install} "{name}{wanted}"')
        else:
            yield ok(f'{name} {version}')


def tried(code: str) -> subprocess.CompletedProcess[str] | None:
    """Run some code in an interpreter of its own; None where it does not come back."""
    try:
        return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
                              timeout=TRY_S, check=False)
    except subprocess.TimeoutExpired:
        return None


def last_words(done: subprocess.CompletedProcess[str]) -> str:
    """Return the last line that a program said of its failure."""
    return (done.stderr.strip().splitlines() or [f'it ended with {done.returncode}'])[-1]


def check_ros() -> Iterator[Finding]:
    """
    Check that a node can start, and the settings that keep nodes from seeing each other.

    In an interpreter of its own: a middleware that is missing ends the process that asks for it.
    """
    done = tried(NODE)
    if done is None or done.returncode:
        said = f'does not come back within {TRY_S:.0f} s' if done is None else last_words(done)
        yield fail(f'no node can start here: {said}',
                   'source the setup file of your ROS 2 install and use its Python; see that the '
                   'middleware of RMW_IMPLEMENTATION is installed, ROS_DOMAIN_ID is 0 to 101, and '
                   'ROS_LOG_DIR, or HOME, can be written to')
        return
    rmw = done.stdout.split()[-1]
    asked = os.environ.get('RMW_IMPLEMENTATION', '')
    distro = os.environ.get('ROS_DISTRO', 'of unknown distribution')
    yield ok(f'ROS 2 {distro}, middleware {rmw}')
    if asked and asked != rmw:
        yield warn(f'RMW_IMPLEMENTATION asks for {asked}, but {rmw} was loaded',
                   f'install it, or unset the variable: nodes under {asked} will not be seen')
    domain = os.environ.get('ROS_DOMAIN_ID', '0')
    told = os.environ.get('ROS_AUTOMATIC_DISCOVERY_RANGE', '')
    alone = os.environ.get('ROS_LOCALHOST_ONLY') == '1'     # it is stronger
    ignored = told and distro == 'humble'   # which does not know it yet
    reach = 'LOCALHOST' if alone else (told if told and not ignored else 'SUBNET')
    if ignored and not alone:
        yield warn(f'ROS_AUTOMATIC_DISCOVERY_RANGE is {told}, which Humble does not know',
                   'set ROS_LOCALHOST_ONLY=1 to stay on this machine')
    yield ok(f'ROS_DOMAIN_ID {domain}, discovery within {reach}: nodes elsewhere are not seen')
    try:
        for kind in ('msg', 'srv', 'action'):
            importlib.import_module(f'depthvlm_ros.{kind}')
    except ImportError as error:
        yield fail(f'the interfaces of depthvlm_ros do not load: {error}',
                   'build the package (colcon build, or make build) and source its setup file')
    else:
        yield ok('the interfaces of depthvlm_ros load')


def check_conversions() -> Iterator[Finding]:
    """Convert an image there and back in an interpreter of its own: a misfit may crash it."""
    versions = ', '.join(f'{name} {_version_of(name)}' for name in ('numpy', 'cv2'))
    done = tried(CONVERSION)
    if done is None:
        yield fail(f'cv_bridge does not come back within {TRY_S:.0f} s ({versions})',
                   'import cv_bridge by hand and look where it hangs')
        return
    if done.returncode == 0:
        yield ok(f'cv_bridge converts images ({versions})')
        return
    yield fail(f'cv_bridge does not work ({versions}): {last_words(done)}',
               "a cv_bridge of a ROS install goes with that install's own NumPy and OpenCV: "
               'uninstall those that pip laid over them')


def check_optional() -> Iterator[Finding]:
    """Name what is not there, and what therefore does not work."""
    for name, loss in OPTIONAL.items():
        if util.find_spec(name) is None:
            yield warn(f'{name} is not installed', loss)
        else:
            yield ok(f'{name} is there')


def check_device(device: str) -> Iterator[Finding]:
    """
    Check where the model would run.

    :param device: as the node's parameter.
    """
    try:
        from depthvlm_ros.model.predictor import resolve_device
        import torch
        place = resolve_device(device)
    except ValueError as error:
        yield fail(str(error), "set the node's parameter device")
        return
    except Exception as error:  # a package that is too old, or broken, may raise anything
        yield fail(f'torch or transformers does not load: {type(error).__name__}: {error}',
                   f'{pip_install()} --force-reinstall torch, and look at the versions above')
        return
    if place.type == 'cuda':
        try:
            free, total = (n / 2**30 for n in torch.cuda.mem_get_info(place))
        except RuntimeError as error:
            yield fail(f'{place} cannot be used: {str(error).partition(chr(10))[0]}',
                       'look at nvidia-smi: end what fills the GPU, or restart a broken one; or '
                       "set the node's parameter device to another one")
            return
        name = torch.cuda.get_device_name(place)
        what = f'{name}: {free:.1f} of {total:.1f} GiB free, torch built for CUDA ' \
               f'{torch.version.cuda}'
        yield ok(what)
        if torch.cuda.get_device_capability(place) < FUSED_SINCE:
            yield warn(f'{name} is older than Ampere: attention in bfloat16 keeps its scores',
                       'it takes more memory than docs/hardware.md says: set max_image_tokens')
    elif device != 'auto':
        yield ok(f'the model would run on the {place.type.upper()}, as asked')
    elif torch.version.cuda:
        yield warn('torch is built for CUDA but sees no GPU: the model would run on the CPU',
                   'look at nvidia-smi: the driver must be as new as CUDA '
                   f'{torch.version.cuda}; in a container, give it the GPU')
    else:
        yield warn('the model would run on the CPU',
                   'right for nano; the 4B needs a GPU and a torch that is built for it')


def check_model(name: str, revision: str | None) -> Iterator[Finding]:
    """
    Check a model's files against what its configuration asks for, reading headers alone.

    :param name: as the node's parameter: 'nano', a folder, or a hub id.
    :param revision: of a hub id.
    """
    try:
        from depthvlm_ros.model import checkpoint
        from depthvlm_ros.model.prompt import Prompt
    except Exception as error:  # as above
        yield fail(f'the model code does not load: {type(error).__name__}: {error}',
                   f'{pip_install()} -r requirements.txt')
        return
    folder = checkpoint.local_folder(name, revision)
    if folder is None and not checkpoint.is_hub_id(name):
        yield fail(f'the model {name!r} is no folder here',
                   "name 'nano', a folder with config.json and model.safetensors, or a hub id "
                   "'owner/name'")
        return
    if folder is None:
        at = f' --revision {revision}' if revision else ''
        yield warn(f'{name} is neither a folder nor in the cache of the hub',
                   'the first configure fetches it (the 4B: about 9 GB), which needs a network; '
                   'or fetch it before: '
                   f'"{Path(sys.executable).parent}/hf" download {name}{at}')
        return
    try:
        config = checkpoint.read_config(folder)
        checkpoint.check_keys(folder, config)
        Prompt.of(checkpoint.load_tokenizer(folder), config.image_token_id)
        size_gb = sum(path.stat().st_size for path in checkpoint.shard_files(folder)) / 1e9
    except ValueError as error:     # CheckpointError is one
        yield fail(f'the model {name} cannot be used: {error}',
                   'fetch its files again, or name another model')
        return
    yield ok(f'the model {name} is whole ({size_gb:.2f} GB in {folder})')


def _numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version."""
    parts = []
    for part in version.split('+')[0].split('.'):
        if not part.isdigit():
            break
        parts.append(int(part))
    return tuple(parts)


def _version_of(module: str) -> str:
    """Return a module's version, or why there is none."""
    try:
        return importlib.import_module(module).__version__
    except (ImportError, AttributeError) as error:
        return f'does not load ({error})'
