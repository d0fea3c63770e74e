# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
import itertools
import math
import subprocess
import sys
import time

from action_msgs.msg import GoalStatus
from builtin_interfaces.msg import Duration, Time
from depthvlm_ros.action import AnswerQuery
from depthvlm_ros.msg import Pixel, SpatialAnswer
from depthvlm_ros.srv import SpatialQuery
import pytest

pytestmark = pytest.mark.ros

STATUS = AnswerQuery.Result
ABORTED, CANCELED = GoalStatus.STATUS_ABORTED, GoalStatus.STATUS_CANCELED
SUCCEEDED = GoalStatus.STATUS_SUCCEEDED
WORDS = 'How far is the red box?'
RESPONSE_FIELDS = SpatialQuery.Response.get_fields_and_field_types()


class Goals:
    """A client of the action."""

    def __init__(self, robot, client):
        self._robot, self._client = robot, client

    def send(self, question=WORDS, **fields):
        """Send a goal and return it once it was accepted."""
        return Goal(self._robot, self._client, AnswerQuery.Goal(question=question, **fields))


class Goal:
    """A goal that was accepted; feedback and ended_s are kept as they come."""

    def __init__(self, robot, client, goal):
        self._until, self.feedback, self.ended_s = robot.until, [], None
        accepted = client.send_goal_async(
            goal, feedback_callback=lambda message: self.feedback.append(message.feedback))
        assert self._until(accepted.done)
        self.handle = accepted.result()
        assert self.handle.accepted
        self._result = self.handle.get_result_async()
        self._result.add_done_callback(lambda _: setattr(self, 'ended_s', time.monotonic()))

    @property
    def done(self):
        return self._result.done()

    def end(self, timeout_s=60.0):
        """Return the goal's status and its result."""
        assert self._until(lambda: self.ended_s is not None, timeout_s), 'no result'
        return self._result.result().status, self._result.result().result

    def streams(self, tokens=1):
        """Wait until so many tokens have come."""
        assert self._until(lambda: self.feedback and self.feedback[-1].tokens >= tokens)


@pytest.fixture
def make_goals(make_action_client):
    return lambda robot: Goals(robot, make_action_client())


@pytest.fixture
def ready(active, make_goals):
    """Return a function that makes an active node with an image, a robot, and its client."""
    def make(**options):
        node, robot = active(**options)
        goals = make_goals(robot)
        robot.show(node)
        return node, robot, goals
    return make


def count_tokens(node):
    """Return a list that grows with every token that is decoded from now on."""
    tokens = []
    node._predictor.model.lm_head.register_forward_hook(lambda *_: tokens.append(1))
    return tokens


def test_it_exists_from_the_start_and_says_inactive(make_depth_node, make_robot, make_goals):
    node, robot = make_depth_node(), make_robot()
    goals = make_goals(robot)
    status, result = goals.send().end()
    assert (status, result.status) == (ABORTED, STATUS.INACTIVE)
    assert 'unconfigured' in result.message
    node.trigger_configure()
    node.trigger_activate()
    status, result = goals.send().end()
    assert (status, result.status) == (ABORTED, STATUS.NO_IMAGE)


def test_the_result_is_the_services_response(ready):
    _, robot, goals = ready()
    fields = {'pixels': [Pixel(u=5.0, v=6.0)], 'box': [1.0, 2.0, 30.0, 40.0], 'max_tokens': 12}
    response = robot.ask(**fields)
    status, result = goals.send(**fields).end()
    assert (status, result.status, result.tokens) == (SUCCEEDED, STATUS.OK, 12)
    assert len(result.references) >= 2
    for name in RESPONSE_FIELDS:
        if name != 'latency':
            assert getattr(result, name) == getattr(response, name), name
    assert result.latency.sec + result.latency.nanosec * 1e-9 > 0


@pytest.mark.parametrize(('fields', 'expected'), [
    ({'question': ''}, STATUS.BAD_QUESTION), ({'pixels': [Pixel(u=-1.0)]}, STATUS.BAD_PIXEL),
    ({'camera': 'rear'}, STATUS.NO_IMAGE),
    ({'max_age': Duration(sec=1)}, STATUS.STALE_IMAGE)])
