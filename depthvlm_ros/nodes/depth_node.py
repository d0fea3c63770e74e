# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The node `depthvlm`: images in; metric depth, clouds and answers to spatial questions out."""

from __future__ import annotations

import functools
import os
import sys
import threading
import time
import traceback

from depthvlm_ros.camera import forget_rectifications
from depthvlm_ros.nodes import parameters
from depthvlm_ros.nodes.answering import Answering
from depthvlm_ros.nodes.installation import pip_install
from depthvlm_ros.nodes.lane import LOG_THROTTLE_S
from depthvlm_ros.nodes.measuring import Measuring
from depthvlm_ros.nodes.memory import give_back, give_back_device, settle_malloc
from depthvlm_ros.nodes.questions import Questions
from depthvlm_ros.nodes.reporting import Reporting
from depthvlm_ros.nodes.signals import StopRequest
from depthvlm_ros.nodes.spinning import PoolExecutor, spin
from depthvlm_ros.nodes.stream import Stream
from depthvlm_ros.nodes.worker import ModelThread
import rclpy
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.exceptions import NameValidationException, ParameterException
from rclpy.lifecycle import LifecycleNode, LifecycleNodeMixin, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from std_srvs.srv import SetBool

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
ERROR = TransitionCallbackReturn.ERROR

STOP_S = 4.0                # ros2 launch sends SIGTERM 5 s after SIGINT
DEACTIVATE_S = 20.0         # for a pass under way to end; a large model on a CPU takes long
ANSWERS_S = 0.5             # to answer questions that were ended
SEND_S = 0.1                # for the executor to send such answers off
CPU_WEIGHTS = 1e9           # with more, a pass on a CPU takes minutes


def transition(callback):
    """Log and keep what a lifecycle callback raises, which rclpy would swallow; return ERROR."""
    @functools.wraps(callback)
    def logged(self, state):
        try:
            return callback(self, state)
        except Exception as error:  # a ROS callback: log it, and let on_error clean up
            self.fault = f'{callback.__name__} failed: {type(error).__name__}: {error}'
            self.get_logger().error(f'{callback.__name__} failed:\n{traceback.format_exc()}')
            return ERROR
    return logged


