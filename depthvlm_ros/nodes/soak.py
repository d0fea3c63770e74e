# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
A long run: `make soak MINUTES=30`, or `python -m depthvlm_ros.nodes.soak --minutes 30`.

A depth node runs as a process of its own, in rounds of images, broken ones among them, and
questions; the camera dies and comes back, with camera_info by stamp and latched in turn; the node
is deactivated and cleaned up in the middle of its work. In the counted part of each round every
image must give one output of each kind, or be counted as dropped or refused. The last line is
JSON.
"""

from __future__ import annotations

import argparse
from contextlib import suppress
import json
from pathlib import Path
import signal
import sys
import tempfile
import threading
import time

from depthvlm_ros.nodes.demo.node_process import (
    NodeProcess,
    RELIABLE_INPUT,
    stay_on_this_machine,
)
from depthvlm_ros.options import up_to

DEPTH_MODULE = 'depthvlm_ros.nodes.depth_node'
COUNTED_S = 20.0        # of each round
ROUGH_S = 4.0           # of images and questions while transitions go on
AWAY_S = 1.0            # between the camera's death and its return
ASK_S = 1.0             # between questions
BROKEN_EVERY = 25       # images
LOADING_S = 1800.0
PATIENCE_S = 30.0
REPAIR_S = 60.0         # in which DDS has sent the lost pieces of large messages again
# OK; and while the node is deactivated, or has no image since: NO_IMAGE, BUSY, CANCELLED,
# INACTIVE.
EXPECTED = (0, 1, 8, 10, 11)
# So that nothing is lost between the two processes, where nobody counts it.
DEEP = {f'qos_overrides./{name}.depth': 50 for name in (
    'image.subscription', 'camera_info.subscription_any', 'depthvlm/depth/image.publisher',
    'depthvlm/depth/camera_info.publisher', 'depthvlm/depth/points.publisher',
    'depthvlm/depth/image_color.publisher')}


def say(text: str) -> None:
    """Print a line of progress."""
    print(text, file=sys.stderr, flush=True)


def resident_mb(pid: int) -> float | None:
    """Return a process's resident memory, None where it has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f'/proc/{pid}/status').read_text().splitlines():
            if line.startswith('VmRSS:'):
                return int(line.split()[1]) / 1024
    return None