def test_what_is_refused_aborts_with_its_status(ready, fields, expected):
    _, _, goals = ready()
    status, result = goals.send(**fields).end()
    assert (status, result.status) == (ABORTED, expected)
    assert result.message


def test_feedback_is_the_whole_text_so_far_once_a_token(ready):
    node, robot, goals = ready()
    sent, calls = [], itertools.count()

    def pace(*_):   # a client that is held up would lose some
        number = next(calls)
        robot.until(lambda: sent and (number < 4 or (
            sent[0].feedback and sent[0].feedback[-1].tokens >= number - 3)), 5.0)
    node._predictor.model.lm_head.register_forward_hook(pace)
    tell = node._questions.waiting.tell

    def tell_late(*words):  # a client forgets the feedback that its result overtakes
        robot.until(lambda: sent[0].feedback and sent[0].feedback[-1].tokens == 30)
        tell(*words)
    node._questions.waiting.tell = tell_late
    goal = goals.send(max_tokens=30)
    sent.append(goal)
    _, result = goal.end()
    assert robot.until(lambda: goal.feedback[-1].tokens == 30)
    assert goal.feedback[-1].text == result.answer
    tokens = [feedback.tokens for feedback in goal.feedback]
    assert tokens == sorted(set(tokens)), 'never twice for one token'
    assert max(b - a for a, b in zip([0, *tokens], tokens)) <= 4, 'every few tokens at least'
    texts = [feedback.text for feedback in goal.feedback]
    assert all(len(a) <= len(b) for a, b in zip(texts, texts[1:]))
    assert len(set(texts)) > 10


def test_cancelling_stops_within_a_token_and_keeps_the_words(ready, hold):
    node, robot, goals = ready()
    tokens, gate = count_tokens(node), hold(node, 'token', after=8)
    goal = goals.send(max_tokens=1000)
    goal.streams(tokens=2)
    cancelled = goal.handle.cancel_goal_async()
    assert robot.until(cancelled.done)
    assert len(cancelled.result().goals_canceling) == 1
    before = len(tokens)
    status, result = goal.end()
    gate.set()
    assert robot.until(lambda: not node.stream.worker.step_s())
    assert len(tokens) - before <= 1
    assert (status, result.status) == (CANCELED, STATUS.CANCELLED)
    assert result.message.startswith('cancelled')
    assert result.answer
    assert 2 <= result.tokens <= len(tokens)
    assert result.header.stamp == Time(sec=1)
    assert node.stream.worker.open_questions == 0
    assert robot.ask().status == SpatialQuery.Response.OK


def test_cancelling_works_while_the_model_is_in_a_long_pass(ready, hold):
    node, robot, goals = ready()
    hold(node)
    goal = goals.send()
    assert robot.until(lambda: node.stream.worker.open_questions == 1)
    assert robot.until(goal.handle.cancel_goal_async().done)
    status, result = goal.end()
    assert (status, result.status, result.answer) == (CANCELED, STATUS.CANCELLED, '')


def test_a_full_queue_accepts_and_aborts_with_busy(ready, slow_down):
    node, robot, goals = ready(max_questions=1)
    slow_down(node, token_s=0.1)
    first = goals.send(max_tokens=1000)
    first.streams()
    status, result = goals.send().end()
    assert (status, result.status) == (ABORTED, STATUS.BUSY)
    assert 'ask later' in result.message
    assert not first.done
    assert robot.until(first.handle.cancel_goal_async().done)
    assert first.end()[0] == CANCELED
    assert goals.send(max_tokens=1).end()[0] == SUCCEEDED


def test_a_timeout_aborts_with_the_words_so_far(ready, hold):
    node, robot, goals = ready()
    assert robot.ask().status == SpatialQuery.Response.OK
    hold(node, 'token', after=9)
    goal = goals.send(max_tokens=1000, timeout=Duration(sec=600))
    goal.streams()
    node.stream.worker.end_overdue(math.inf)
    status, result = goal.end()
    assert (status, result.status) == (ABORTED, STATUS.TIMEOUT)
    assert result.answer
    assert 1 <= result.tokens <= 10