class DepthNode(LifecycleNode):
    """
    A managed node around one model.

    Configure loads the model, activate connects, deactivate disconnects, cleanup frees the model.
    Services and the action exist from the start and say INACTIVE while the node is not active.
    """

    def __init__(self, **options):
        Node.__init__(self, 'depthvlm', **options)
        # As LifecycleNode does, but with a group of its own: transitions may take long, and
        # neither parameters nor questions shall wait for them.
        self._transitions = MutuallyExclusiveCallbackGroup()
        LifecycleNodeMixin.__init__(self, callback_group=self._transitions)
        self._answer_during_transitions()
        self._refuse_impossible_transitions()
        parameters.declare(self)
        parameters.warn_of_unknown(self)
        self.add_on_set_parameters_callback(
            lambda changes: parameters.check(self, changes, self.state))
        self.stream: Stream | None = None
        self.fault = ''         # why it is not active, where something broke
        self._predictor = None
        self._model_thread = ModelThread()
        self._hangs = False
        self.abandoned = False      # whether a thread was ever left behind in the model
        self._questions = Questions(self)
        self._answering = Answering(self, self._questions)
        Measuring(self, self._questions)
        Reporting(self)
        self.create_service(SetBool, '~/enable', self._on_enable,
                            callback_group=ReentrantCallbackGroup())
        self._jump = self.get_clock().create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1),
                          on_clock_change=True), post_callback=self._on_time_jump)
        self._stopped = threading.Event()
        self._stop = self.create_guard_condition(self._on_stop, self._transitions)
        self._hang = self.create_guard_condition(self._on_hang, self._transitions)
        self._autostart = self.create_timer(
            0.0, self._on_autostart, callback_group=self._transitions,
            clock=Clock(clock_type=ClockType.STEADY_TIME))
        if not self.value('autostart'):
            self._autostart.cancel()
            self.get_logger().info('unconfigured: configure and activate it, or start it with the '
                                   'parameter autostart')

    def _answer_during_transitions(self) -> None:
        """Let whoever asks for the state be answered while a transition takes its time."""
        group = ReentrantCallbackGroup()
        for name in ('state', 'available_states', 'available_transitions', 'transition_graph'):
            service = getattr(self, f'_service_get_{name}', None)   # rclpy has no public way
            if service is not None:
                service.callback_group = group
                group.add_entity(service)

    def _refuse_impossible_transitions(self) -> None:
        """Answer whoever wants one; before Kilted rclpy raises, and answers nobody."""
        service = getattr(self, '_service_change_state', None)  # as above
        if service is None:
            return
        change = service.callback

        def changed(request, response):
            try:
                return change(request, response)
            except RuntimeError as error:   # of rcl
                self.get_logger().error(f'while {self.state}: {error}')
                response.success = False
                return response
        service.callback = changed

    @property
    def state(self) -> str:
        """Return the lifecycle state: 'unconfigured', 'inactive', 'active' or a transition."""
        return self._state_machine.current_state[1]

    @property
    def inactive_reason(self) -> str:
        """Say what to do while the node is not active."""
        todo = {'unconfigured': 'configure and activate it', 'inactive': 'activate it',
                'finalized': 'start its process again'}
        return f'the node is {self.state}, wanted active: {todo.get(self.state, "wait for that")}'

    def value(self, name: str):
        """Return a parameter's value."""
        return self.get_parameter(name).value

    @transition
    def on_configure(self, state) -> TransitionCallbackReturn:
        """Load the model; FAILURE, with a log line that says what to do, if that cannot be."""
        self.fault, name = '', self.value('model')
        self.get_logger().info(f'loading the model {name!r}')
        start_s = time.monotonic()
        try:
            from depthvlm_ros.model import Predictor
            from depthvlm_ros.model.checkpoint import is_hub_id, local_folder
            from transformers.utils import logging
        except Exception as error:  # one that is too old, or broken, may raise anything
            return self._failed(
                f'Python packages that the model needs are missing, too old or broken '
                f'({type(error).__name__}: {error}). This is {sys.executable}: if a virtual '
                'environment has them, activate it first, or give python:= to the launch file; '
                f'else, for what requirements.txt of depthvlm_ros lists: {pip_install()} ... '
                'ros2 run depthvlm_ros doctor looks at each')
        logging.disable_progress_bar()      # a log has no use for it
        failed = ''
        try:
            if is_hub_id(name) and local_folder(name, self.value('revision')) is None:
                self.get_logger().info(
                    f'{name} is not here yet and is fetched from the hub (the 4B: about 9 GB); '
                    f'that may take long, and "hf download {name}" does it beforehand')
            self._predictor = Predictor.from_pretrained(
                name, device=self.value('device'), dtype=self.value('dtype'),
                revision=self.value('revision') or None,
                max_image_tokens=self.value('max_image_tokens'),
                quantise=self.value('quantise'))
        except Exception as error:  # files, hub, device: each text says its own
            failed = (
                f'the model {name!r} cannot be loaded: {type(error).__name__}: {error}. Set the '
                "parameter model to 'nano' (embedded), a checkpoint folder or a hub id, and "
                'device to one that is there; then configure again')
        if failed:      # behind the error, which holds what there is of the model
            give_back_device()
            return self._failed(failed)
        self.get_logger().info(
            f'model {name!r} on {self._predictor.device}, loaded in '
            f'{time.monotonic() - start_s:.1f} s')
        weights = sum(weight.numel() for weight in self._predictor.model.parameters())
        if self._predictor.device.type == 'cpu' and weights > CPU_WEIGHTS:
            self.get_logger().warning(
                f'{weights / 1e9:.1f} billion weights on a CPU: an image may take minutes, longer '
                "than hang_timeout; take a GPU, or the model 'nano'")
        return SUCCESS

    def _failed(self, text: str) -> TransitionCallbackReturn:
        """Log and keep why the node cannot be configured."""
        self.fault = text
        self.get_logger().error(text)
        return FAILURE

    @transition
    def on_activate(self, state) -> TransitionCallbackReturn:
        """Connect."""
        self._hangs = False
        self.stream = Stream(self, self._predictor, self._model_thread, self._hang.trigger)
        parameters.warn_of_unknown_qos(self)
        self.get_logger().info(f'active, waiting for images on {", ".join(self.stream.topics)}')
        return SUCCESS

    @transition
    def on_deactivate(self, state) -> TransitionCallbackReturn:
        """Disconnect; open questions are answered CANCELLED."""
        if not self._disconnect(0.0 if self._hangs else DEACTIVATE_S):
            return ERROR
        self._hangs, self.fault = False, ''     # should it have come back in the last moment
        self.get_logger().info('inactive')
        return SUCCESS

    @transition
    def on_cleanup(self, state) -> TransitionCallbackReturn:
        """Free the model."""
        self._free()
        return SUCCESS

    @transition
    def on_shutdown(self, state) -> TransitionCallbackReturn:
        """Disconnect and free everything, from any state."""
        self._disconnect(0.0 if self._hangs else DEACTIVATE_S)
        self._free()
        return SUCCESS      # a thread that hangs in the model is left behind, as the log says

    @transition
    def on_error(self, state) -> TransitionCallbackReturn:
        """Disconnect and free everything, so that the node can be configured again."""
        self._disconnect()
        self._free()
        self.fault = self.fault or 'a transition failed, see the log'
        self.get_logger().error('back to unconfigured after an error; configure again')
        return SUCCESS

    def shut_down(self, timeout_s: float) -> bool:
        """
        Go through the shutdown transition, from any thread while the executor spins.

        :return: whether that ended within timeout_s, all questions told.
        """
        self._stop.trigger()
        ended = self._stopped.wait(timeout_s)
        self._questions.waiting.until_none(ANSWERS_S)
        time.sleep(SEND_S)
        return ended

    def destroy_node(self) -> None:
        """Free everything, whatever the state."""
        self._disconnect()
        self._free()
        self._answering.destroy()
        self._model_thread.run(None)
        super().destroy_node()

    def _disconnect(self, timeout_s: float = STOP_S) -> bool:
        """Undo on_activate; return False where the worker hangs."""
        stream, self.stream = self.stream, None
        if stream is None:
            return True
        ended = stream.stop(timeout_s)
        if not ended:   # what hangs keeps its thread, should it ever come back
            self._hangs = self.abandoned = True
            self._model_thread.run(None)
            self._model_thread = ModelThread()
        self._questions.waiting.until_none(ANSWERS_S)
        stream.close()
        del stream
        give_back()
        return ended

    def _free(self) -> None:
        """Undo on_configure."""
        if self._predictor is not None:
            if not self._hangs:     # a device that hangs would be waited for without end
                self._predictor.close()
            self._predictor, self._hangs = None, False
            forget_rectifications()
            give_back()

    def _on_autostart(self) -> None:
        self._autostart.cancel()
        if self.state != 'unconfigured':
            return      # somebody was faster
        if self.trigger_configure() == SUCCESS:
            self.trigger_activate()

    def _on_hang(self) -> None:
        """Leave the active state without waiting for a model that has not come back."""
        stream = self.stream
        if self.state == 'active' and stream is not None and stream.hangs():
            self._hangs = True
            self.fault = 'the model did not come back (hang_timeout)'
            self.trigger_deactivate()

    def _on_stop(self) -> None:
        try:
            if self.state != 'finalized':
                self.trigger_shutdown()
        finally:
            self._stopped.set()

    def _on_time_jump(self, jump) -> None:
        """Drop what was received before time jumped back, as a looping bag makes it."""
        stream = self.stream
        if stream is not None:
            stream.forget()

    def _on_enable(self, request, response):
        """Pause or resume the depth stream."""
        stream = self.stream
        if stream is None:
            response.success, response.message = False, self.inactive_reason
            return response
        stream.enable(request.data)
        response.success = True
        response.message = 'depth is streamed' if request.data else 'depth is paused'
        return response


