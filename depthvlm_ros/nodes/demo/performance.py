# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What happens in the demo, from the first node's start to the last file."""

from __future__ import annotations

from argparse import Namespace
from contextlib import contextmanager, ExitStack
import json
from pathlib import Path
from tempfile import TemporaryFile
import time

import cv2
from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.nodes.calibration_sources import CameraNumbers
from depthvlm_ros.nodes.demo.cloud_file import unpack_rgb, write_ply
from depthvlm_ros.nodes.demo.node_process import NodeProcess, RELIABLE_INPUT
from depthvlm_ros.nodes.demo.picture import depth_picture
from depthvlm_ros.nodes.demo.questions import (
    is_correct,
    PHOTO_PLACES_1000,
    photo_question,
    QUESTIONS_ASKED,
    room_questions,
)
from depthvlm_ros.nodes.demo.spectator import Spectator, stamp_of
from depthvlm_ros.nodes.demo.summary import Asked, one_line, summary, table
from depthvlm_ros.nodes.image_sources import ImageSource, open_source, resized, SYNTHETIC
from depthvlm_ros.spatial import pixels_of
from depthvlm_ros.srv import SpatialQuery
from depthvlm_ros.synthetic import Frame, Pose, Scene
import numpy as np
import rclpy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs_py import point_cloud2

CAMERA_MODULE = 'depthvlm_ros.nodes.camera_node'
DEPTH_MODULE = 'depthvlm_ros.nodes.depth_node'
LONGEST_SIDE = 1280         # px; larger photos are scaled down, for the sake of their clouds
ROOM_RATE_HZ = 10.0
# The longest wait for depth images. The embedded model takes seconds, minutes on a machine that is
# busy with other things; a large one may have to be downloaded.
DEPTH_S = {'nano': 300.0}
LARGE_MODEL_S = 1800.0
CLOUD_S = 30.0
ANSWER_S = 120.0
REPORT_S = 5.0              # how often waiting is reported
OK = SpatialQuery.Response.OK


class DemoError(Exception):
    """
    The demo cannot go on.

    :param reason: for people, with what to do.
    :param exit_code: 1 where it failed, 2 where it was asked for something impossible.
    """

    def __init__(self, reason: str, exit_code: int = 1):
        super().__init__(reason)
        self.exit_code = exit_code


class Progress:
    """Says what is happening, with the time since the start."""

    def __init__(self):
        self._start_s = time.monotonic()

    def __call__(self, text: str):
        """Print a line."""
        print(f'[{time.monotonic() - self._start_s:5.1f} s] {text}', flush=True)


