# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The demo: its parts, and all of it as a person runs it."""

import json
import math
import os
from pathlib import Path
import signal
import socket
import subprocess
import sys
import time

import cv2
from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.geometry import organised_points
from depthvlm_ros.nodes.demo import node_process
from depthvlm_ros.nodes.demo.cloud_file import PLY_POINT, unpack_rgb, write_ply
from depthvlm_ros.nodes.demo.node_process import NodeProcess, ros_arguments
from depthvlm_ros.nodes.demo.picture import depth_picture, end_of_scale, UNKNOWN
from depthvlm_ros.nodes.demo.questions import is_correct, KINDS_ASKED, room_questions
from depthvlm_ros.nodes.demo.summary import Asked, summary, table
from depthvlm_ros.synthetic import judge, Scene
import numpy as np
import pytest
import yaml

pytestmark = pytest.mark.ros

ROOT = Path(__file__).parents[2]
KEYS = ['frames', 'depth_hz', 'latency_ms', 'delta1', 'abs_rel', 'questions', 'model', 'device']
CAMERA = Intrinsics.centred(160, 120, 140.0)
PATIENCE_S = 300.0


def demo(*arguments, expected_s=PATIENCE_S):
    """Run the demo as a person does; return its exit code, stdout and stderr."""
    done = subprocess.run([sys.executable, '-m', 'depthvlm_ros.nodes.demo', *arguments],
                          cwd=ROOT, capture_output=True, text=True, timeout=expected_s)
    return done.returncode, done.stdout, done.stderr


def read_ply(path):
    """Return the points of a PLY as the header describes them."""
    header, _, body = path.read_bytes().partition(b'end_header\n')
    count = int(header.split(b'element vertex ')[1].split()[0])
    assert b'format binary_little_endian 1.0' in header
    points = np.frombuffer(body, PLY_POINT)
    assert len(points) == count
    return points


def test_the_cloud_file_holds_the_finite_points_and_their_colours(tmp_path):
    depth_m = np.full((120, 160), 2.0, np.float32)
    depth_m[:10] = np.nan
    colours = np.zeros((120, 160, 3), np.uint8)
    colours[..., 0], colours[..., 2] = 200, 7
    points_m = organised_points(depth_m, CAMERA)
    assert write_ply(tmp_path / 'cloud.ply', points_m, colours) == 110 * 160
    points = read_ply(tmp_path / 'cloud.ply')
    assert np.array_equal(points['xyz'], points_m[10:].reshape(-1, 3))
    assert (points['rgb'] == (200, 0, 7)).all()


def test_packed_colours_are_unpacked():
    packed = np.array([0x00C80007, 0x00010203], np.uint32).view(np.float32)
    assert unpack_rgb(packed).tolist() == [[200, 0, 7], [1, 2, 3]]


def test_the_picture_has_a_panel_for_everything_known():
    frame = Scene.random(7).render(CAMERA)
    prediction_m = frame.depth_m * 1.1
    prediction_m[:60] = np.nan
    whole = depth_picture(frame.rgb, prediction_m, frame.depth_m, ['a question  an answer'])
    photo = depth_picture(frame.rgb, prediction_m)
    assert whole.dtype == np.uint8
    assert whole.shape[1] > 1.6 * photo.shape[1]
    assert whole.shape[0] > photo.shape[0]
    grey = (whole == UNKNOWN).all(axis=2).sum()     # half of the prediction and of the error
    panel = 360 * 480
    assert panel * 0.95 < grey < panel * 1.05


@pytest.mark.parametrize('largest_m, end_m', [(0.01, 0.2), (0.33, 0.4), (2.9, 3.0), (47.0, 50.0)])
def test_scales_end_at_round_numbers(largest_m, end_m):
    values_m = np.array([[largest_m, np.nan]])
    assert end_of_scale(values_m, 100) == pytest.approx(end_m)
    assert end_of_scale(np.full((2, 2), np.nan), 100) > 0


def test_the_figures():
    truth_m = np.full((4, 4), 2.0, np.float32)
    measured = [(truth_m * 1.1, truth_m), (truth_m * 1.5, truth_m)]
    asked = [Asked('How far?', 'One metre.', 'Two metres.', False), Asked('?', '!', '!', True)]
    figures = summary(3, 9.5, [10.0, 20.0, 30.0], measured, asked, 'nano', 'cpu')
    assert list(figures) == KEYS
    assert figures['latency_ms'] == {'p50': 20.0, 'p99': pytest.approx(29.8)}
    assert figures['delta1'] == 0.5
    assert figures['abs_rel'] == pytest.approx(0.3)
    assert figures['questions'][0] == {'question': 'How far?', 'answer': 'One metre.',
                                       'truth': 'Two metres.', 'correct': False}
    words = table(figures)
    for word in ('nano on cpu', '9.5 Hz', 'delta1 0.500', 'WRONG', '1 of 2 right'):
        assert word in words


