# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The camera node over real DDS: what it publishes, and how it ends."""

from pathlib import Path
import signal
import subprocess
import sys
import time

import cv2
from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.nodes import camera_node
from depthvlm_ros.nodes.camera_node import CameraNode, PARAMETERS
from depthvlm_ros.nodes.poses import pose_matrix, pose_message
from depthvlm_ros.synthetic import Pose, Scene
from geometry_msgs.msg import PoseStamped
import numpy as np
import pytest
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
import yaml

pytestmark = pytest.mark.ros

ROOT = Path(__file__).parents[2]
TOPICS = {'image': Image, 'camera_info': CameraInfo, 'ground_truth/depth': Image,
          'ground_truth/pose': PoseStamped}
SMALL = {'width': 64, 'height': 48, 'rate': 20.0}
PATIENCE_S = 120.0


class Audience:
    """A node that keeps what comes on the camera's topics, and whatever nodes run beside it."""

    def __init__(self):
        self.context = Context()
        rclpy.init(context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.node = rclpy.create_node('audience', context=self.context)
        self.executor.add_node(self.node)
        self.heard = {topic: [] for topic in TOPICS}

    def subscribe(self):
        for topic, kind in reversed(TOPICS.items()):    # for images, the camera waits
            self.node.create_subscription(kind, topic, self.heard[topic].append, 20)

    def camera(self, **parameters):
        overrides = [Parameter(name, value=value) for name, value in (SMALL | parameters).items()]
        camera = CameraNode(context=self.context, parameter_overrides=overrides)
        self.executor.add_node(camera)
        return camera

    def listen(self, until):
        """Spin until something holds; fail when that takes too long."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not until():
            assert time.monotonic() < deadline_s, {k: len(v) for k, v in self.heard.items()}
            self.executor.spin_once(timeout_sec=0.1)

    def close(self):
        for node in self.executor.get_nodes():
            node.destroy_node()
        self.executor.shutdown()
        rclpy.try_shutdown(context=self.context)


@pytest.fixture
def late_audience():
    """Give an audience that has not subscribed yet."""
    audience = Audience()
    yield audience
    audience.close()


@pytest.fixture
def audience(late_audience):
    late_audience.subscribe()
    return late_audience


@pytest.fixture
def folder(tmp_path):
    """Save three grey photos, told apart by their level."""
    for name, level in (('a.png', 10), ('b.png', 20), ('c.png', 30)):
        cv2.imwrite(str(tmp_path / name), np.full((48, 64, 3), level, np.uint8))
    return tmp_path


PATIENT = """
from depthvlm_ros.nodes import camera_node
camera_node.FIRST_SUBSCRIBER_S = 600.0  # two processes may take long to find each other
camera_node.main()
"""


def start(*parameters):
    """Start the node as a process."""
    arguments = [part for parameter in parameters for part in ('-p', parameter)]
    return subprocess.Popen(
        [sys.executable, '-c', PATIENT, '--ros-args', *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def end_of(process):
    """Return a process's exit code and output; kill it when it does not end."""
    try:
        output = process.communicate(timeout=PATIENCE_S)[0]
    finally:
        process.kill()
    return process.returncode, output


def stamp(message):
    return message.header.stamp.sec, message.header.stamp.nanosec


def test_a_rooms_messages_share_their_stamp_and_agree_with_each_other(audience):
    audience.camera(seed=3, fx=60.0, cx=30.0, frame_id='eye')
    heard = audience.heard
    audience.listen(lambda: all(len(messages) >= 3 for messages in heard.values()))
    stamps = [set(map(stamp, messages)) for messages in heard.values()]
    common = set.intersection(*stamps)
    assert len(common) >= 2
    image, info, depth, pose = (
        next(message for message in messages if stamp(message) == max(common))
        for messages in heard.values())
    assert (image.encoding, image.height, image.width, image.step) == ('rgb8', 48, 64, 192)
    assert (depth.encoding, depth.height, depth.width, depth.step) == ('32FC1', 48, 64, 256)
    assert not image.is_bigendian and not depth.is_bigendian
    assert {image.header.frame_id, info.header.frame_id, depth.header.frame_id} == {'eye'}
    assert pose.header.frame_id == 'world'
    assert (info.height, info.width) == (48, 64)
    assert info.k.tolist() == [60.0, 0, 30.0, 0, 60.0, 23.5, 0, 0, 1]
    assert info.p.tolist() == [60.0, 0, 30.0, 0, 0, 60.0, 23.5, 0, 0, 0, 1, 0]
    # The pose tells where the truth was seen from: seen again from there, it is the same.
    again = Scene.random(3).render(Intrinsics(64, 48, 60.0, 60.0, 30.0, 23.5),
                                   Pose(pose_matrix(pose.pose)))
    seen_m = np.frombuffer(depth.data, np.float32).reshape(48, 64)
    assert np.median(np.abs(seen_m - again.depth_m)) < 1e-5
    rgb = np.frombuffer(image.data, np.uint8).reshape(48, 64, 3).astype(int)
    assert np.median(np.abs(rgb - again.rgb)) <= 8      # up to the sensor's noise


def test_a_photo_has_a_calibration_and_no_truth(audience, folder):
    (folder / 'calibration.yaml').write_text(yaml.safe_dump({
        'image_width': 64, 'image_height': 48, 'distortion_model': 'plumb_bob',
        'camera_matrix': {'data': [50.0, 0, 31.0, 0, 51.0, 23.0, 0, 0, 1]},
        'distortion_coefficients': {'data': [-0.1, 0.01, 0.0, 0.0, 0.0]}}))
    audience.camera(source=str(folder / 'b.png'), width=0, height=0,
                    calibration_file=str(folder / 'calibration.yaml'))
    heard = audience.heard
    audience.listen(lambda: len(heard['image']) >= 2 and len(heard['camera_info']) >= 2)
    assert set(heard['image'][0].data) == {20}
    info = heard['camera_info'][0]
    assert info.distortion_model == 'plumb_bob'
    assert info.d.tolist() == [-0.1, 0.01, 0.0, 0.0, 0.0]
    assert info.k.tolist() == [50.0, 0, 31.0, 0, 51.0, 23.0, 0, 0, 1]
    assert info.p.tolist() == [50.0, 0, 31.0, 0, 0, 51.0, 23.0, 0, 0, 0, 1, 0]
    assert not audience.node.count_publishers('ground_truth/depth')


def test_a_folder_ends_after_its_last_photo_and_loses_none(audience, folder):
    camera = audience.camera(source=str(folder), fx=60.0, width=0, height=0, loop=False)
    audience.listen(lambda: camera.ended.done() and len(audience.heard['image']) == 3)
    assert camera.ended.result() == ''
    assert [message.data[0] for message in audience.heard['image']] == [10, 20, 30]


def test_a_finite_sequence_waits_for_somebody_who_looks(late_audience, monkeypatch):
    monkeypatch.setattr(camera_node, 'FIRST_SUBSCRIBER_S', 600.0)
    camera = late_audience.camera(frames=3)
    born_s = time.monotonic()
    late_audience.listen(lambda: time.monotonic() > born_s + 0.5)
    assert not camera.ended.done()
    late_audience.subscribe()
    late_audience.listen(lambda: camera.ended.done() and len(late_audience.heard['image']) == 3)


def test_it_ends_after_the_frames_asked_for(audience):
    camera = audience.camera(frames=4)
    audience.listen(lambda: camera.ended.done() and len(audience.heard['image']) >= 4)
    assert camera.ended.result() == ''
    assert len(audience.heard['image']) == 4


def test_a_broken_photo_on_the_way_is_the_end_and_its_reason(audience, folder):
    (folder / 'b.png').write_bytes(b'no photo')
    camera = audience.camera(source=str(folder), fx=60.0, width=0, height=0)
    audience.listen(camera.ended.done)
    assert 'b.png is no photo' in camera.ended.result()


def test_publishers_are_reliable_unless_overridden(audience):
    override = {'qos_overrides./image.publisher.reliability': 'best_effort'}
    audience.camera(**override)
    qos = {topic: audience.node.get_publishers_info_by_topic(topic)[0].qos_profile
           for topic in ('/image', '/camera_info', '/ground_truth/depth')}
    assert qos['/image'].reliability == ReliabilityPolicy.BEST_EFFORT
    assert qos['/camera_info'].reliability == ReliabilityPolicy.RELIABLE
    assert qos['/ground_truth/depth'].reliability == ReliabilityPolicy.RELIABLE
    assert qos['/camera_info'].durability == DurabilityPolicy.VOLATILE


def test_parameters_are_described_and_the_file_holds_them_all(audience):
    camera = audience.camera()
    for name, descriptor in zip(PARAMETERS, camera.describe_parameters(list(PARAMETERS)),
                                strict=True):
        assert descriptor.description, name
        assert descriptor.read_only, name
    lines = (ROOT / 'config' / 'camera.yaml').read_text().splitlines()
    held = yaml.safe_load('\n'.join(lines))['/**']['ros__parameters']
    defaults = {name: default for name, (default, _, _) in PARAMETERS.items()}
    assert held == defaults
    assert [type(value) for value in held.values()] == [type(v) for v in defaults.values()]
    for before, line in zip(lines, lines[1:], strict=False):
        if line.strip().split(':')[0] in PARAMETERS:
            assert before.strip().startswith('#'), line


@pytest.mark.parametrize('turn_rad', [(0, 0, 0), (0.3, -0.2, 0.1), (3.1, 0.2, 0.0), (0, 0, np.pi)])
def test_poses_survive_the_message(turn_rad):
    matrix = np.eye(4)
    matrix[:3, :3] = cv2.Rodrigues(np.array(turn_rad, float))[0]
    matrix[:3, 3] = 1.0, -2.0, 3.0
    message = pose_message(matrix)
    assert np.allclose(pose_matrix(message), matrix, atol=1e-12)
    q = message.orientation
    # q rotates x as the matrix does: the first column, written out.
    assert np.allclose([1 - 2 * (q.y ** 2 + q.z ** 2), 2 * (q.x * q.y + q.z * q.w),
                        2 * (q.x * q.z - q.y * q.w)], matrix[:3, 0], atol=1e-12)


@pytest.mark.parametrize('parameters, words', [
    (['source:=/nowhere/photo.jpg'], "'/nowhere/photo.jpg' does not exist"),
    (['fx:=600'], "'fx'"),
    (['rate:=-1.0'], 'rate out of range'),
    (['split:=both'], "split is 'both'"),
])
def test_a_process_that_cannot_start_says_so_in_one_line(parameters, words):
    code, output = end_of(start(*parameters))
    assert code == 1
    assert len(output.strip().splitlines()) == 1
    assert words in output


def test_wrong_ros_arguments_are_named():
    code, output = end_of(start('rate:=1.0', '--bogus'))
    assert code == 1
    last = output.strip().splitlines()[-1]      # rcl may have said something before
    assert last.startswith('camera: ') and '--bogus' in last


def test_a_process_ends_well_when_interrupted():
    process = start('width:=64', 'height:=48', 'rate:=20.0')
    line = process.stdout.readline()
    assert 'synthetic room' in line
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    code, output = end_of(process)
    assert code == 0
    assert 'Traceback' not in output


def test_a_process_delivers_a_finite_sequence_and_ends(audience):
    process = start('width:=64', 'height:=48', 'rate:=50.0', 'frames:=5')
    try:
        audience.listen(lambda: all(len(messages) == 5 for messages in audience.heard.values()))
    finally:
        code, output = end_of(process)
    assert (code, 'Traceback' in output) == (0, False)