class Performance:
    """
    One run of the demo.

    :param options: the command line's.
    :raises DemoError: a photo, folder or video that cannot be shown.
    """

    def __init__(self, options: Namespace):
        self._options = options
        self._say = Progress()
        self._camera_parameters, self._intrinsics = self._camera()
        self._scene = None if options.image else Scene.random(options.seed)
        self._asked: list[Asked] = []
        self._model = options.model
        self._patience_s = DEPTH_S.get(options.model, LARGE_MODEL_S)

    def run(self):
        """Start the nodes, watch them, ask, leave the files; the nodes end whatever happens."""
        out = self._options.out
        try:
            (out / 'logs').mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=out / 'logs'):   # that it is there does not say that one may
                pass
        except OSError as error:
            raise DemoError(f'--out {out} cannot be written to: {error}', exit_code=2) from error
        with ExitStack() as stack:
            self._spectator = stack.enter_context(spectating())
            self._nodes = [stack.enter_context(running(node)) for node in self._start_nodes(out)]
            self._wait_for_depth()
            self._measure()
            if self._scene is not None:
                self._ask_about_room()
            else:
                self._ask_about_photo()
            stamp = self._wait_for_cloud()
            self._say('stopping the nodes')
        self._leave_files(out, stamp)

    def _camera(self) -> tuple[dict, Intrinsics]:
        """Return the camera node's parameters, and the camera that they mean."""
        options = self._options
        if options.image:
            numbers = numbers_of(options.fx, options.info)
            source, size = photo_source(options.image, numbers)
            parameters = {'source': options.image, 'fx': options.fx,
                          'calibration_file': options.info, 'height': size[0], 'width': size[1]}
        else:
            parameters = {'source': SYNTHETIC, 'seed': options.seed, 'moving': True,
                          'rate': ROOM_RATE_HZ}
            source = opened(SYNTHETIC, CameraNumbers(), seed=options.seed)
        self._say(f'camera: {source.words}')
        return parameters, source.calibration.intrinsics

    def _start_nodes(self, out: Path):
        """Start the two nodes, one after the other."""
        logs = out / 'logs'
        self._say('starting camera_node')
        yield NodeProcess(CAMERA_MODULE, self._camera_parameters, logs / 'camera_node.log')
        self._say(f'starting depth_node; loading the model {self._options.model}')
        yield NodeProcess(
            DEPTH_MODULE, {'model': self._options.model, 'device': self._options.device,
                           'autostart': True, **RELIABLE_INPUT}, logs / 'depth_node.log')

    def _wait(self, until, timeout_s: float, what: str):
        """Wait for something, say so now and then, and watch the nodes meanwhile."""
        start_s = time.monotonic()
        while not self._spectator.wait(lambda: until() or self._trouble(), REPORT_S):
            waited_s = time.monotonic() - start_s
            if waited_s >= timeout_s:
                raise DemoError(f'no {what} came in {waited_s:.0f} s{self._last_lines()}')
            self._say(f'waiting for {what} ({waited_s:.0f} s of at most {timeout_s:.0f} s)')
        if not until():
            raise DemoError(f'no {what} will come: {self._trouble()}{self._last_lines()}')

    def _trouble(self) -> str:
        """Return what has gone wrong with the nodes, '' as long as all is well."""
        ended = (f'{node.name} has ended with exit code {node.exit_code}' for node in self._nodes
                 if node.exit_code is not None)
        return next(ended, '') or self._spectator.failed_transition

    def _last_lines(self) -> str:
        """Return the nodes' last lines of output, in the form of an appendix."""
        return ''.join(f'\n  last lines of {node.name}:\n{node.last_lines()}'
                       for node in self._nodes)

    def _wait_for_depth(self):
        self._wait(lambda: self._spectator.depths, self._patience_s, 'depth image')
        self._say('the first depth image is here')

    def _measure(self):
        """Time the depth stream, at the least two of its images."""
        seen, seconds = self._spectator, self._options.seconds
        self._say(f'measuring the depth stream for {seconds:g} s')
        seen.measuring = True
        seen.wait(lambda: False, seconds)
        self._wait(lambda: len(seen.arrivals_s) >= 2, self._patience_s, 'second depth image')
        seen.measuring = False
        self._say(f'{len(seen.arrivals_s)} depth images, {seen.depth_hz():.1f} a second')

    def _ask(self, number: int, question: str, pixels: tuple = ()) -> SpatialQuery.Response:
        """Ask the node; a question that it cannot answer is the demo's end."""
        response = self._spectator.ask(question, pixels, ANSWER_S)
        if response is None or response.status != OK:
            reason = ('nothing came back' if response is None
                      else f'status {response.status}, {response.message}')
            raise DemoError(f'no answer to {question!r}: {reason}{self._last_lines()}')
        self._model = response.model or self._model
        latency_ms = response.latency.sec * 1e3 + response.latency.nanosec * 1e-6
        self._say(f'question {number}: {question}  ->  {one_line(response.answer)}  '
                  f'({latency_ms:.0f} ms)')
        return response

    def _ask_about_room(self):
        """Ask what the moving camera's newest image allows, each thing once."""
        done = set()
        for _ in range(4 * QUESTIONS_ASKED):
            frame = self._frame(next(reversed(self._spectator.poses)))
            question = next((question for question in room_questions(frame)
                             if question not in done), None)
            if question is None:        # all in view was asked about: again, from elsewhere
                self._spectator.wait(lambda: False, 1.0)
                done.clear()
                continue
            response = self._ask(len(self._asked) + 1, question.text)
            done.add(question)
            stamp = stamp_of(response)
            known = self._spectator.wait(lambda stamp=stamp: stamp in self._spectator.poses, 1.0)
            seen = self._frame(stamp) if known else None
            truth = question.truth(seen) if known else None
            if truth is None:
                self._say('  in the image answered this has no clear truth: not counted')
                continue
            self._asked.append(Asked(question.text, response.answer, truth,
                                     is_correct(question, response.answer, truth, seen)))
            if len(self._asked) == QUESTIONS_ASKED:
                return

    def _frame(self, stamp) -> Frame:
        """Return what the camera saw, drawn again from its pose."""
        return self._scene.render(self._intrinsics, Pose(self._spectator.poses[stamp]))

    def _ask_about_photo(self):
        """Ask what is at some places, and have their depth measured."""
        height, width = next(reversed(self._spectator.depths.values())).shape
        for number, (x, y) in enumerate(PHOTO_PLACES_1000, 1):
            pixel = pixels_of((x, y), width, height)
            question = photo_question((x, y))
            response = self._ask(number, question, (pixel,))
            self._asked.append(Asked(question, response.answer))
            if response.references and response.references[0].valid:
                self._say(f'  measured there: {response.references[0].depth:.2f} m')

    def _wait_for_cloud(self):
        """Return the stamp of a cloud whose image, depth and truth are here too."""
        self._say('waiting for a point cloud')
        seen = self._spectator
        seen.watch_clouds()
        kinds = [seen.clouds, seen.depths, seen.images, seen.infos]
        if self._scene is not None:
            kinds.append(seen.truths)

        def complete():
            return [stamp for stamp in seen.clouds if all(stamp in kind for kind in kinds)]
        self._wait(complete, CLOUD_S, 'point cloud with its image and depth')
        return complete()[-1]

    def _leave_files(self, out: Path, stamp):
        """Write the picture, the cloud and the figures, and print them."""
        seen = self._spectator
        figures = summary(len(seen.arrivals_s), seen.depth_hz(), seen.latencies_ms, seen.measured,
                          self._asked, self._model, seen.device or self._options.device)
        (out / 'summary.json').write_text(json.dumps(figures, indent=2) + '\n', encoding='utf-8')
        depth_m = seen.depths[stamp]
        rgb = resized(seen.images[stamp], depth_m.shape)
        captions = [f'{asked.question}  {one_line(asked.answer)}' for asked in self._asked]
        picture = depth_picture(rgb, depth_m, seen.truths.get(stamp), captions)
        if not cv2.imwrite(str(out / 'depth.png'), picture):
            raise DemoError(f'{out / "depth.png"} could not be written')
        cloud = point_cloud2.read_points(seen.clouds[stamp], ('x', 'y', 'z', 'rgb'))
        points_m = np.stack([cloud['x'], cloud['y'], cloud['z']], axis=-1)
        count = write_ply(out / 'cloud.ply', points_m, unpack_rgb(cloud['rgb']))
        self._say(f'wrote {out / "depth.png"}, {out / "cloud.ply"} ({count} points) and '
                  f'{out / "summary.json"}')
        print(f'\n{table(figures)}', flush=True)