def test_the_figures_of_a_photo_are_null_where_nothing_is_known():
    figures = summary(1, math.nan, [12.0], [], [Asked('?', '!')], 'nano', 'cpu')
    assert figures['delta1'] is figures['abs_rel'] is figures['depth_hz'] is None
    assert figures['questions'][0]['truth'] is figures['questions'][0]['correct'] is None
    assert 'NaN' not in json.dumps(figures)
    assert 'right' not in table(figures)


@pytest.mark.parametrize('seed', [3, 7, 13, 31])
def test_its_questions_are_those_of_the_rooms_and_their_truth_is_exact(seed):
    frame = Scene.random(seed).render(Intrinsics.centred(320, 240, 280.0))
    questions = room_questions(frame)
    assert len(questions) >= 5
    assert {question.kind for question in questions} == set(KINDS_ASKED)
    known = {text: (answer, kind) for rng_seed in range(200)
             for text, answer, kind in frame.questions(rng_seed, canonical=True)}
    for question in questions:
        assert (question.truth(frame), question.kind) == known[question.text]
        assert judge(question.kind, question.truth(frame), known[question.text][0])


def falsified(question, truth):
    """Return an answer of the truth's form that is wrong."""
    if question.kind == 'point':
        return f'[{{"point_2d": [0, 0], "label": "{question.labels[0]}"}}]'
    if question.kind == 'closer':
        said, closer = truth.rsplit(' so the ', 1)
        other = next(label for label in question.labels if not closer.startswith(label))
        return f'{said} so the {other} is closer.'
    sides = (' left ', ' right ') if ' left ' in truth else (' right ', ' left ')
    return truth.replace(*sides)


def test_its_judge_takes_the_truth_and_nothing_beside_it():
    frame = Scene.random(7).render(CAMERA)
    for question in room_questions(frame):
        truth = question.truth(frame)
        assert is_correct(question, truth, truth, frame)
        wrong = falsified(question, truth)
        assert wrong != truth and not is_correct(question, wrong, truth, frame)


def test_a_question_about_something_out_of_view_has_no_truth():
    scene = Scene.random(7)
    question = room_questions(scene.render(CAMERA))[0]
    other = Scene.random(4).render(CAMERA)
    assert not {thing.label for thing in other.objects} & set(question.labels)
    assert question.truth(other) is None


@pytest.mark.parametrize('value', [
    'photo.jpg', "it's a photo.jpg", 'true', '5', '1.5', '', 'a: b # c', '[1]', 7, -1,
    2.0, 0.001, True, False])
def test_parameters_reach_a_node_as_they_are(value):
    _, _, setting = ros_arguments({'name': value})
    name, _, text = setting.partition(':=')
    assert name == 'name'
    read = yaml.safe_load(text)
    assert (read, type(read)) == (value, type(value))


def test_a_node_that_does_not_listen_is_killed(tmp_path, monkeypatch):
    (tmp_path / 'stubborn.py').write_text(
        'import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n'
        'print("deaf", flush=True)\ntime.sleep(60)\n')
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    monkeypatch.setattr(node_process, 'PATIENCE_S', 0.5)
    node = NodeProcess('stubborn', {}, tmp_path / 'log')
    deadline_s = time.monotonic() + 20
    while 'deaf' not in node.last_lines() and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert node.exit_code is None
    node.stop()
    assert node.exit_code == -signal.SIGKILL
    assert node.last_lines() == '    deaf'


@pytest.mark.parametrize('arguments, words', [
    (['--image', 'nowhere.jpg'], '--image nowhere.jpg does not exist'),
    (['--image', 'nowhere.jpg', '--fx', '-600'], 'fx is -600.0, wanted a number of pixels'),
    (['--out', '/dev/null/demo'], '--out /dev/null/demo cannot be written to'),
    (['--out', '/proc'], '--out /proc cannot be written to'),
    (['--image', str(ROOT / 'package.xml'), '--fx', '600'], 'is no photo'),
    (['--image', 'PHOTO'], 'focal length in px (fx)'),
    (['--image', 'PHOTO', '--info', 'nowhere.yaml'], 'nowhere.yaml cannot be read'),
])
def test_a_photo_that_cannot_be_shown_is_refused_at_once_in_one_line(tmp_path, arguments, words):
    cv2.imwrite(str(tmp_path / 'photo.png'), np.zeros((48, 64, 3), np.uint8))
    arguments = [str(tmp_path / 'photo.png') if word == 'PHOTO' else word for word in arguments]
    code, _, errors = demo('--out', str(tmp_path / 'out'), *arguments, expected_s=PATIENCE_S)
    assert code == 2
    assert len(errors.strip().splitlines()) == 1
    assert words in errors
    assert not (tmp_path / 'out').exists()


