# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
What answers under way cost the depth stream: `python -m depthvlm_ros.nodes.question_load`.

A depth node runs as a process of its own; this one is its camera, its subscriber and its asker.
It finds the highest rate of images that the node alone can hold, and watches the stream at that
rate alone and with questions always open, in turn. Progress goes to stderr; the last line of
stdout is JSON.
"""

from __future__ import annotations

import argparse
from contextlib import contextmanager
import json
from pathlib import Path
import signal
import sys
import tempfile
import time

from depthvlm_ros.nodes.demo.node_process import (
    NodeProcess,
    RELIABLE_INPUT,
    stay_on_this_machine,
)
from depthvlm_ros.options import at_least, up_to

DEPTH_MODULE = 'depthvlm_ros.nodes.depth_node'
LOADING_S = 1800.0      # a large model may have to be downloaded
REPORT_S = 10.0
CHOOSING_TOKENS = 64
LOST = 0.03             # share of the images, or one, that a rate which is held may lose
FASTER, SLOWER, MOST_TRIALS = 1.1, 0.85, 10


class ExperimentError(Exception):
    """There will be no figures; the text says why."""


def say(text: str) -> None:
    """Print a line of progress."""
    print(text, file=sys.stderr, flush=True)


class Experiment:
    """
    A depth node under load.

    :param rig: load_rig.Rig, which publishes, subscribes and asks.
    :param node: the depth node's process.
    :param window_s: how long the stream is watched at a time.
    """

    def __init__(self, rig, node: NodeProcess, window_s: float):
        self._rig, self._node, self._window_s = rig, node, window_s

    def run(self, rounds: int) -> dict:
        """
        Measure everything.

        :raises ExperimentError: why that was not possible.
        """
        self._wait_for_depth()
        question = self._longest_answered()
        image_hz, capacity_hz = self._rate_held()
        alone, answering = [], []
        for turn in range(1, rounds + 1):
            say(f'round {turn} of {rounds}: {image_hz:.2f} images/s, alone')
            alone.append(self._rig.watch(image_hz, self._window_s))
            say(f'round {turn} of {rounds}: with questions')
            with self._rig.asking(question) as asked:
                answering.append(self._rig.watch(image_hz, self._window_s))
            if asked.failure:
                raise ExperimentError(f'a question failed: {asked.failure}')
        if not all(window.latencies_s for window in (*alone, *answering)):
            raise ExperimentError(f'no depth came in a window of {self._window_s:g} s: the node '
                                  'is too slow for it, wanted a longer --window')
        return {**figures(alone, answering), 'image_hz': image_hz, 'capacity_hz': capacity_hz,
                **self._rig.answered(), 'question': question}

    def _wait_for_depth(self) -> None:
        """Publish slowly until the node has loaded its model and sees."""
        start_s = said_s = time.monotonic()
        say('loading the model')
        while not self._rig.has_depth():
            self._rig.watch(2.0, 1.0, patience_s=0.0)
            now_s = time.monotonic()
            if self._node.exit_code is not None or self._rig.failed_transition:
                reason = self._rig.failed_transition or f'exit code {self._node.exit_code}'
                raise ExperimentError(f'the depth node did not come up ({reason}):\n'
                                      f'{self._node.last_lines()}')
            if now_s - start_s > LOADING_S:
                raise ExperimentError(f'no depth image in {LOADING_S:.0f} s:\n'
                                      f'{self._node.last_lines()}')
            if now_s - said_s > REPORT_S:
                said_s = now_s
                say(f'waiting for depth ({now_s - start_s:.0f} s)')

    def _longest_answered(self) -> str:
        """Return the question that gets the longest answer, of one of each kind."""
        say('looking for the question with the longest answer')
        tokens = {question: self._rig.tokens_of(question, CHOOSING_TOKENS)
                  for question in self._rig.questions}
        return max(tokens, key=tokens.get)

    def _rate_held(self) -> tuple[float, float]:
        """Return the highest rate that the node alone holds, and that of single images, in Hz."""
        capacity_hz = self._rig.one_after_the_other(self._window_s / 2)
        say(f'one image after the other: {capacity_hz:.2f} a second')
        rate_hz, held_hz = capacity_hz, None
        for _ in range(MOST_TRIALS):
            window = self._rig.watch(rate_hz, self._window_s / 2)
            lost = window.published - window.delivered
            say(f'{rate_hz:.2f} images/s: {lost} of {window.published} are lost')
            if lost <= max(1, LOST * window.published):
                held_hz, rate_hz = rate_hz, rate_hz * FASTER
            elif held_hz is not None:
                break
            else:
                rate_hz *= SLOWER
        if held_hz is None:
            raise ExperimentError(f'the node alone does not even hold {rate_hz:.2f} images/s: '
                                  'something else keeps this machine busy')
        return held_hz, capacity_hz


def figures(alone: list, answering: list) -> dict:
    """Return the windows' figures, and those under questions over those alone."""
    import numpy as np

    def of(windows):
        latencies_ms = 1e3 * np.concatenate([window.latencies_s for window in windows])
        delivered = sum(window.delivered for window in windows)
        p50, p99 = np.percentile(latencies_ms, (50, 99))
        return {'depth_hz': delivered / sum(window.seconds for window in windows),
                'p50_ms': float(p50), 'p99_ms': float(p99), 'images': delivered}
    result = {'alone': of(alone), 'answering': of(answering)}
    return {'rate_ratio': result['answering']['depth_hz'] / result['alone']['depth_hz'],
            'p99_ratio': result['answering']['p99_ms'] / result['alone']['p99_ms'], **result}


@contextmanager
def depth_node(model: str, device: str, logs: Path):
    """Give a depth node's process, which ends whatever happens."""
    node = NodeProcess(
        DEPTH_MODULE, {'model': model, 'device': device, 'autostart': True, **RELIABLE_INPUT},
        logs / 'depth_node.log')
    try:
        yield node
    finally:
        node.stop()


def main(args: list[str] | None = None) -> int:
    """Run the experiment and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[1])
    parser.add_argument('--model', default='nano', help="'nano', a folder or a hub id")
    parser.add_argument('--device', default='auto')
    parser.add_argument('--window', type=up_to(600), default=8.0, metavar='S')
    parser.add_argument('--rounds', type=at_least(1), default=3)
    options = parser.parse_args(args)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix='question_load_') as folder:
            stay_on_this_machine(Path(folder))
            from depthvlm_ros.nodes.load_rig import Rig, spun  # rclpy: after the environment
            with depth_node(options.model, options.device, Path(folder)) as node, (
                    spun(Rig)) as rig:
                result = Experiment(rig, node, options.window).run(options.rounds)
    except (ExperimentError, TimeoutError) as error:
        say(f'question_load: {error}')
        return 1
    except KeyboardInterrupt:
        say('question_load: interrupted')
        return 130
    print(json.dumps(result))
    return 0


if __name__ == '__main__':
    sys.exit(main())
