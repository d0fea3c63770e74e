# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The depth node's questions as Python functions, for planners.

    client = SpatialClient(node)
    client.ask('How far is the red box?').answer                      # blocks, bounded
    response = await client.measure_async([(320, 240), (10, 200)])    # in a coroutine of rclpy
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
import sys
import threading
import time

from action_msgs.msg import GoalStatus
from depthvlm_ros.action import AnswerQuery
from depthvlm_ros.msg import Pixel
from depthvlm_ros.nodes.calling import Call, Calls, NoAnswerError
from depthvlm_ros.nodes.queries import REQUESTS_QOS
from depthvlm_ros.srv import Measure, SpatialQuery
from rclpy.action import ActionClient
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.task import Future

__all__ = ['NoAnswerError', 'OpenAnswer', 'SpatialClient']

ANSWER_S = 60.0         # longest wait for an answer, unless told
GRACE_S = 5.0           # for an answer to travel, beyond the time that the node may take for it
CANCEL_S = 3.0          # for a cancelled answer to end
SLICE_S = 0.1           # how often a waiting thread looks around
MOST_S = 86400.0


class OpenAnswer:
    """
    An answer that comes word by word.

    `future` completes with the AnswerQuery.Result; `text` and `tokens` are what there is so far.
    """

    def __init__(self):
        self.future = Future()
        self.text = ''
        self.tokens = 0
        self._goal = None
        self._unwanted = False
        self._lock = threading.Lock()

    def cancel(self) -> None:
        """Ask the node to stop; the future then completes with CANCELLED and the words so far."""
        with self._lock:
            self._unwanted, goal = True, self._goal
        if goal is not None and goal.status not in (
                GoalStatus.STATUS_SUCCEEDED, GoalStatus.STATUS_ABORTED,
                GoalStatus.STATUS_CANCELED):
            goal.cancel_goal_async()

    def accepted(self, goal) -> None:
        """Take the goal's handle, once the node has accepted it."""
        with self._lock:
            self._goal, unwanted = goal, self._unwanted
        if unwanted:
            goal.cancel_goal_async()


