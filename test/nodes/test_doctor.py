# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The doctor: what it says of an installation, and of a camera, healthy and broken."""

import os
from pathlib import Path
import re
import shutil
import subprocess
import sys

from builtin_interfaces.msg import Time
from depthvlm_ros.nodes import doctor, installation
from depthvlm_ros.nodes.conversions import info_from_intrinsics
from depthvlm_ros.nodes.findings import Level
from depthvlm_ros.nodes.listening import check_camera, Heard
from depthvlm_ros.nodes.parameters import ROWS
import pytest
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
import torch

pytestmark = pytest.mark.ros

NANO = Path(doctor.__file__).parents[1] / 'checkpoints/nano'
PATIENCE_S = 300


def lines_of(findings):
    findings = list(findings)
    assert all(finding.advice for finding in findings if finding.level is not Level.OK)
    return findings


def the_only(findings):
    finding, = lines_of(findings)
    return finding


def grave(findings):
    return [finding for finding in findings if finding.level is Level.FAIL]


def run_doctor(*arguments, timeout_s=PATIENCE_S, **environment):
    return subprocess.run(
        [sys.executable, '-m', 'depthvlm_ros.nodes.doctor', *arguments], check=False,
        capture_output=True, text=True, timeout=timeout_s, env={**os.environ, **environment})


def test_defaults_are_those_of_the_node():
    options = doctor.parser().parse_args([])
    assert (options.model, options.image_transport) == (
        ROWS['model'].default, ROWS['image_transport'].default)
    assert ROWS['image_transport'].choices == doctor.TRANSPORTS


@pytest.mark.slow
def test_this_installation_is_well():
    done = run_doctor('--model', 'nano', '--device', 'cpu')
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'the model nano is whole' in done.stdout
    assert 'cv_bridge converts images' in done.stdout
    assert 'FAIL' not in done.stdout


@pytest.mark.parametrize(('body', 'said'), [
    ("raise AttributeError('_ARRAY_API not found')", '_ARRAY_API not found'),
    ('import os; os.abort()', 'it ended with -6')])
def test_a_cv_bridge_that_does_not_fit_is_named(tmp_path, monkeypatch, body, said):
    (tmp_path / 'cv_bridge.py').write_text(body)
    monkeypatch.setenv('PYTHONPATH', str(tmp_path), prepend=os.pathsep)
    finding = the_only(installation.check_conversions())
    assert finding.level is Level.FAIL
    assert said in finding.what
    assert 'numpy' in finding.what


def test_packages_that_lack_or_are_too_old_or_new_are_named(monkeypatch):
    monkeypatch.setattr(installation, 'PACKAGES', {
        'numpy': '>=99.0', 'torch': '>=1,<2', 'pytest': '>=1,<99', 'no_such_package': '>=1.0'})
    old, new, fits, lacking = lines_of(installation.check_packages())
    assert old.level is new.level is lacking.level is Level.FAIL
    assert fits.level is Level.OK
    assert 'wanted >=99.0' in old.advice
    assert 'wanted >=1,<2' in new.advice
    assert 'no_such_package is not installed' in lacking.what


def test_a_python_that_pip_may_not_install_into_is_not_sent_to_pip(tmp_path, monkeypatch):
    monkeypatch.setattr(installation, 'PACKAGES', {'no_such_package': '>=1.0'})
    assert the_only(installation.check_packages()).advice.startswith(f'"{sys.executable}" -m pip')
    (tmp_path / 'EXTERNALLY-MANAGED').touch()
    monkeypatch.setattr(installation.sysconfig, 'get_path', lambda name: str(tmp_path))
    monkeypatch.setattr(sys, 'prefix', sys.base_prefix)
    advice = the_only(installation.check_packages()).advice
    assert 'virtual environment' in advice
    assert advice.endswith('pip install "no_such_package>=1.0"')


def test_the_packages_are_those_of_the_requirements():
    lines = (Path(__file__).parents[2] / 'requirements.txt').read_text().splitlines()
    wanted = dict(re.match(r'(\w+)(.*)', line).groups()
                  for line in lines if not line.startswith('#'))
    assert {**installation.PACKAGES, **wanted} == installation.PACKAGES
    assert {*installation.PACKAGES} - {*wanted} == {'numpy'}


def test_a_device_that_is_not_there_is_named():
    finding = the_only(installation.check_device('cuda:99'))
    assert finding.level is Level.FAIL
    assert 'cuda:99' in finding.what