@pytest.mark.slow
def test_without_a_model_it_fails_with_the_nodes_reason(tmp_path):
    code, _, errors = demo('--out', str(tmp_path), '--model', str(tmp_path / 'no_model'))
    assert code == 1
    assert 'no depth image will come' in errors
    assert 'no_model' in errors
    assert not (tmp_path / 'summary.json').exists()


def processes_logging_to(folder):
    """Return the processes whose output goes to a folder: the nodes that a demo has started."""
    found = []
    for output in Path('/proc').glob('[0-9]*/fd/1'):
        try:
            target = os.readlink(output)
        except OSError:         # ended meanwhile, or somebody else's
            continue
        if target.startswith(str(folder)):
            found.append(output)
    return found


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_takes_its_nodes_along(tmp_path, number):
    process = subprocess.Popen(
        [sys.executable, '-m', 'depthvlm_ros.nodes.demo', '--out', str(tmp_path)], cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline_s = time.monotonic() + PATIENCE_S
        while len(processes_logging_to(tmp_path)) < 2 and time.monotonic() < deadline_s:
            time.sleep(0.1)
        assert len(processes_logging_to(tmp_path)) == 2
        process.send_signal(number)
        _, errors = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    assert process.returncode == 130
    assert 'interrupted' in errors and 'Traceback' not in errors
    deadline_s = time.monotonic() + PATIENCE_S  # a process that was killed may take a moment to go
    while processes_logging_to(tmp_path) and time.monotonic() < deadline_s:
        time.sleep(0.1)
    assert not processes_logging_to(tmp_path)


@pytest.mark.slow
def test_the_demo(tmp_path):
    code, output, errors = demo('--out', str(tmp_path), '--seconds', '4')
    assert code == 0, errors
    figures = json.loads((tmp_path / 'summary.json').read_text())
    assert list(figures) == KEYS
    assert figures['frames'] >= 2
    assert figures['depth_hz'] > 0.1
    assert 0 < figures['latency_ms']['p50'] <= figures['latency_ms']['p99']
    assert figures['delta1'] > 0.7
    assert figures['abs_rel'] < 0.25
    assert figures['model'] == 'nano'
    assert len(figures['questions']) >= 5
    right = sum(asked['correct'] for asked in figures['questions'])
    assert right >= len(figures['questions']) / 2
    assert cv2.imread(str(tmp_path / 'depth.png')).shape[1] > 1500
    points = read_ply(tmp_path / 'cloud.ply')
    assert len(points) > 200_000
    assert 0.3 < np.median(points['xyz'][:, 2]) < 10
    assert np.ptp(points['rgb'].reshape(-1, 3), axis=0).min() > 50
    assert 'depth images' in output
    assert not processes_logging_to(tmp_path)


@pytest.mark.slow
def test_the_demo_with_a_photo(tmp_path):
    frame = Scene.random(7).render(Intrinsics.centred(1600, 1200, 1400.0))
    cv2.imwrite(str(tmp_path / 'my photo.jpg'), frame.rgb[..., ::-1])
    code, _, errors = demo('--out', str(tmp_path / 'out'), '--seconds', '3',
                           '--image', str(tmp_path / 'my photo.jpg'), '--fx', '1400')
    assert code == 0, errors
    figures = json.loads((tmp_path / 'out' / 'summary.json').read_text())
    assert list(figures) == KEYS
    assert figures['frames'] >= 2
    assert figures['delta1'] is None and figures['abs_rel'] is None
    assert len(figures['questions']) >= 5
    assert all(asked['truth'] is asked['correct'] is None for asked in figures['questions'])
    points = read_ply(tmp_path / 'out' / 'cloud.ply')
    assert len(points) == 1280 * 960        # scaled down from the photo
    # The photo's focal length was scaled with it: the room has its size.
    truth_m, found_m = np.median(frame.depth_m), np.median(points['xyz'][:, 2])
    assert found_m == pytest.approx(truth_m, rel=0.3)


def test_the_domain_is_one_in_which_nobody_is():
    domain = node_process.free_domain()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as participant:
        participant.bind(('', 7410 + 250 * domain))
        assert node_process.free_domain() != domain
    assert node_process.free_domain() != domain, 'it is taken, before anybody is in it'