class Soak:
    """
    The rounds.

    :param robot: soak_rig.Robot, which a thread spins.
    :param node: the depth node's process.
    :param rate_hz: of the images.
    :param counted_s: of each round.
    """

    def __init__(self, robot, node: NodeProcess, rate_hz: float, counted_s: float = COUNTED_S):
        self._robot, self._node = robot, node
        self._rate_hz, self._counted_s = rate_hz, counted_s
        self._sent = self._asked = 0
        self._latencies_s: list[float] = []
        self._memory_mb: list[float] = []   # after the counted part of each round
        self._streamed_s = 0.0
        self._sums = dict.fromkeys(('sent', 'published', 'dropped', 'refused', 'missing'), 0)
        self.errors: list[str] = []
        self.transitions = self.rounds = 0

    def run(self, minutes: float) -> dict:
        """Go round until the time is over, or the node's; return the figures."""
        if self._came_up():
            until_s = time.monotonic() + 60 * minutes
            while self._round():
                left_min = max(0.0, until_s - time.monotonic()) / 60
                say(f'round {self.rounds}: {self._sums["published"]} of {self._sums["sent"]} '
                    f'images, {self._sums["missing"]} outputs missing, {len(self.errors)} errors, '
                    f'{self._memory_mb[-1]:.0f} MB; {left_min:.1f} minutes left')
                if not left_min:
                    break
        if not self._alive():
            self.errors.append(f'the node ended with {self._node.exit_code} before it was told to')
        return self._figures()

    def _came_up(self) -> bool:
        """Wait until the node has loaded its model and joined; tell whether it has."""
        robot = self._robot
        self._wait_until(lambda: robot.failed_transition or robot.joined(), LOADING_S, 'joined')
        if robot.failed_transition:
            self.errors.append(f'the node did not start: it went {robot.failed_transition}')
        if self.errors or not self._alive():
            return False
        say(f'the node is up, process {self._node.pid}')
        self._wait_for_depth()      # the node may see the robot later than the robot the node
        return True

    def _round(self) -> bool:
        """Go through the phases once; tell whether the node has lived through them."""
        self.rounds += 1
        for phase in (self._counted_round, self._note_memory, self._restart_camera,
                      self._transitions_meanwhile):
            phase()
            if not self._alive():
                return False
        return True

    def _note_memory(self) -> None:
        memory_mb = resident_mb(self._node.pid)
        if memory_mb is not None:
            self._memory_mb.append(memory_mb)

    def _counted_round(self) -> None:
        """Publish and ask in peace, and hold what came against what the node says."""
        robot = self._robot
        before = robot.settled_tally(0) or {}
        robot.begin()
        begin_s = time.monotonic()
        self._stream(self._counted_s, broken=True)
        if not self._alive():
            return
        self._streamed_s += time.monotonic() - begin_s
        sent = robot.counts().sent
        after = robot.settled_tally(before.get('received', 0) + sent) or {}
        change = {name: after.get(name, 0) - before.get(name, 0) for name in after}
        if change.get('received') != sent:
            self.errors.append(f'{sent} images were sent, the node received '
                               f'{change.get("received")}')
        self._wait_until(lambda: robot.counts().complete(change.get('published', 0)), REPAIR_S)
        counts = robot.counts()
        lost = abs(len(counts.outputs) - change.get('published', 0))
        if change.get('failed'):
            self.errors.append(f'{change["failed"]} images failed')
        for name, count in (('sent', counts.sent), ('published', len(counts.outputs)),
                            ('dropped', change.get('dropped', 0)),
                            ('refused', change.get('refused', 0)),
                            ('missing', counts.missing() + lost)):
            self._sums[name] += count
        self._latencies_s += counts.latencies_s

    def _restart_camera(self) -> None:
        """Let the camera die and come back as the other kind of driver."""
        self._robot.stop_camera()
        time.sleep(AWAY_S)
        self._robot.start_camera(info_once=self.rounds % 2 == 1)
        self._wait_until(self._robot.joined, PATIENCE_S, 'joined the camera again')

    def _transitions_meanwhile(self) -> None:
        """Deactivate in the middle of images and questions; clean up too, every other round."""
        from lifecycle_msgs.msg import Transition
        streaming = threading.Thread(target=self._stream, args=(ROUGH_S,))
        streaming.start()
        time.sleep(ROUGH_S / 4)
        names = ['DEACTIVATE', 'ACTIVATE']
        if self.rounds % 2 == 0:
            names[1:1] = ['CLEANUP', 'CONFIGURE']
        for name in names:
            if not self._alive():
                break
            if not self._robot.change(getattr(Transition, f'TRANSITION_{name}')):
                self.errors.append(f'the transition {name} failed')
            self.transitions += 1
        streaming.join()
        self._wait_until(self._robot.joined, PATIENCE_S, 'joined again')
        self._wait_for_depth()

    def _wait_for_depth(self) -> None:
        """
        Publish one image at a time until the depth of the latest one comes.

        With that no image of before the count is still on its way.
        """
        for patience_s in (1.0, 2.0, 4.0, 8.0, PATIENCE_S):
            self._robot.begin()
            self._robot.send(self._sent)
            until_s = time.monotonic() + patience_s
            while time.monotonic() < until_s and self._alive():
                if any('image' in counter for counter in self._robot.counts().outputs.values()):
                    return
                time.sleep(0.05)

    def _stream(self, seconds: float, broken: bool = False) -> None:
        """Publish at the rate, and ask."""
        begin_s, number = time.monotonic(), 0
        next_ask_s = begin_s
        while (now_s := time.monotonic()) - begin_s < seconds:
            self._robot.send(self._sent, broken and number % BROKEN_EVERY == BROKEN_EVERY - 1)
            self._sent += 1
            number += 1
            if now_s >= next_ask_s:
                self._robot.ask(self._asked)
                self._asked += 1
                next_ask_s += ASK_S
            time.sleep(max(0.0, begin_s + number / self._rate_hz - time.monotonic()))

    def _wait_until(self, condition, seconds: float, what: str = '') -> None:
        """Wait for a condition while the node lives; an error where not met, if it has a name."""
        until_s = time.monotonic() + seconds
        while not condition() and self._alive():
            if time.monotonic() > until_s:
                if what:
                    self.errors.append(f'the node has not {what} within {seconds:.0f} s')
                return
            time.sleep(0.05)

    def _alive(self) -> bool:
        return self._node.exit_code is None

    def _figures(self) -> dict:
        """Return the last line's figures, None where nothing was measured."""
        import numpy as np
        p50_ms, p99_ms = ((1e3 * np.percentile(self._latencies_s, (50, 99))).tolist()
                          if self._latencies_s else (None, None))
        start_mb, end_mb = (self._memory_mb or [None])[0], (self._memory_mb or [None])[-1]
        hz = self._sums['published'] / self._streamed_s if self._streamed_s else None
        statuses = dict(self._robot.statuses)
        bad = {name: n for name, n in statuses.items() if name not in EXPECTED}
        if bad:
            self.errors.append(f'answers with unexpected statuses: {bad}')
        return {'hz': hz, 'p50_ms': p50_ms, 'p99_ms': p99_ms,
                **self._sums, 'errors': len(self.errors),
                'questions': self._asked, 'statuses': {str(k): n for k, n in statuses.items()},
                'rounds': self.rounds, 'transitions': self.transitions,
                'rss_start_mb': start_mb, 'rss_end_mb': end_mb}