def test_a_gpu_that_cannot_be_used_is_named(monkeypatch):
    def broken(place):
        raise RuntimeError('CUDA error: out of memory\nFor debugging consider ...')
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
    monkeypatch.setattr(torch.cuda, 'mem_get_info', broken)
    finding = the_only(installation.check_device('cuda:0'))
    assert finding.level is Level.FAIL
    assert finding.what == 'cuda:0 cannot be used: CUDA error: out of memory'


@pytest.mark.parametrize(('capability', 'warned'), [((7, 5), True), ((8, 0), False)])
def test_a_gpu_without_fused_attention_in_bfloat16_is_told(monkeypatch, capability, warned):
    for name, found in (('device_count', 1), ('mem_get_info', (2**33, 2**33)),
                        ('get_device_name', 'T4'), ('get_device_capability', capability)):
        monkeypatch.setattr(torch.cuda, name, lambda *_, found=found: found)
    found = lines_of(installation.check_device('cuda:0'))
    assert any('older than Ampere' in finding.what for finding in found) is warned


@pytest.mark.parametrize('built_for', [None, '13.0'])
def test_a_cpu_that_was_asked_for_is_right(monkeypatch, built_for):
    monkeypatch.setattr(torch.version, 'cuda', built_for)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert the_only(installation.check_device('cpu')).level is Level.OK
    assert the_only(installation.check_device('auto')).level is Level.WARN


def test_a_truncated_model_is_named(tmp_path):
    folder = shutil.copytree(NANO, tmp_path / 'cut')
    weights = folder / 'model.safetensors'
    weights.write_bytes(weights.read_bytes()[:-1000])
    finding = the_only(installation.check_model(str(folder), None))
    assert finding.level is Level.FAIL
    assert str(weights) in finding.what


def test_a_hub_id_that_is_not_here_is_told_and_not_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path))
    finding = the_only(installation.check_model('nobody/nothing', 'v2'))
    assert finding.level is Level.WARN
    assert 'nobody/nothing' in finding.what
    assert finding.advice.endswith('download nobody/nothing --revision v2')


@pytest.mark.parametrize('name', [
    '/no/such/folder', './typo', 'nanoo', '', '.', '~nosuchuser/m', 'x' * 300, 'a\0b'])
def test_a_model_that_is_no_folder_and_no_hub_id_fails(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert the_only(installation.check_model(name, None)).level is Level.FAIL


def test_a_tokenizer_of_another_model_is_named(tmp_path):
    folder = shutil.copytree(NANO, tmp_path / 'other')
    text = (folder / 'tokenizer.json').read_text()
    (folder / 'tokenizer.json').write_text(text.replace('<|vision_start|>', '<|begin_image|>'))
    finding = the_only(installation.check_model(str(folder), None))
    assert finding.level is Level.FAIL
    assert '<|vision_start|>' in finding.what


@pytest.mark.parametrize('given, own, ros_args', [
    (['--camera'], ['--camera'], []),
    (['--camera', '--ros-args', '-r', 'a:=b'], ['--camera'], ['--ros-args', '-r', 'a:=b']),
    (['--ros-args', '-r', 'a:=b', '--', '--camera', '--ros-args', '-p', 'c:=1'], ['--camera'],
     ['--ros-args', '-r', 'a:=b', '--ros-args', '-p', 'c:=1'])])
def test_its_own_arguments_may_stand_behind_those_of_ros(given, own, ros_args):
    assert doctor.parted(given) == (own, ros_args)


@pytest.mark.parametrize('topic', ['/camera/image_raw/', '/my cam/image', '/compressed', '/1st'])
def test_a_topic_that_cannot_be_is_refused(topic, capsys):
    with pytest.raises(SystemExit):
        doctor.main([topic])
    assert 'wanted a name such as /camera/image_raw' in capsys.readouterr().err


@pytest.mark.usefixtures('old_pillow')
def test_a_package_too_old_to_be_imported_is_a_finding():
    for findings in (installation.check_device('cpu'), installation.check_model('nano', None)):
        finding = the_only(findings)
        assert finding.level is Level.FAIL
        assert "AttributeError: module 'PIL.Image' has no" in finding.what


def test_without_ros_it_says_so(tmp_path):
    (tmp_path / 'rclpy.py').write_text("raise ImportError('librcl.so: not found')")
    done = run_doctor('--model', 'nano', PYTHONPATH=f'{tmp_path}{os.pathsep}'
                      f'{os.environ.get("PYTHONPATH", "")}')
    assert done.returncode == 1
    assert 'no node can start here: ImportError: librcl.so: not found' in done.stdout
    assert 'the model nano is whole' in done.stdout     # and it went on


@pytest.mark.parametrize(('name', 'value'), [
    ('RMW_IMPLEMENTATION', 'rmw_of_nobody_cpp'), ('ROS_DOMAIN_ID', '999'),
    ('ROS_LOG_DIR', '/proc/nowhere')])
def test_settings_with_which_no_node_starts_are_no_ok(name, value):
    done = run_doctor('--model', 'nano', '--camera', **{name: value})
    assert done.returncode == 1
    assert 'no node can start here' in done.stdout and name in done.stdout
    assert 'the camera was not listened to' in done.stdout
    assert done.stdout.splitlines()[-1].endswith(' warnings')


@pytest.mark.parametrize(('arguments', 'said'), [
    (['-r', 'image'], '-r image'), (['--nonsense'], '--nonsense')])
def test_ros_arguments_that_are_wrong_are_named(arguments, said):
    finding = the_only(check_camera('raw', 0.5, ['--ros-args', *arguments]))
    assert finding.level is Level.FAIL
    assert said in finding.what.partition(': ')[2]


def test_a_parameter_that_is_wrong_is_named():
    """In a process of its own: Fast DDS was seen to hang as it left a node just made."""
    done = run_doctor('--model', 'nano', '--camera', '--ros-args', '-p', 'use_sim_time:=abc',
                      timeout_s=100)
    assert done.returncode == 1
    said, = (line for line in done.stdout.splitlines() if line.startswith('FAIL'))
    assert 'no node starts with --ros-args -p use_sim_time:=abc: ' in said
    assert 'use_sim_time' in said.partition(': ')[2]


def test_localhost_only_is_told_as_stronger_than_the_discovery_range(monkeypatch):
    monkeypatch.setenv('ROS_LOCALHOST_ONLY', '1')
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'SUBNET')
    found = [finding.what for finding in lines_of(installation.check_ros())]
    assert sum('discovery within LOCALHOST' in what for what in found) == 1


