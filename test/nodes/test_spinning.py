# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The executor of the node: each callback once, what it raises, and its end."""

from collections import Counter
import threading
import time

from depthvlm_ros.nodes.spinning import PoolExecutor, spin
import pytest
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.task import Future

pytestmark = pytest.mark.ros


@pytest.fixture
def node(ros):
    node = Node('spun', context=ros)
    yield node
    node.destroy_node()


@pytest.fixture
def run(ros):
    """Return a function that spins a node in some threads, and what it raised."""
    executors, threads, raised = [], [], []

    def start(node, threads_of_pool):
        executor = PoolExecutor(threads_of_pool, context=ros)
        executor.add_node(node)

        def until_shut_down():
            try:
                spin(executor)
            except Exception as error:
                raised.append(error)
        executors.append(executor)
        threads.append(threading.Thread(target=until_shut_down, daemon=True))
        threads[-1].start()
        return executor, raised
    yield start
    for executor, thread in zip(executors, threads):
        executor.shutdown(timeout_sec=1.0)
        thread.join(5.0)
        assert not thread.is_alive()


def soon(condition, timeout_s=10.0):
    until_s = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < until_s:
        time.sleep(0.005)
    return condition()


def guard(node, callback):
    return node.create_guard_condition(callback, ReentrantCallbackGroup())


def test_what_waits_for_a_thread_is_handed_to_the_pool_once(node, run):
    release, ran, submitted = threading.Event(), [], []
    holds = guard(node, lambda: release.wait(20.0))
    executor, _ = run(node, 1)
    submit = executor._pool.submit
    executor._pool.submit = lambda run, task: (submitted.append(task), submit(run, task))
    holds.trigger()
    assert soon(lambda: len(submitted) == 1)
    executor.create_task(ran.append, 1)
    assert soon(lambda: len(submitted) == 2)
    for _ in range(100):    # rounds, as a busy node's messages make them
        executor.wake()
        time.sleep(0.001)
    most = max(Counter(map(id, submitted)).values())
    release.set()
    assert soon(lambda: ran)
    assert most == 1
    assert ran == [1]


def test_callbacks_run_beside_each_other(node, run):
    both = threading.Barrier(2)
    passed = []

    def meet():
        passed.append(both.wait(10.0))
    one, other = guard(node, meet), guard(node, meet)
    run(node, 2)
    one.trigger()
    other.trigger()
    assert soon(lambda: len(passed) == 2)


def test_a_coroutine_goes_on_when_what_it_awaits_is_there(node, run):
    got, awaited = [], []

    async def wait():
        awaited.append(Future(executor=node.executor))
        got.append(await awaited[0])
    begin = guard(node, wait)
    executor, _ = run(node, 2)
    begin.trigger()
    assert soon(lambda: awaited)
    awaited[0].set_result('here')

    def woken():
        executor.wake()     # one alone can be missed, see nodes/waiting.py
        return got == ['here']
    assert soon(woken)


def test_where_it_is_told_somebody_what_a_callback_raises_ends_nothing(node, ros):
    told, ran = [], []

    def fail():
        raise LookupError('of the callback')
    fails, works = guard(node, fail), guard(node, lambda: ran.append(1))
    executor = PoolExecutor(2, context=ros, on_failure=told.append)
    executor.add_node(node)
    thread = threading.Thread(target=spin, args=(executor,), daemon=True)
    thread.start()
    fails.trigger()
    assert soon(lambda: told)
    works.trigger()
    assert soon(lambda: ran)
    executor.shutdown(timeout_sec=1.0)
    thread.join(5.0)
    assert [str(error) for error in told] == ['of the callback']


def test_what_a_callback_raises_ends_the_spinning(node, run):
    begun = []

    def fail():
        begun.append(1)
        time.sleep(0.2)     # until the spinning thread waits for the next callback
        raise LookupError('of the callback')
    fails = guard(node, fail)
    _, raised = run(node, 2)
    fails.trigger()
    assert soon(lambda: begun)
    assert soon(lambda: raised)
    assert str(raised[0]) == 'of the callback'
