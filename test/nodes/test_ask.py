# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The client, as planners import it and as a person runs it, against a scripted node."""

import contextlib
import json
import math
import os
from pathlib import Path
import signal
import subprocess
import sys
import threading
import time

from builtin_interfaces.msg import Duration, Time
from depthvlm_ros.action import AnswerQuery
from depthvlm_ros.msg import Pixel, SpatialReference
from depthvlm_ros.nodes import ask as command
from depthvlm_ros.nodes import asking, calling
from depthvlm_ros.nodes.asking import NoAnswerError, SpatialClient
from depthvlm_ros.srv import Measure, SpatialQuery
from geometry_msgs.msg import Point
import pytest
from rclpy.action import ActionServer, CancelResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import MultiThreadedExecutor, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.task import Future
from std_msgs.msg import Header

pytestmark = pytest.mark.ros

ROOT = Path(__file__).parents[2]
STATUS = SpatialQuery.Response
PATIENCE_S = 60.0
WORDS = ['The ', 'The red ', 'The red box is ', 'The red box is 2.31 m away.']


class Actor(Node):
    """Stands where the depth node does, and says its lines."""

    def __init__(self, ros):
        super().__init__('depthvlm', context=ros)
        self.asked, self.status, self.pause_s, self.word_s = [], STATUS.OK, 0.0, 0.0
        self.cancelled = threading.Event()
        group = ReentrantCallbackGroup()
        self.create_service(SpatialQuery, '~/spatial_query', self.on_query, callback_group=group)
        self.create_service(Measure, '~/measure', self.on_measure, callback_group=group)
        self.action = ActionServer(
            self, AnswerQuery, '~/answer', self.on_goal, callback_group=group,
            cancel_callback=lambda goal: CancelResponse.ACCEPT)

    def on_query(self, request, response):
        self.asked.append(request)
        time.sleep(self.pause_s)
        return self.filled(request, response)

    def on_measure(self, request, response):
        self.asked.append(request)
        response.distances = [1.5] * (len(request.pixels) - 1)
        return response

    def on_goal(self, goal):
        self.asked.append(goal.request)
        result = self.filled(goal.request, AnswerQuery.Result())
        for tokens, text in enumerate(WORDS, 1):
            goal.publish_feedback(AnswerQuery.Feedback(text=text, tokens=tokens))
            result.answer, result.tokens = text, tokens
            time.sleep(self.word_s)
            if goal.is_cancel_requested:
                self.cancelled.set()
                result.status, result.message = STATUS.CANCELLED, 'cancelled'
                goal.canceled()
                return result
        goal.succeed() if result.status == STATUS.OK else goal.abort()
        return result

    def filled(self, request, response):
        response.status, response.answer = self.status, f'You asked: {request.question}'
        response.message = 'no more of it' if self.status else ''
        response.header = Header(stamp=Time(sec=7, nanosec=5), frame_id='lens')
        response.points_frame = request.target_frame or 'lens'
        response.model, response.tokens = 'actor', 3
        response.latency = Duration(nanosec=250_000_000)
        response.references = [SpatialReference(
            label='', source=SpatialReference.REQUEST, pixel=pixel, depth=2.5, valid=True,
            point=Point(x=0.5, y=-0.25, z=math.nan)) for pixel in request.pixels]
        return response


@contextlib.contextmanager
def spun(node, executor_kind=SingleThreadedExecutor, **options):
    """Spin a node in a thread."""
    executor = executor_kind(context=node.context, **options)
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    try:
        yield executor
    finally:
        executor.shutdown(timeout_sec=5.0)
        thread.join(2.0)


@pytest.fixture
def actor(ros):
    actor = Actor(ros)
    with spun(actor, MultiThreadedExecutor, num_threads=4):
        yield actor
    actor.action.destroy()
    actor.destroy_node()


@pytest.fixture
def planner(ros):
    node = Node('planner', context=ros)
    yield node
    node.destroy_node()


@pytest.fixture
def client(planner):
    client = SpatialClient(planner, wait_s=PATIENCE_S)
    yield client
    client.destroy()


def wait_until(condition, timeout_s=PATIENCE_S):
    until_s = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < until_s:
        time.sleep(0.01)
    return bool(condition())


def in_callback(node, callback):
    """Run something once as a callback of a node; return the list that gets its result."""
    results = []

    def once():
        timer.cancel()
        try:
            results.append(callback())
        except Exception as error:
            results.append(error)
    timer = node.create_timer(0.0, once)
    return results


def test_every_field_reaches_the_node(actor, planner, client):
    with spun(planner):
        response = client.ask('How far?', pixels=[(1, 2.5)], box=(1, 2, 3, 4), target_frame='map',
                              camera='camera', max_age_s=1.5, timeout_s=20, max_tokens=9)
    assert response.answer == 'You asked: How far?'
    assert actor.asked == [SpatialQuery.Request(
        question='How far?', pixels=[Pixel(u=1.0, v=2.5)], box=[1.0, 2.0, 3.0, 4.0],
        target_frame='map', camera='camera', max_age=Duration(sec=1, nanosec=500_000_000),
        timeout=Duration(sec=20), max_tokens=9)]


