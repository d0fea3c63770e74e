# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Ask the depth node from the command line: `ros2 run depthvlm_ros ask "How far is the door?"`.

Exit codes: 0 answered, 1 answered with another status than OK, 2 nobody answered or asked
wrongly, 130 interrupted.
"""

from __future__ import annotations

import argparse
from array import array
import json
import math
import os
import signal
import sys
import textwrap
from types import FrameType

from depthvlm_ros.msg import SpatialReference
from depthvlm_ros.nodes.asking import ANSWER_S, NoAnswerError, SpatialClient
from depthvlm_ros.srv import SpatialQuery
import numpy as np
import rclpy
from rclpy.exceptions import NameValidationException
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args

STATUS_NAMES = {getattr(SpatialQuery.Response, name): name for name in (
    'OK', 'NO_IMAGE', 'STALE_IMAGE', 'BAD_QUESTION', 'BAD_PIXEL', 'UNKNOWN_FRAME', 'NO_TRANSFORM',
    'TF_UNAVAILABLE', 'BUSY', 'TIMEOUT', 'CANCELLED', 'INACTIVE', 'MODEL_FAILURE')}
WITH_AN_IMAGE = [getattr(SpatialQuery.Response, name) for name in (
    'OK', 'UNKNOWN_FRAME', 'NO_TRANSFORM', 'TF_UNAVAILABLE', 'TIMEOUT', 'CANCELLED')]
SOURCE_NAMES = {SpatialReference.REQUEST: 'asked', SpatialReference.MODEL: 'model'}
HALF_CHARACTER = '\ufffd'      # what a character looks like whose last token is still to come


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    options = argparse.ArgumentParser(
        prog='ask', description='Ask the depth node about what its camera sees.',
        epilog='Exit codes: 0 answered, 1 another status than OK, 2 nobody answered or asked '
        'wrongly, 130 interrupted. ROS arguments go behind --ros-args.')
    options.add_argument('question', nargs='?', default='',
                         help='in plain words; may be left out with --pixel or --box')
    options.add_argument('--node', default='depthvlm', metavar='NAME',
                         help='the depth node, with its namespace: /front/depthvlm (%(default)s)')
    options.add_argument('--pixel', nargs=2, type=float, action='append', default=[],
                         metavar=('U', 'V'), dest='pixels',
                         help='a place in px of the depth image; may be repeated')
    options.add_argument('--box', nargs=4, type=float, default=[],
                         metavar=('U1', 'V1', 'U2', 'V2'), help='a box in px of the depth image')
    options.add_argument('--target-frame', default='', metavar='FRAME',
                         help="frame wanted for the points (the image's optical frame)")
    options.add_argument('--camera', default='', metavar='NAME',
                         help='which camera to ask (the only or the first one)')
    options.add_argument('--max-age', type=float, default=0.0, metavar='S',
                         help="oldest image accepted (the node's parameter max_age)")
    options.add_argument('--timeout', type=float, default=ANSWER_S, metavar='S',
                         help='longest wait for the answer (%(default)g)')
    options.add_argument('--wait', type=float, default=5.0, metavar='S',
                         help='longest wait for the node to appear (%(default)g)')
    options.add_argument('--max-tokens', type=int, default=0, metavar='N',
                         help="longest answer (the node's parameter max_tokens)")
    form = options.add_mutually_exclusive_group()
    form.add_argument('--stream', action='store_true', help='print words as they come')
    form.add_argument('--json', action='store_true', help='print the whole response as JSON')
    return options


class Words:
    """Prints an answer as it grows."""

    def __init__(self):
        self._printed = ''

    def __call__(self, text: str) -> None:
        """Print what the answer so far has more than before."""
        text = text.rstrip(HALF_CHARACTER)
        if text.startswith(self._printed):
            print(text[len(self._printed):], end='', flush=True)
            self._printed = text

    def close(self, text: str) -> None:
        """Print the rest, or all of it where it has become another text."""
        if not text and not self._printed:
            return
        if text.startswith(self._printed):
            print(text[len(self._printed):])
        else:
            print(f'\n{text}')


def as_dict(value):
    """Return a message as what JSON knows; NaN and the infinities become None."""
    if hasattr(value, 'get_fields_and_field_types'):
        return {name: as_dict(getattr(value, name))
                for name in value.get_fields_and_field_types()}
    if isinstance(value, (list, tuple, array, np.ndarray)):
        return [as_dict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.item() if isinstance(value, np.generic) else value


def table(response) -> str:
    """Return the references for people, '' for none."""
    rows = [('label', 'from', 'u, v (px)', 'depth (m)', f'x, y, z in {response.points_frame} (m)',
             'valid')]
    for reference in response.references:
        place = f'{reference.pixel.u:.1f}, {reference.pixel.v:.1f}'
        if reference.is_box:
            place = 'box ' + ', '.join(f'{value:.1f}' for value in reference.box)
        point = reference.point
        rows.append((
            shown(reference.label) or '-', SOURCE_NAMES.get(reference.source, '?'), place,
            f'{reference.depth:.2f} +- {reference.depth_spread:.2f}',
            f'{point.x:.2f}, {point.y:.2f}, {point.z:.2f}', 'yes' if reference.valid else 'no'))
    if len(rows) == 1:
        return ''
    widths = [max(map(len, column)) for column in zip(*rows)]
    return '\n'.join('  '.join(f'{cell:{width}}' for cell, width in zip(row, widths)).rstrip()
                     for row in rows)


def shown(label: str) -> str:
    """Return a label in one short line."""
    return textwrap.shorten(''.join(c if c.isprintable() else ' ' for c in label), 30)


def print_response(response, words: Words | None) -> None:
    """Print a response for people; its answer's end only, where words were printed already."""
    if words is not None:
        words.close(response.answer)
    elif response.answer:
        print(response.answer)
    if places := table(response):
        print(f'\n{places}')
    if response.status in WITH_AN_IMAGE:
        stamp, latency = response.header.stamp, response.latency
        print(f'\n{latency.sec + latency.nanosec * 1e-9:.3f} s, {response.tokens} tokens, '
              f'{response.model}; image of {stamp.sec}.{stamp.nanosec:09d} in '
              f'{response.header.frame_id!r}')
    if response.status != response.OK:
        name = STATUS_NAMES.get(response.status, f'status {response.status}')
        print(f'ask: {name}: {response.message}', file=sys.stderr)
    elif response.message:
        print(f'note: {response.message}')


