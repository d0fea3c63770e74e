# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The client, as planners import it, against a scripted node."""

import contextlib
import math
from pathlib import Path
import threading
import time

from builtin_interfaces.msg import Duration
from depthvlm_ros.msg import Pixel
from depthvlm_ros.nodes import asking, calling
from depthvlm_ros.nodes.asking import NoAnswerError, SpatialClient
from depthvlm_ros.srv import SpatialQuery
import pytest
from rclpy.client import Client
from rclpy.executors import MultiThreadedExecutor, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.task import Future

pytestmark = pytest.mark.ros

ROOT = Path(__file__).parents[2]
STATUS = SpatialQuery.Response
PATIENCE_S = 60.0


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
    assert client.answer('b').answer == actor.words[-1]
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
    assert got == ['You asked: a', [1.5], actor.words[-1]]


@pytest.mark.parametrize('method', ['ask', 'measure', 'answer'])
def test_a_node_that_is_not_there_is_named_in_time(planner, method):
    client = SpatialClient(planner, '/elsewhere/depthvlm', wait_s=0.4)
    argument = [(1, 1)] if method == 'measure' else 'a'
    name = {'ask': 'spatial_query'}.get(method, method)
    start_s = time.monotonic()
    with pytest.raises(NoAnswerError, match=f'/elsewhere/depthvlm/{name} has not appeared'):
        getattr(client, method)(argument)
    assert time.monotonic() - start_s >= 0.4
    future = getattr(client, f'{method}_async')(argument)
    future = getattr(future, 'future', future)
    with spun(planner):
        assert wait_until(future.done)
    assert isinstance(future.exception(), NoAnswerError)
    client.destroy()


def test_a_node_that_comes_later_is_asked_then(make_actor, planner, client):
    future = client.ask_async('a')
    with spun(planner):
        time.sleep(0.3)
        assert not future.done()
        actor = make_actor()
        with spun(actor):
            assert wait_until(future.done)
        actor.action.destroy()
        actor.destroy_node()
    assert future.result().answer == 'You asked: a'


def test_a_node_that_says_nothing_is_waited_for_so_long(actor, planner, client, monkeypatch):
    monkeypatch.setattr(asking, 'GRACE_S', 0.3)
    assert client.ask('first').status == STATUS.OK
    actor.go_on.clear()
    with pytest.raises(NoAnswerError, match='spatial_query did not answer in 0.8 s'):
        client.ask('a', timeout_s=0.5)
    actor.go_on.set()
    assert wait_until(lambda: not client._query._pending_requests)


def test_a_node_that_goes_away_is_not_waited_for(make_actor, planner, client, monkeypatch):
    monkeypatch.setattr(calling, 'GONE_S', 0.5)
    actor = make_actor()
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


def test_clients_that_do_not_tell_their_names_as_before_rclpy_5(actor, planner, monkeypatch):
    monkeypatch.delattr(Client, 'service_name')
    client = SpatialClient(planner)
    try:
        assert client.ask('Is it there?').status == STATUS.OK
    finally:
        client.destroy()


def test_a_client_can_be_destroyed_twice(planner):
    client = SpatialClient(planner)
    client.destroy()
    client.destroy()


def test_words_come_as_they_grow(actor, planner, client):
    heard = []
    # A client forgets the words that the result overtakes.
    actor.before_next = lambda text: wait_until(lambda: heard[-1:] == [text])
    with spun(planner):
        result = client.answer('a', heard.append, pixels=[(3, 4)])
    assert heard[-1] == actor.words[-1]
    assert heard == list(actor.words)
    assert (result.answer, result.tokens, result.status) == (actor.words[-1], 4, STATUS.OK)
    assert result.references[0].pixel == Pixel(u=3.0, v=4.0)


def test_an_answer_that_is_cancelled_keeps_its_words(actor, planner, client):
    actor.word_s = 20.0
    with spun(planner):
        answer = client.answer_async('a')
        assert wait_until(lambda: answer.tokens)
        answer.cancel()
        assert wait_until(answer.future.done)
    result = answer.future.result()
    assert result.status == STATUS.CANCELLED
    assert result.answer in actor.words[:-1]


def test_an_answer_that_is_cancelled_at_once_is_cancelled(actor, planner, client):
    actor.word_s = 20.0
    answer = client.answer_async('a')
    answer.cancel()
    with spun(planner):
        assert wait_until(answer.future.done)
    assert answer.future.result().status == STATUS.CANCELLED


def test_a_goal_that_the_node_loses_has_no_answer(actor, planner, client):
    def fail(text):
        raise RuntimeError(text)
    actor.before_next = fail
    with spun(planner), pytest.raises(NoAnswerError, match='lost the goal'):
        client.answer('a')


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