def perform(options: Namespace):
    """
    Run the demo.

    :raises DemoError: why there is nothing to see.
    """
    try:
        Performance(options).run()
    except OSError as error:        # such as a file of somebody else's in a folder of one's own
        raise DemoError(str(error)) from error


@contextmanager
def spectating():
    """Give a Spectator, and take rclpy down after it."""
    try:
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)   # __main__ has its own
    except RuntimeError as error:       # such as a ROS_LOG_DIR that cannot be written to
        raise DemoError(f'ROS 2 does not start: {error}', exit_code=2) from error
    spectator = Spectator()
    try:
        yield spectator
    finally:
        spectator.destroy_node()
        rclpy.try_shutdown()


@contextmanager
def running(node: NodeProcess):
    """Give a node's process, and end it whatever happens."""
    try:
        yield node
    finally:
        node.stop()


def numbers_of(fx: float, calibration_file: str) -> CameraNumbers:
    """
    Return what a person says of their camera.

    :raises DemoError: numbers of no camera.
    """
    try:
        return CameraNumbers(fx=fx, calibration_file=calibration_file)
    except ValueError as error:
        raise DemoError(str(error), exit_code=2) from error


def opened(path: str, numbers: CameraNumbers, **kwargs) -> ImageSource:
    """
    Open an image source.

    :raises DemoError: that it cannot be shown, and why.
    """
    try:
        return open_source(path, numbers, **kwargs)
    except ValueError as error:
        raise DemoError(str(error), exit_code=2) from error


def photo_source(path: str, numbers: CameraNumbers) -> tuple[ImageSource, tuple[int, int]]:
    """
    Open a person's images, scaled down where they are very large.

    :return: the source, and its (height, width) in px to be asked for, zeros for its own.
    :raises DemoError: a source that cannot be shown.
    """
    try:
        there = path != SYNTHETIC and Path(path).expanduser().exists()
    except (OSError, RuntimeError):
        there = True    # it will be said why it cannot be opened
    if not there:
        raise DemoError(f'--image {path} does not exist, wanted a photo, a folder of photos or a '
                        'video', exit_code=2)
    try:
        source = opened(path, numbers)
    except DemoError as error:
        if numbers == CameraNumbers():
            hint = 'give --fx or --info (make demo: FX= or INFO=)'
            raise DemoError(f'{error}; {hint}', exit_code=2) from error
        raise
    height, width = source.calibration.size
    longest = max(height, width)
    if longest <= LONGEST_SIDE:
        return source, (0, 0)
    size = (round(height * LONGEST_SIDE / longest), round(width * LONGEST_SIDE / longest))
    return opened(path, numbers, size=size), size
