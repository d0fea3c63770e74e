# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The client as a person runs it, against a scripted node."""

import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import threading
import time

from builtin_interfaces.msg import Duration
from depthvlm_ros.msg import SpatialReference
from depthvlm_ros.nodes import ask as command
from depthvlm_ros.srv import SpatialQuery
import pytest

pytestmark = pytest.mark.ros

ROOT = Path(__file__).parents[2]
STATUS = SpatialQuery.Response
PATIENCE_S = 60.0


def start(*arguments):
    """Run the command as a person does."""
    return subprocess.Popen(
        [sys.executable, '-m', 'depthvlm_ros.nodes.ask', *arguments], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, 'PYTHONUNBUFFERED': '1'})


def wait_until(condition):
    until_s = time.monotonic() + PATIENCE_S
    while not condition() and time.monotonic() < until_s:
        time.sleep(0.01)
    return bool(condition())


def run(*arguments):
    """Run the command; return its exit code, stdout and stderr."""
    process = start(*arguments)
    try:
        output, errors = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    return process.returncode, output, errors


def test_the_command_prints_answer_references_and_latency(actor):
    code, output, errors = run('How far?', '--pixel', '1', '2.5', '--pixel', '-0.5', '7',
                               '--target-frame', 'map', '--max-age', '2', '--wait', '30')
    assert (code, errors) == (0, '')
    for words in ('You asked: How far?', 'x, y, z in map (m)', '1.0, 2.5', '-0.5, 7.0', '2.50',
                  '0.50, -0.25, nan', 'yes', '0.250 s, 3 tokens, actor', '7.000000005'):
        assert words in output
    assert actor.asked[0].max_age == Duration(sec=2)


def test_the_command_prints_json(actor):
    code, output, _ = run('a', '--pixel', '1', '2', '--json', '--wait', '30')
    response = json.loads(output)
    assert code == 0
    assert (response['status_name'], response['answer']) == ('OK', 'You asked: a')
    assert response['references'][0]['point'] == {'x': 0.5, 'y': -0.25, 'z': None}


def test_another_status_is_1_and_said_on_stderr(actor):
    actor.status = STATUS.TIMEOUT
    code, output, errors = run('a', '--wait', '30')
    assert code == 1
    assert 'You asked: a' in output
    assert errors == 'ask: TIMEOUT: no more of it\n'


def test_nobody_is_2_and_said_in_one_line():
    code, output, errors = run('a', '--node', '/nowhere/depthvlm', '--wait', '0.5')
    assert (code, output) == (2, '')
    assert len(errors.splitlines()) == 1
    assert '/nowhere/depthvlm/spatial_query' in errors


@pytest.mark.parametrize('words', [['--bogus'], ['-r', '__ns:=bad-ns']])
def test_wrong_ros_arguments_are_2_and_named(words):
    code, output, errors = run('a', '--wait', '0.5', '--ros-args', *words)
    assert (code, output) == (2, '')
    last = errors.splitlines()[-1]      # rcl may have said something before
    assert last.startswith('ask: ') and words[-1].rpartition('=')[2] in last


def test_ros_arguments_go_through(actor):
    code, output, _ = run('a', '--wait', '30', '--node', 'eyes', '--ros-args',
                          '-r', 'eyes/spatial_query:=/depthvlm/spatial_query')
    assert (code, output.splitlines()[0]) == (0, 'You asked: a')


def test_the_command_streams(actor):
    actor.word_s = 0.2
    code, output, errors = run('a', '--stream', '--wait', '30')
    assert (code, errors) == (0, '')
    assert output.splitlines()[0] == actor.words[-1]


def test_interrupted_the_command_cancels_its_goal(actor):
    actor.word_s = 20.0
    process = start('a', '--stream', '--wait', '30')
    try:
        assert process.stdout.read(4) == actor.words[0]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert 'ask: interrupted' in errors
    # Of rclpy's finalizers alone: what is raised in one is printed and goes no further.
    assert errors.count('Traceback') == errors.count('Exception ignored in: <function Future'), (
        errors)
    assert actor.cancelled.wait(60)


def test_a_reader_that_goes_away_ends_the_command_without_a_traceback(actor):
    actor.word_s, gone = 1.0, threading.Event()
    actor.before_next = lambda text: gone.wait(300.0)
    process = start('a', '--stream', '--wait', '30')
    try:
        assert process.stdout.read(4) == actor.words[0]
        process.stdout.close()
        gone.set()
        process.wait(PATIENCE_S)
        errors = process.stderr.read()
    finally:
        process.kill()
    assert process.returncode == 2, errors
    assert 'BrokenPipeError' not in errors


def test_the_command_offers_no_service(actor):
    """An enclave's policy allows it none: creating one would fail."""
    actor.word_s = 600.0
    process = start('a', '--stream', '--wait', '30')
    try:
        assert process.stdout.read(4) == actor.words[0]
        own = f'ask_{process.pid}', '/'
        # What it has is known a moment after its action's client.
        assert wait_until(lambda: own in actor.get_node_names_and_namespaces())
        assert wait_until(lambda: actor.get_publisher_names_and_types_by_node(*own))
        assert actor.get_service_names_and_types_by_node(*own) == []
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE_S)


def test_an_interrupt_that_meets_a_finalizer_comes_right_after():
    class Finalized:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)
    before = {number: signal.signal(number, command.interrupt)
              for number in (signal.SIGINT, signal.SIGALRM)}
    try:
        with pytest.raises(KeyboardInterrupt):
            one = Finalized()
            del one
            time.sleep(5.0)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_words_are_printed_once_and_characters_whole(capsys):
    words = command.Words()
    for text in ('The', 'The \ufffd', 'The \ufffd\ufffd', 'The 近い', 'The 近い box'):
        words(text)
    words.close('The 近い box.')
    assert capsys.readouterr().out == 'The 近い box.\n'


def test_words_that_have_become_others_are_printed_anew(capsys):
    words = command.Words()
    words('The box')
    words.close('A ball')
    assert capsys.readouterr().out == 'The box\nA ball\n'


def test_a_label_of_the_model_cannot_write_to_the_terminal():
    response = SpatialQuery.Response(references=[SpatialReference(
        label='\x1b[31mred\nbox ' + 'x' * 300)])
    text = command.table(response)
    assert '\x1b' not in text
    assert len(text.splitlines()) == 2