def main(args=None) -> None:
    """Run the node until SIGINT or SIGTERM; leaves with 1 if it or its executor broke."""
    settle_malloc()
    stop = StopRequest()
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        node = DepthNode()
    except (ValueError, ParameterException, NameValidationException, RuntimeError) as error:
        sys.stderr.write(f'depthvlm: {error}\n')
        raise SystemExit(1) from error

    def failed(error):  # rclpy's own callbacks raise at some malformed requests
        node.get_logger().error(
            f'a callback failed:\n{"".join(traceback.format_exception(error))}',
            throttle_duration_sec=LOG_THROTTLE_S)
        stream = node.stream
        if stream is not None:
            stream.first.statistics.tell(f'a callback failed: {type(error).__name__}: {error}')

    executor = PoolExecutor(on_failure=failed)
    executor.add_node(node)
    broken = []

    def run():
        try:
            spin(executor)
        except Exception:  # whatever it was, it is logged and ends the process
            broken.append(True)
            node.get_logger().fatal(f'the executor broke:\n{traceback.format_exc()}')
        finally:
            stop.stop()

    spinning = threading.Thread(target=run, name='executor', daemon=True)
    spinning.start()
    stop.wait()
    ended = not broken and node.shut_down(STOP_S)
    if not ended:
        # A thread that hangs in the model would keep the interpreter from ending.
        node.get_logger().error('leaving without waiting for the model')
        sys.stderr.flush()
        os._exit(1 if broken else 0)
    executor.shutdown(timeout_sec=1.0)
    spinning.join(1.0)
    node.destroy_node()
    rclpy.try_shutdown()
    if node.abandoned:      # a thread in the model's code would abort the interpreter at its end
        sys.stderr.flush()
        os._exit(0)


if __name__ == '__main__':
    main()