def main(args: list[str] | None = None) -> int:
    """Run, and return the exit code: 0 where nothing was missing and no error came."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[1])
    parser.add_argument('--minutes', type=up_to(1440), default=30.0)
    parser.add_argument('--model', default='nano', help="'nano', a folder or a hub id")
    parser.add_argument('--device', default='auto')
    parser.add_argument('--rate', type=up_to(1000), default=4.0, metavar='HZ',
                        help='of the images')
    parser.add_argument('--counted', type=up_to(3600), default=COUNTED_S, metavar='S',
                        help='how long the counted part of each round is')
    options = parser.parse_args(args)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix='depthvlm_soak_') as folder:
        stay_on_this_machine(Path(folder))
        from depthvlm_ros.nodes.load_rig import spun  # rclpy: after the environment
        from depthvlm_ros.nodes.soak_rig import Robot
        node = NodeProcess(DEPTH_MODULE, {
            'model': options.model, 'device': options.device, 'autostart': True,
            'cloud_stride': 4, **RELIABLE_INPUT, **DEEP}, Path(folder) / 'depth_node.log')
        try:
            with spun(Robot) as robot:
                soak = Soak(robot, node, options.rate, options.counted)
                figures = soak.run(options.minutes)
        except KeyboardInterrupt:
            say('soak: interrupted')
            return 130
        finally:
            lived = node.exit_code is None
            node.stop()
        if lived and node.exit_code:
            soak.errors.append(f'the node left with {node.exit_code} when told to end')
            figures['errors'] += 1
        for error in soak.errors:
            say(f'error: {error}')
        if soak.errors:
            say(node.last_lines())
    print(json.dumps({name: round(value, 2) if isinstance(value, float) else value
                      for name, value in figures.items()}))
    return 1 if soak.errors or figures['missing'] else 0


if __name__ == '__main__':
    sys.exit(main())