def test_humble_knows_no_discovery_range(monkeypatch):
    monkeypatch.setenv('ROS_DISTRO', 'humble')
    monkeypatch.delenv('ROS_LOCALHOST_ONLY', raising=False)
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    found = [(finding.level, finding.what) for finding in lines_of(installation.check_ros())]
    assert any('discovery within SUBNET' in what for _, what in found)
    assert any(level is Level.WARN and 'which Humble does not know' in what
               for level, what in found)


def test_arguments_of_ros_without_a_camera_are_told(monkeypatch):
    for name in ('packages', 'ros', 'conversions', 'model'):     # which take their time
        monkeypatch.setattr(installation, f'check_{name}', lambda *_: iter(()))
    options = doctor.parser().parse_args(['--model', 'nano'])
    given = ['--ros-args', '-r', 'image:=/cam/image_raw', '--camera']
    told = [finding for finding in doctor.findings(options, given)
            if 'no camera was listened to' in finding.what]
    assert [finding.level for finding in told] == [Level.WARN]
    assert not [finding for finding in doctor.findings(options, [])
                if 'listened' in finding.what]


def test_of_the_images_only_the_last_is_kept():
    heard, first, last = Heard(), Image(), Image()
    references = sys.getrefcount(first)
    heard.take_image(first, 2.0)
    heard.take_image(Image(), 1.0)
    heard.take_image(last, 3.0)
    assert sys.getrefcount(first) == references
    assert heard.image is last
    assert (heard.images, heard.least_age_s) == (3, 1.0)


def test_of_the_infos_only_the_last_is_kept():
    heard, first, last = Heard(), CameraInfo(), CameraInfo()
    references = sys.getrefcount(first)
    heard.take_info(first)
    heard.take_info(last)
    assert sys.getrefcount(first) == references
    assert heard.info is last