def test_a_node_that_nobody_spins_is_spun_meanwhile(actor, planner, client):
    assert client.ask('a').status == STATUS.OK
    assert list(client.measure([(1, 1), (2, 2), (3, 3)]).distances) == [1.5, 1.5]
    assert client.answer('b').answer == WORDS[-1]
    with spun(planner):
        assert client.ask('c').status == STATUS.OK
    assert client.ask('d').status == STATUS.OK


@pytest.mark.parametrize('somebody_spins', [True, False])
def test_several_threads_at_once_each_get_their_own_answer(
        actor, planner, client, somebody_spins):
    actor.pause_s = 0.05
    answers = {}

    def ask(number):
        answers[number] = client.ask(f'{number}').answer
    threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(6)]
    with spun(planner) if somebody_spins else contextlib.nullcontext():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
    assert answers == {number: f'You asked: {number}' for number in range(6)}


@pytest.mark.parametrize('method', ['ask', 'answer', 'measure'])
def test_from_a_callback_of_the_single_thread_it_says_what_to_do(actor, planner, client, method):
    argument = [(1, 1)] if method == 'measure' else 'a'
    results = in_callback(planner, lambda: getattr(client, method)(argument))
    with spun(planner):
        assert wait_until(lambda: results)
    assert isinstance(results[0], RuntimeError)
    assert f'{method}_async' in str(results[0])
    assert not actor.asked


class MethodicalExecutor(MultiThreadedExecutor):
    """Runs callbacks in a method of its own, as some distributions do."""

    def run(self, callback):
        return callback()


def test_from_a_callback_of_one_thread_of_several_it_works(actor, planner, client):
    results = in_callback(planner, lambda: planner.executor.run(lambda: client.ask('a')))
    with spun(planner, MethodicalExecutor, num_threads=2):
        assert wait_until(lambda: results)
    assert results[0].answer == 'You asked: a'


@pytest.mark.parametrize('kind', [SingleThreadedExecutor, MultiThreadedExecutor])
def test_futures_are_awaited_in_coroutines(actor, planner, client, kind):
    got = []

    async def plan():
        got.append((await client.ask_async('a')).answer)
        got.append(list((await client.measure_async([(1, 1), (2, 2)])).distances))
        got.append((await client.answer_async('b').future).answer)
    with spun(planner, kind) as executor:
        executor.create_task(plan)
        assert wait_until(lambda: len(got) == 3)
    assert got == ['You asked: a', [1.5], WORDS[-1]]


@pytest.mark.parametrize('method', ['ask', 'measure', 'answer'])
def test_a_node_that_is_not_there_is_named_in_time(planner, method):
    client = SpatialClient(planner, '/elsewhere/depthvlm', wait_s=0.4)
    argument = [(1, 1)] if method == 'measure' else 'a'
    name = {'ask': 'spatial_query'}.get(method, method)
    start_s = time.monotonic()
    with pytest.raises(NoAnswerError, match=f'/elsewhere/depthvlm/{name} has not appeared'):
        getattr(client, method)(argument)
    assert 0.4 <= time.monotonic() - start_s < 10
    future = getattr(client, f'{method}_async')(argument)
    future = getattr(future, 'future', future)
    with spun(planner):
        assert wait_until(future.done)
    assert isinstance(future.exception(), NoAnswerError)
    client.destroy()


def test_a_node_that_comes_later_is_asked_then(ros, planner, client):
    future = client.ask_async('a')
    with spun(planner):
        time.sleep(0.3)
        assert not future.done()
        actor = Actor(ros)
        with spun(actor):
            assert wait_until(future.done)
        actor.action.destroy()
        actor.destroy_node()
    assert future.result().answer == 'You asked: a'


def test_a_node_that_says_nothing_is_waited_for_so_long(actor, planner, client, monkeypatch):
    monkeypatch.setattr(asking, 'GRACE_S', 0.3)
    assert client.ask('first').status == STATUS.OK
    actor.pause_s = 5.0
    start_s = time.monotonic()
    with pytest.raises(NoAnswerError, match='spatial_query did not answer in 0.8 s'):
        client.ask('a', timeout_s=0.5)
    assert 0.8 <= time.monotonic() - start_s < 4.5
    assert wait_until(lambda: not client._query._pending_requests)


def test_a_node_that_goes_away_is_not_waited_for(ros, planner, client, monkeypatch):
    monkeypatch.setattr(calling, 'GONE_S', 0.5)
    actor = Actor(ros)
    actor.word_s = 3.0
    with spun(actor):
        answer = client.answer_async('a')
        with spun(planner):
            assert wait_until(lambda: answer.tokens)
            actor.action.destroy()
            assert wait_until(answer.future.done)
    actor.destroy_node()
    assert 'went away' in str(answer.future.exception())