def ask(client: SpatialClient, options: argparse.Namespace) -> int:
    """Ask, print, and return the exit code."""
    fields = {'pixels': options.pixels, 'box': options.box, 'camera': options.camera,
              'target_frame': options.target_frame, 'max_age_s': options.max_age,
              'timeout_s': options.timeout, 'max_tokens': options.max_tokens}
    words = Words() if options.stream else None
    if words is not None:
        response = client.answer(options.question, words, **fields)
    else:
        response = client.ask(options.question, **fields)
    if options.json:
        name = STATUS_NAMES.get(response.status, '')
        print(json.dumps({'status_name': name, **as_dict(response)}, ensure_ascii=False))
    else:
        print_response(response, words)
    return 0 if response.status == response.OK else 1


def in_a_line(error: Exception) -> str:
    """Return an error's words, of which rcl makes several lines."""
    return ' '.join(str(error).split())


def interrupt(number: int, frame: FrameType | None) -> None:
    """
    Raise KeyboardInterrupt, as Python does: a little later where it would come to nothing.

    What is raised in a finalizer is printed and forgotten, and each of rclpy's futures has one.
    """
    while frame is not None:
        if frame.f_code.co_name == '__del__':
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            return
        frame = frame.f_back
    raise KeyboardInterrupt


def main(args: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    args = sys.argv if args is None else [sys.argv[0], *args]
    node = client = None
    try:
        options = parser().parse_args(remove_ros_args(args)[1:])
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
            signal.signal(number, interrupt)    # heeded as a background job too
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        # It offers nothing, so that an enclave that may only ask is enough (docs/security.md).
        node = rclpy.create_node(
            f'ask_{os.getpid()}', enable_rosout=False, start_parameter_services=False,
            parameter_overrides=[Parameter('start_type_description_service', value=False)])
        client = SpatialClient(node, options.node, wait_s=options.wait)
        return ask(client, options)
    # How rclpy refuses ROS arguments, a domain or a folder for logs: RuntimeErrors of its own.
    except (NoAnswerError, NameValidationException, ValueError, RuntimeError) as error:
        print(f'ask: {in_a_line(error)}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('\nask: interrupted', file=sys.stderr)
        return 130
    except BrokenPipeError:     # who read the words has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    finally:
        if client is not None:
            client.destroy()
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()


if __name__ == '__main__':
    sys.exit(main())