class TestCamera:
    """Listening to a camera that the robot publishes."""

    def listen(self, robot, info, stamp=None, frame_id='camera_optical_frame', **options):
        """Publish ten images a second, and return what the doctor says meanwhile."""
        timer = robot.node.create_timer(0.1, lambda: robot.publish(
            robot.picture(), info, stamp or robot.node.get_clock().now().to_msg(), frame_id))
        try:
            # Fast DDS says every 3 s who is there: a first word that is lost comes again by then.
            return lines_of(check_camera(options.get('transport', 'raw'), 5.0, []))
        finally:
            robot.node.destroy_timer(timer)

    def test_nobody_there(self):
        findings = lines_of(check_camera('raw', 0.5, [
            '--ros-args', '-r', 'image:=/nowhere', '-r', 'camera_info:=/nowhere_info']))
        assert len(grave(findings)) == len(findings) >= 3
        assert '/nowhere: nobody publishes it' in findings[0].what

    @pytest.mark.parametrize(('topic', 'more', 'images', 'infos'), [
        ('/front/image_raw', [], '/front/image_raw', '/front/camera_info'),
        ('/front/image_raw/compressed', [], '/front/image_raw/compressed', '/front/camera_info'),
        ('pictures', [], '/pictures', '/camera_info'),
        ('/front/image_raw', ['--ros-args', '-r', 'camera_info:=/own'], '/front/image_raw',
         '/own')])
    def test_a_topic_is_listened_to_and_the_camera_info_beside_it(
            self, topic, more, images, infos):
        options = doctor.parser().parse_args([topic])
        arguments = [*more, *doctor.listening_to_topic(options)]
        assert options.camera
        told = '\n'.join(map(str, check_camera(options.image_transport, 0.5, arguments)))
        assert f'{images}: nobody publishes it' in told
        assert f'{infos}: nobody publishes it' in told

    def test_the_name_to_remap_is_the_one_that_is_subscribed_to(self):
        told = '\n'.join(map(str, check_camera('compressed', 0.5, [
            '--ros-args', '-r', 'image:=/cam/image_raw'])))
        assert '/image/compressed: nobody publishes it' in told
        assert '-r image/compressed:=...' in told and '-r camera_info:=...' in told

    @pytest.mark.parametrize('compressed', [False, True])
    def test_a_camera_that_fits(self, make_robot, compressed):
        robot = make_robot(compressed=compressed)
        findings = self.listen(robot, info_from_intrinsics(robot.camera, Header()),
                               transport='compressed' if compressed else 'raw')
        assert {finding.level for finding in findings} == {Level.OK}, findings
        said = '\n'.join(map(str, findings))
        assert '128 x 96 px' in said
        assert 'fx 100.0, fy 105.0, cx 60.0, cy 50.0 px' in said
        assert 'images found their camera_info' in said

    def test_an_uncalibrated_camera(self, make_robot):
        said = '\n'.join(map(str, grave(
            self.listen(make_robot(), CameraInfo(width=128, height=96)))))
        assert 'camera_calibration' in said

    def test_no_camera_info(self, make_robot):
        said = '\n'.join(map(str, grave(self.listen(make_robot(), None))))
        assert 'no camera_info' in said

    def test_a_camera_info_of_another_size(self, make_robot):
        robot = make_robot()
        info = info_from_intrinsics(robot.camera.resize(64, 48), Header())
        timer = robot.node.create_timer(0.1, lambda: robot.infos.publish(info))
        try:
            said = '\n'.join(map(str, grave(self.listen(robot, None, frame_id=''))))
        finally:
            robot.node.destroy_timer(timer)
        assert 'camera_info is for 64 x 48 px, the image has 128 x 96' in said

    def test_a_camera_info_of_another_size_under_the_images_stamps(self, make_robot):
        robot = make_robot()
        info = info_from_intrinsics(robot.camera.resize(64, 48), Header())
        publish, infos = robot.publish, [info] * 8

        def publish_few_infos(image, _, *header):
            all_listen = min(robot.images.get_subscription_count(),
                             robot.infos.get_subscription_count()) >= 2
            publish(image, infos.pop() if all_listen and infos else None, *header)
        robot.publish = publish_few_infos   # the last image has none: no reason to tell another
        said = '\n'.join(map(str, grave(self.listen(robot, info))))
        assert 'the image is 128 x 96 px, but camera_info is for 64 x 48' in said

    def test_old_images_without_a_frame(self, make_robot):
        robot = make_robot()
        findings = self.listen(robot, info_from_intrinsics(robot.camera, Header()),
                               Time(sec=1), frame_id='')
        said = '\n'.join(str(finding) for finding in findings if finding.level is Level.WARN)
        assert 'use_sim_time' in said
        assert 'the frame_id is empty' in said

    def test_images_that_get_lost(self, make_robot):
        robot = make_robot()
        info = info_from_intrinsics(robot.camera, Header())
        publish = robot.publish

        def publish_one_of_five(*arguments):
            for _ in range(5):
                info.header.stamp = robot.node.get_clock().now().to_msg()
                robot.infos.publish(info)
            publish(*arguments)
        robot.publish = publish_one_of_five
        findings = self.listen(robot, None)
        said = '\n'.join(str(finding) for finding in findings if finding.level is Level.WARN)
        assert 'images came, and' in said and 'image_reliability:=reliable' in said