class SpatialClient:
    """
    Asks a depth node, over a node of yours.

    A method that ends in `_async` returns a future at once and may be awaited in callbacks; one
    that does not blocks its thread until the answer is there. Blocking methods may be called from
    any thread while an executor spins the node in another one, and from several at once. Where the
    node belongs to no executor, they spin it themselves meanwhile, with all its callbacks; a node
    in an executor is for that one to spin. From a callback of the node's own single-threaded
    executor they would wait for themselves: that is a RuntimeError.

    What the node says, a failure too, is in the response's `status`. No response at all is a
    NoAnswerError; what keeps a request from being sent is the error in its future.

    :param node: yours; the client's services belong to it.
    :param name: the depth node's name, with its namespace; relative names start at your node's.
    :param wait_s: longest wait for the depth node to appear, in s.
    """

    def __init__(self, node: Node, name: str = 'depthvlm', wait_s: float = 5.0):
        self._node, self._wait_s = node, checked_seconds('wait_s', wait_s)
        self._destroyed = False
        self._calls = Calls(node)
        self._spinning = threading.Lock()
        group = ReentrantCallbackGroup()
        self._query = node.create_client(
            SpatialQuery, f'{name}/spatial_query', qos_profile=REQUESTS_QOS, callback_group=group)
        self._measure = node.create_client(Measure, f'{name}/measure', qos_profile=REQUESTS_QOS,
                                           callback_group=group)
        # In the group of the calls' beat, which sends goals: rclpy's action client loses an
        # acceptance that is taken while send_goal_async still runs.
        self._answer = ActionClient(
            node, AnswerQuery, f'{name}/answer', callback_group=self._calls.group)
        # The clients themselves tell their names from rclpy 5 on, later than Humble's.
        self._query_name, self._measure_name, self._answer_name = (
            node.resolve_service_name(f'{name}/{what}')
            for what in ('spatial_query', 'measure', 'answer'))

    def ask(self, question: str, **fields) -> SpatialQuery.Response:
        """
        Ask about the newest image, and wait for the answer.

        :param question: in plain words; may be empty where pixels or a box are given.
        :param fields: as those of ask_async.
        :return: the response; look at its status first.
        :raises NoAnswerError: the node is not there, or did not answer in time.
        :raises RuntimeError: called from a callback of the node's own executor; see the class.
        :raises ValueError: a field that no request can hold.
        """
        self._check_thread('ask')
        return self._result_of(self.ask_async(question, **fields))

    def ask_async(self, question: str, *, timeout_s: float = ANSWER_S, **fields) -> Future:
        """
        Ask about the newest image.

        :param question: in plain words; may be empty where pixels or a box are given.
        :param timeout_s: longest wait for the answer; what there is by then is returned.
        :param pixels: (u, v) in px of the depth image, any number.
        :param box: (u_min, v_min, u_max, v_max) in px of the depth image.
        :param target_frame: wanted for the points; '': the image's optical frame.
        :param camera: which camera; '': the only or first one.
        :param max_age_s: oldest image accepted; 0: the node's parameter max_age.
        :param max_tokens: longest answer; 0: the node's parameter max_tokens.
        :return: a future of the SpatialQuery.Response; its exception is a NoAnswerError.
        :raises ValueError: a field that no request can hold.
        """
        request = SpatialQuery.Request(**query_fields(question, timeout_s, **fields))
        return self._call_service(self._query, self._query_name, request, timeout_s)

    def measure(self, pixels: Iterable[tuple[float, float]], **fields) -> Measure.Response:
        """
        Measure points and the distances between them, without words, and wait for them.

        :param pixels: (u, v) in px of the depth image, at least one.
        :param fields: as those of measure_async.
        :return: the response; look at its status first.
        :raises NoAnswerError, RuntimeError, ValueError: as those of ask.
        """
        self._check_thread('measure')
        return self._result_of(self.measure_async(pixels, **fields))

    def measure_async(self, pixels: Iterable[tuple[float, float]], *, target_frame: str = '',
                      camera: str = '', max_age_s: float = 0.0,
                      timeout_s: float = ANSWER_S) -> Future:
        """
        Measure points and the distances between them, without words.

        :param pixels: (u, v) in px of the depth image, at least one.
        :return: a future of the Measure.Response; its exception is a NoAnswerError.
        :raises ValueError: a field that no request can hold.
        """
        request = Measure.Request(
            pixels=pixel_messages(pixels), target_frame=words('target_frame', target_frame),
            camera=words('camera', camera), max_age=checked_duration('max_age_s', max_age_s))
        return self._call_service(self._measure, self._measure_name, request, timeout_s)

    def answer(self, question: str, on_words: Callable[[str], None] | None = None,
               **fields) -> AnswerQuery.Result:
        """
        Ask through the action, hear the words as they come, and wait for the whole.

        Interrupted, by Ctrl-C for instance, it cancels the goal before it raises.

        :param on_words: called with the answer so far, whole, as it grows.
        :param fields: as those of ask_async.
        :return: the result; look at its status first.
        :raises NoAnswerError, RuntimeError, ValueError: as those of ask.
        """
        self._check_thread('answer')
        answer = self.answer_async(question, on_words, **fields)
        try:
            return self._result_of(answer.future)
        except BaseException:
            answer.cancel()
            self._wait(answer.future, CANCEL_S)
            raise

    def answer_async(self, question: str, on_words: Callable[[str], None] | None = None, *,
                     timeout_s: float = ANSWER_S, **fields) -> OpenAnswer:
        """
        Ask through the action.

        :param on_words: called by the executor with the answer so far, whole, as it grows; it
            should return quickly.
        :return: OpenAnswer, whose future's exception is a NoAnswerError.
        :raises ValueError: a field that no request can hold.
        """
        goal = AnswerQuery.Goal(**query_fields(question, timeout_s, **fields))
        answer = OpenAnswer()

        def hear(message):
            answer.text, answer.tokens = message.feedback.text, message.feedback.tokens
            if on_words is not None:
                on_words(answer.text)

        def send(call: Call):
            def on_goal(future):
                handle = future.result()
                if not handle.accepted:
                    call.fail(f'{call.what} refused the goal')
                    return
                answer.accepted(handle)
                handle.get_result_async().add_done_callback(on_result)

            def on_result(future):
                response = future.result()
                # A server that does not know the goal, or broke at it, sends an empty result.
                if (response.status != GoalStatus.STATUS_SUCCEEDED
                        and response.result.status == AnswerQuery.Result.OK):
                    call.fail(f'{call.what} lost the goal')
                else:
                    call.succeed(response.result)
            self._answer.send_goal_async(goal, hear).add_done_callback(on_goal)
        self._calls.add(Call(
            f'the action {self._answer_name}', self._answer.server_is_ready, send, answer.cancel,
            answer.future, self._wait_s, timeout_s + GRACE_S))
        return answer

    def destroy(self) -> None:
        """Withdraw the client from the node; a second time does nothing."""
        if self._destroyed:
            return
        self._destroyed = True
        self._calls.destroy()
        self._answer.destroy()
        self._node.destroy_client(self._query)
        self._node.destroy_client(self._measure)

    def _call_service(self, client, name: str, request, timeout_s: float) -> Future:
        """Call a service as soon as it is there."""
        result, sent = Future(), []

        def send(call: Call):
            def on_response(future):
                # Jazzy leaves that to the executor, which may be gone once there is an answer.
                client.remove_pending_request(future)
                call.succeed(future.result())
            sent.append(client.call_async(request))
            sent[0].add_done_callback(on_response)
        self._calls.add(Call(
            f'the service {name}', client.service_is_ready, send,
            lambda: [client.remove_pending_request(future) for future in sent],
            result, self._wait_s, checked_seconds('timeout_s', timeout_s) + GRACE_S), at_once=True)
        return result

    def _result_of(self, future: Future):
        """Wait for a future of the calls', which all end in time, and return its result."""
        if not self._wait(future, self._calls.longest_s + 2 * GRACE_S):
            raise NoAnswerError(f'node {self._node.get_name()!r} is in an executor that does not '
                                'come around: spin it in a thread of its own')
        return future.result()

    def _wait(self, future: Future, timeout_s: float) -> bool:
        """Wait in this thread; return whether the future is done."""
        done, until_s = threading.Event(), time.monotonic() + timeout_s
        future.add_done_callback(lambda _: done.set())
        while not future.done() and time.monotonic() < until_s:
            if not self._node.context.ok():
                raise NoAnswerError('rclpy was shut down while waiting')
            if self._is_spun() or not self._spinning.acquire(blocking=False):
                done.wait(SLICE_S)
                continue
            try:
                self._spin(future, until_s)
            finally:
                self._spinning.release()
        return future.done()

    def _is_spun(self) -> bool:
        """Tell whether the node is in an executor, which is somebody's to spin."""
        executor = self._node.executor
        return executor is not None and self._node in executor.get_nodes()

    def _spin(self, future: Future, until_s: float) -> None:
        """Spin the node here until the future is done, in slices that a signal can interrupt."""
        executor = SingleThreadedExecutor(context=self._node.context)
        executor.add_node(self._node)
        try:
            while (not future.done() and time.monotonic() < until_s
                   and self._node.context.ok()):
                executor.spin_once_until_future_complete(future, SLICE_S)
        finally:
            executor.remove_node(self._node)
            executor.shutdown()

    def _check_thread(self, method: str) -> None:
        """
        Refuse to wait in a callback of the single-threaded executor that would end the waiting.

        :raises RuntimeError: that, and what to do.
        """
        executor, frame = self._node.executor, sys._getframe()
        # Others have threads to spare, though they too may run callbacks in their own methods.
        while isinstance(executor, SingleThreadedExecutor) and frame is not None:
            if frame.f_locals.get('self') is executor:
                raise RuntimeError(
                    f'{method}() was called from a callback of the executor of node '
                    f'{self._node.get_name()!r}, which could then never receive the answer: '
                    f'"await client.{method}_async(...)" in an async callback, or call it from '
                    'another thread')
            frame = frame.f_back


