# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
What questions cost: `python -m depthvlm_ros.benchmark.questions --model nano`.

How much one pass over an image saves where many questions share it, and, where ROS 2 is, what
answers under way cost the depth stream. Prints a table and, last, one line of JSON.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import signal
import subprocess
import sys

from depthvlm_ros.benchmark.one_prefill import measure_one_prefill
from depthvlm_ros.benchmark.provenance import json_line, provenance
from depthvlm_ros.model import Predictor
from depthvlm_ros.options import at_least, up_to
from depthvlm_ros.processes import ending_with_parent
import torch

LOAD_MODULE = 'depthvlm_ros.nodes.question_load'    # run, never imported: ROS is not needed here
STREAM_KEYS = ('rate_ratio', 'p99_ratio')
LONGEST_S = 5400.0      # beyond the windows: half an hour to load a model, and for slow machines
ENDING_S = 20.0         # for the load's node to end when interrupted


class LoadError(Exception):
    """The half that needs ROS 2 has failed."""


def measure_stream(options):
    """
    Measure the depth stream alone and under questions, with a node in a process of its own.

    :param options: the command line's.
    :return: dict: 'rate_ratio', 'p99_ratio' and what they come from; the two None, and 'stream'
        saying why, where ROS 2 is missing.
    :raises LoadError: why there are no figures though ROS 2 is there.
    """
    missing = [name for name in ('rclpy', 'depthvlm_ros.srv')
               if importlib.util.find_spec(name) is None]
    if missing:
        return {**dict.fromkeys(STREAM_KEYS),
                'stream': f'left out: there is no {" and no ".join(missing)} here'}
    command = [sys.executable, '-m', LOAD_MODULE, '--model', options.model,
               '--device', options.device, '--window', str(options.window),
               '--rounds', str(options.stream_rounds)]
    bound_s = LONGEST_S + 10 * options.window * options.stream_rounds
    child = subprocess.Popen(ending_with_parent(command), stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, text=True)
    try:
        output, _ = child.communicate(timeout=bound_s)
    except subprocess.TimeoutExpired as error:
        raise LoadError(f'{LOAD_MODULE} has not ended in {bound_s:.0f} s') from error
    finally:
        end(child)
    if child.returncode != 0:
        raise LoadError(f'{LOAD_MODULE} ended with {child.returncode}; its reason is above')
    return json.loads(output.splitlines()[-1])


def end(child):
    """Interrupt a process that still runs, so that it ends what it has started itself."""
    if child.poll() is not None:
        return
    child.send_signal(signal.SIGINT)
    try:
        child.wait(ENDING_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def print_table(result):
    """Print the figures for people."""
    print(f"model {result['model']} on {result['device']}, {result['dtype']}")
    print(f"{result['questions']} questions about one frame, {result['tokens']} tokens in all; "
          'a question takes')
    for name, key in (('our way, one pass shared', 'ours_s'),
                      ('depth pass and words, the released way', 'full_s'),
                      ('words alone, image encoded anew', 'words_s')):
        print(f'  {name:40} {result[key] * 1e3:9.1f} ms  {result[key] / result["ours_s"]:6.2f} x')
    print(f"  our one pass takes {result['look_s'] * 1e3:.1f} ms")
    print(f"  answers identical: {'yes' if result['identical'] else 'NO'}")
    if result['rate_ratio'] is None:
        print(f"depth stream: {result['stream']}")
        return
    print(f"depth stream, images at {result['image_hz']:.2f} Hz (the node alone can do "
          f"{result['capacity_hz']:.2f})")
    for name in ('alone', 'answering'):
        figures = result[name]
        print(f"  {name:10} {figures['depth_hz']:7.2f} Hz  latency {figures['p50_ms']:7.1f} ms "
              f"(median) {figures['p99_ms']:7.1f} ms (99 of 100), {figures['images']} images")
    print(f"  rate {result['rate_ratio']:.3f}, p99 {result['p99_ratio']:.2f} x; "
          f"{result['answers']} answers meanwhile, {result['answer_tokens']:.1f} tokens each, "
          f"{result['tokens_per_s']:.1f} tokens/s: {result['question']!r}")


def parsed(args):
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[1])
    parser.add_argument('--model', default='nano', help="'nano', a folder or a hub id")
    parser.add_argument('--device', default='auto')
    parser.add_argument('--dtype', default='float32', help='of the half without ROS (%(default)s)')
    parser.add_argument('--questions', type=at_least(1), default=10,
                        help='about one frame (%(default)s)')
    parser.add_argument('--rounds', type=at_least(1), default=3,
                        help='how often each way is timed (%(default)s)')
    parser.add_argument('--window', type=up_to(600), default=8.0, metavar='S',
                        help='how long the stream is watched at a time (%(default)s)')
    parser.add_argument('--stream-rounds', type=at_least(1), default=3,
                        help='how often alone and under questions in turn (%(default)s)')
    return parser.parse_args(args)


def main(args=None):
    """Parse the command line, measure, print; 2 without a model, 1 without the half with ROS 2."""
    options = parsed(args)
    try:
        predictor = Predictor.from_pretrained(
            options.model, device=options.device, dtype=options.dtype)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    result = {'model': options.model, 'dtype': options.dtype,
              'threads': torch.get_num_threads(), **provenance(predictor.device),
              **measure_one_prefill(predictor, options.questions, options.rounds)}
    predictor.close()
    failure = ''
    try:
        result |= measure_stream(options)
    except LoadError as error:
        failure = str(error)
        result |= {**dict.fromkeys(STREAM_KEYS), 'stream': f'failed: {failure}'}
    print_table(result)
    print(json_line(result))
    return 1 if failure else 0


if __name__ == '__main__':
    sys.exit(main())