def test_a_failing_model_aborts_and_the_node_goes_on(ready):
    node, _, goals = ready()

    def fail(*_):
        raise RuntimeError('out of memory')
    hook = node._predictor.model.lm_head.register_forward_hook(fail)
    status, result = goals.send().end()
    assert (status, result.status) == (ABORTED, STATUS.MODEL_FAILURE)
    assert 'out of memory' in result.message
    hook.remove()
    assert goals.send().end()[0] == SUCCEEDED


@pytest.mark.parametrize('end', ['trigger_deactivate', 'shut_down'])
def test_ending_the_node_in_mid_answer_aborts_with_the_words_so_far(ready, slow_down, end):
    node, _, goals = ready()
    slow_down(node, token_s=0.1)
    all_goals = [goals.send(max_tokens=1000) for _ in range(3)]
    for goal in all_goals:
        goal.streams()
    if end == 'shut_down':
        assert node.shut_down(60.0)
    else:
        assert node.trigger_deactivate().name == 'SUCCESS'
    for goal in all_goals:
        status, result = goal.end()
        assert (status, result.status) == (ABORTED, STATUS.CANCELLED)
        assert 'deactivated' in result.message
        assert result.answer


def test_a_client_that_dies_in_mid_answer_frees_its_place(ready, hold):
    node, robot, goals = ready(max_questions=1)
    gate = hold(node, 'token', after=2)
    script = ('import rclpy; from depthvlm_ros.action import AnswerQuery; '
              'from rclpy.action import ActionClient; rclpy.init(); '
              'n = rclpy.create_node("doomed"); '
              'c = ActionClient(n, AnswerQuery, "depthvlm/answer"); '
              'assert c.wait_for_server(60.0); '
              'f = c.send_goal_async(AnswerQuery.Goal(question="How far?", max_tokens=25)); '
              'rclpy.spin_until_future_complete(n, f, timeout_sec=60.0); '
              'rclpy.spin_until_future_complete(n, f.result().get_result_async())')
    with subprocess.Popen([sys.executable, '-c', script]) as process:
        try:
            assert robot.until(lambda: node.stream.worker.open_questions == 1, 60.0)
            time.sleep(0.3)
        finally:
            process.kill()
    assert goals.send().end()[1].status == STATUS.BUSY
    gate.set()
    assert robot.until(lambda: node.stream.worker.open_questions == 0)
    assert goals.send(max_tokens=1).end()[0] == SUCCEEDED


def test_two_clients_are_served_in_turn_and_a_short_one_is_not_held_up(ready, make_goals, hold):
    node, robot, goals = ready()
    others, gate, worker, turns = make_goals(robot), hold(node), node.stream.worker, []
    step = worker._step

    def noted(question):
        turns.append(question.max_tokens)
        return step(question)
    worker._step = noted
    first, second = goals.send(max_tokens=40), others.send(max_tokens=41)
    short = goals.send(max_tokens=3)
    assert robot.until(lambda: worker.open_questions == 3)
    gate.set()
    assert [goal.end()[1].tokens for goal in (short, first, second)] == [3, 40, 41]
    last = {tokens: len(turns) - turns[::-1].index(tokens) for tokens in (3, 40, 41)}
    assert last[3] <= 15, turns
    both = turns[last[3]:last[40]]
    assert all(one != other for one, other in zip(both, both[1:])), turns


def test_goals_are_published_with_their_answers(ready):
    node, robot, goals = ready(topics=[('depthvlm/answers', SpatialAnswer)])
    assert robot.until(lambda: node.stream.answers.get_subscription_count() == 1)
    _, result = goals.send(pixels=[Pixel(u=1.0, v=1.0)]).end()
    assert robot.until(lambda: robot.got['depthvlm/answers'])
    published, = robot.got['depthvlm/answers']
    assert published.question == WORDS
    for name in RESPONSE_FIELDS:
        assert getattr(published, name) == getattr(result, name), name


def test_a_result_can_be_fetched_after_the_end(ready):
    _, robot, goals = ready()
    goal = goals.send()
    _, result = goal.end()
    again = goal.handle.get_result_async()
    assert robot.until(again.done)
    assert again.result().result == result