def query_fields(question: str, timeout_s: float, *, pixels=(), box=(), target_frame: str = '',
                 camera: str = '', max_age_s: float = 0.0, max_tokens: int = 0) -> dict:
    """
    Return the fields of a SpatialQuery.Request or AnswerQuery.Goal.

    :raises ValueError: what no request can hold. Whether a place lies in the image is the node's
        to say.
    """
    box = [float(value) for value in box]
    if len(box) not in (0, 4):
        raise ValueError(f'box is {box}, wanted u_min, v_min, u_max, v_max')
    if not 0 <= max_tokens < 2 ** 32:
        raise ValueError(f'max_tokens is {max_tokens}, wanted 0 or more')
    return {'question': words('question', question), 'pixels': pixel_messages(pixels), 'box': box,
            'target_frame': words('target_frame', target_frame),
            'camera': words('camera', camera), 'max_tokens': max_tokens,
            'max_age': checked_duration('max_age_s', max_age_s),
            'timeout': checked_duration('timeout_s', timeout_s)}


def words(name: str, text: str) -> str:
    """
    Return a text that can be sent.

    :raises ValueError: no str, or one with half a surrogate pair, which UTF-8 cannot hold.
    """
    try:
        text.encode()
    except (AttributeError, UnicodeEncodeError) as error:
        raise ValueError(f'{name} is {text!r}, wanted text that UTF-8 can hold') from error
    return text


def pixel_messages(pixels: Iterable[tuple[float, float]]) -> list[Pixel]:
    """Return (u, v) pairs as messages."""
    return [Pixel(u=float(u), v=float(v)) for u, v in pixels]


def checked_duration(name: str, time_s: float):
    """Return a builtin_interfaces/Duration; raises ValueError as seconds does."""
    return Duration(nanoseconds=round(checked_seconds(name, time_s) * 1e9)).to_msg()


def checked_seconds(name: str, time_s: float) -> float:
    """
    Return a time that is one.

    :param name: max_age_s, which may be 0, or another one, which may not.
    :raises ValueError: too short, longer than a day, or no number.
    """
    least_s = 0.0 if name == 'max_age_s' else 1e-3
    if not least_s <= time_s <= MOST_S:
        raise ValueError(f'{name} is {time_s}, wanted {least_s:g} to {MOST_S:.0f} s')
    return float(time_s)