def test_an_executor_that_does_not_come_around_is_told(actor, planner, client, monkeypatch):
    monkeypatch.setattr(asking, 'GRACE_S', 0.1)
    client._wait_s = 0.2
    executor = SingleThreadedExecutor(context=planner.context)
    executor.add_node(planner)
    with pytest.raises(NoAnswerError, match='does not come around'):
        client.ask('a', timeout_s=0.1)
    executor.remove_node(planner)
    executor.shutdown()


def test_words_come_as_they_grow(actor, planner, client):
    actor.word_s = 0.1
    heard = []
    with spun(planner):
        result = client.answer('a', heard.append, pixels=[(3, 4)])
    assert heard[-1] == WORDS[-1]
    assert heard == [text for text in WORDS if text in heard]
    assert len(heard) > 1
    assert (result.answer, result.tokens, result.status) == (WORDS[-1], 4, STATUS.OK)
    assert result.references[0].pixel == Pixel(u=3.0, v=4.0)


def test_an_answer_that_is_cancelled_keeps_its_words(actor, planner, client):
    actor.word_s = 0.3
    with spun(planner):
        answer = client.answer_async('a')
        assert wait_until(lambda: answer.tokens)
        answer.cancel()
        assert wait_until(answer.future.done)
    result = answer.future.result()
    assert result.status == STATUS.CANCELLED
    assert result.answer in WORDS[:-1]


def test_an_answer_that_is_cancelled_at_once_is_cancelled(actor, planner, client):
    actor.word_s = 0.3
    answer = client.answer_async('a')
    answer.cancel()
    with spun(planner):
        assert wait_until(answer.future.done)
    assert answer.future.result().status == STATUS.CANCELLED


@pytest.mark.parametrize(('fields', 'named'), [
    ({'box': (1, 2, 3)}, 'box'), ({'max_tokens': -1}, 'max_tokens'),
    ({'timeout_s': 0}, 'timeout_s'), ({'timeout_s': math.nan}, 'timeout_s'),
    ({'max_age_s': -1}, 'max_age_s'), ({'max_age_s': math.inf}, 'max_age_s'),
    ({'question': 'far\ud800?'}, 'question'), ({'question': 7}, 'question'),
    ({'target_frame': '\udcff'}, 'target_frame'), ({'camera': '\udcff'}, 'camera')])
def test_what_no_request_can_hold_is_refused(client, fields, named):
    with pytest.raises(ValueError, match=f'^{named} is .*wanted'):
        client.ask_async(**{'question': 'a', **fields})
    with pytest.raises(ValueError, match=f'^{named} is .*wanted'):
        client.answer_async(**{'question': 'a', **fields})


@pytest.mark.parametrize('field', ['target_frame', 'camera'])
def test_what_no_measurement_can_hold_is_refused(client, field):
    with pytest.raises(ValueError, match=f'^{field} is .*wanted'):
        client.measure_async([(1, 1)], **{field: '\udcff'})


def test_what_cannot_be_sent_ends_its_own_call_alone(actor, planner, client):
    def send(call):
        raise OSError('no way out')
    future = Future()
    with spun(planner):
        client._calls.add(calling.Call('it', lambda: True, send, lambda: None, future, 1.0, 1.0))
        assert wait_until(future.done)
        assert str(future.exception()) == 'no way out'
        assert client.ask('a').status == STATUS.OK


def test_the_real_node_answers(make_depth_node, planner, client):
    make_depth_node()
    with spun(planner):
        response = client.ask('How far is the red box?')
    assert response.status == STATUS.INACTIVE


def start(*arguments):
    """Run the command as a person does."""
    return subprocess.Popen(
        [sys.executable, '-m', 'depthvlm_ros.nodes.ask', *arguments], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, 'PYTHONUNBUFFERED': '1'})


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


def test_ros_arguments_go_through(actor):
    code, output, _ = run('a', '--wait', '30', '--node', 'eyes', '--ros-args',
                          '-r', 'eyes/spatial_query:=/depthvlm/spatial_query')
    assert (code, output.splitlines()[0]) == (0, 'You asked: a')


def test_the_command_streams(actor):
    actor.word_s = 0.2
    code, output, errors = run('a', '--stream', '--wait', '30')
    assert (code, errors) == (0, '')
    assert output.splitlines()[0] == WORDS[-1]


def test_interrupted_the_command_cancels_its_goal(actor):
    actor.word_s = 2.0
    process = start('a', '--stream', '--wait', '30')
    try:
        assert process.stdout.read(4) == WORDS[0]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert 'ask: interrupted' in errors
    # Of rclpy's finalizers alone: what is raised in one is printed and goes no further.
    assert errors.count('Traceback') == errors.count('Exception ignored in: <function Future'), (
        errors)
    assert actor.cancelled.wait(10)


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
