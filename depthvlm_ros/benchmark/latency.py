# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
What an image and a question cost: `python -m depthvlm_ros.benchmark.latency --model nano`.

The released script's way against this package's, in one process, on the same weights and images,
taking turns. Prints a table and, last, one line of JSON. '4b' and '8b' are models of the published
shapes with random weights, so nothing is fetched.
"""

from __future__ import annotations

import argparse
from contextlib import contextmanager
from pathlib import Path
import sys
import time

import cv2
from depthvlm_ros.benchmark.ceilings import bytes_of, count_flops, measure_ceilings, synchronise
from depthvlm_ros.benchmark.one_prefill import generate, room_questions
from depthvlm_ros.benchmark.provenance import json_line, provenance
from depthvlm_ros.benchmark.published import predictor_of
from depthvlm_ros.benchmark.released import released_look
from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.options import at_least
import numpy as np
import torch
from tqdm import tqdm

# Name -> width, height, fx in px; without a focal length the image is fed as it is.
SIZES = {
    '256x192': (256, 192, None),
    '256x192@200': (256, 192, 200.0),
    '640x480@525': (640, 480, 525.0),
    '1280x720@910': (1280, 720, 910.0),
    '1920x1440@1431': (1920, 1440, 1431.0),
}
WARM_UP = 3     # the second time a size comes it may be captured


class Clock:
    """
    Times one kind of work.

    :param device: torch.device, waited for at both ends.
    """

    def __init__(self, device):
        self.device = device
        self.wall_s, self.cpu_s, self.peak_bytes = [], [], 0

    @contextmanager
    def lap(self):
        """Add one lap: its time, its processor time, and the most device memory so far."""
        on_gpu = self.device.type == 'cuda'
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(self.device)
        synchronise(self.device)
        began, cpu = time.perf_counter(), time.process_time()
        yield
        synchronise(self.device)
        self.wall_s.append(time.perf_counter() - began)
        self.cpu_s.append(time.process_time() - cpu)
        if on_gpu:
            self.peak_bytes = max(self.peak_bytes, torch.cuda.max_memory_allocated(self.device))

    def figures(self):
        """Return medians and more, times in s."""
        return {'p50_s': float(np.median(self.wall_s)),
                'p99_s': float(np.percentile(self.wall_s, 99)),
                'images_s': len(self.wall_s) / sum(self.wall_s),
                'cpu_p50_s': float(np.median(self.cpu_s)),
                'peak_bytes': self.peak_bytes or None}


def look_ours(predictor, rgb, camera):
    """Return the depth of one image by this package, (H, W) numpy float32, metres."""
    return predictor.look(rgb, camera).depth_m


def look_directly(predictor, rgb, camera):
    """Return the same, nothing captured."""
    with predictor.engine.direct():
        return predictor.look(rgb, camera).depth_m


LOOKS = {'released': released_look, 'ours': look_ours, 'direct': look_directly}


def ways_on(device):
    """Name the ways that differ on a device: what is captured there is measured without too."""
    return ('released', 'direct', 'ours') if device.type == 'cuda' else ('released', 'ours')


def measure_size(predictor, rgb, camera, questions, options):
    """
    Measure one image size both ways, taking turns.

    :param rgb: (H, W, 3) uint8 of the camera's size.
    :param questions: asked one each round, as many as options.questions.
    :return: dict of figures, see measure.
    """
    ways = ways_on(predictor.device)
    clocks = {way: Clock(predictor.device) for way in ways}
    with predictor.engine.direct():     # a replay does not show its operations
        work = {way: count_flops(lambda way=way: LOOKS[way](predictor, rgb, camera))
                for way in ways}
    for _ in range(WARM_UP):
        for way in ways:
            LOOKS[way](predictor, rgb, camera)
    for turn in range(options.repeats):
        for way in ways[::1 if turn % 2 == 0 else -1]:
            with clocks[way].lap():
                depth_m = LOOKS[way](predictor, rgb, camera)
            del depth_m
    if 'direct' in clocks:      # what a captured pass holds meanwhile is not told
        clocks['ours'].peak_bytes = clocks['direct'].peak_bytes
    view = predictor.look(rgb, camera)
    result = {'tokens': view.image_tokens, **{way: clocks[way].figures() for way in ways}}
    for way in ways:
        result[way]['flop'] = work[way]
        result[way]['flops'] = work[way] / result[way]['p50_s']
        result[way]['bytes_s'] = bytes_of(predictor.model, 0)['look'] / result[way]['p50_s']
    result['ratio'] = result['ours']['p50_s'] / result['released']['p50_s']
    result['cpu_ratio'] = result['ours']['cpu_p50_s'] / result['released']['cpu_p50_s']
    result['depth_difference'] = {
        name: difference(view.depth_m, released_look(predictor, rgb, camera, tail))
        for name, tail in (('as_released', False), ('with_float32_tail', True))}
    if questions:
        result['questions'] = measure_questions(predictor, rgb, camera, view, questions, options)
    return result


def difference(depth_m, reference_m):
    """Return the norm of a difference of depths over that of the reference, NaN counting as 0."""
    apart = np.nan_to_num(depth_m - reference_m)
    return float(np.linalg.norm(apart) / np.linalg.norm(np.nan_to_num(reference_m)))


def measure_questions(predictor, rgb, camera, view, questions, options):
    """
    Ask about a frame whose depth is known, both ways, taking turns.

    :return: dict: for each way 'first_token_s', 'tokens_s' (a second, behind the first),
        'total_s', 'tokens' and 'bytes_s'; 'ratio' of the totals; 'identical'.
    """
    ways = ('released', 'ours')
    asks = {'released': lambda question, count, heard: generate(
                predictor, rgb, question, count, camera, heard),
            'ours': lambda question, count, heard: ask_ours(
                predictor, view, question, count, heard)}
    spent = {way: [] for way in ways}
    texts = {way: [] for way in ways}
    for ask in asks.values():
        ask(questions[0], 3, lambda: None)
    for turn, question in enumerate(questions):
        for way in ways[::1 if turn % 2 == 0 else -1]:
            synchronise(predictor.device)
            began, heard = time.perf_counter(), []
            text, _ = asks[way](
                question, options.max_tokens,
                lambda began=began, heard=heard: heard.append(time.perf_counter() - began))
            texts[way].append(text)
            spent[way].append(heard)
    figures = {way: question_figures(spent[way]) for way in ways}
    for way in ways:
        rate = figures[way]['tokens_s']
        figures[way]['bytes_s'] = rate and rate * bytes_of(
            predictor.model, view.image_tokens)['token']
    ours, released = (figures[way]['total_s'] for way in ('ours', 'released'))
    return {**figures, 'identical': texts['ours'] == texts['released'],
            'ratio': ours / released if ours and released else None}


def ask_ours(predictor, view, question, max_tokens, on_token):
    """Continue the view's cache; return the text and the number of its tokens."""
    decoding = predictor.begin(view, question, max_tokens)
    going, known = True, 0
    while going:
        going = decoding.step()
        if decoding.tokens > known:
            known = decoding.tokens
            on_token()
    return decoding.text, decoding.tokens


def question_figures(spent):
    """
    Summarise when the tokens of some answers came.

    :param spent: for each answer the s from the question to each token.
    """
    spent = [times for times in spent if times]
    if not spent:
        return {'first_token_s': None, 'tokens_s': None, 'total_s': None, 'tokens': 0}
    rates = [(len(times) - 1) / (times[-1] - times[0]) for times in spent if len(times) > 1]
    return {'first_token_s': float(np.median([times[0] for times in spent])),
            'tokens_s': float(np.median(rates)) if rates else None,
            'total_s': float(np.median([times[-1] for times in spent])),
            'tokens': sum(map(len, spent))}


def measure(predictor, options):
    """
    Measure every size.

    :return: dict: 'ceilings' of the device and 'sizes': name -> figures of both ways and
        'ratio' (ours over released, of the medians).
    """
    image, questions = room_questions(max(1, options.questions))
    result = {'ceilings': measure_ceilings(predictor.device, predictor.model.dtype), 'sizes': {}}
    for name in tqdm(options.sizes, unit='size', desc='released way against ours'):
        width, height, fx = SIZES[name]
        camera = Intrinsics.centred(width, height, fx or predictor.config.canonical_fx)
        rgb = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        result['sizes'][name] = measure_size(
            predictor, rgb, camera, questions[:options.questions], options)
    return result


def print_table(result):
    """Print the figures for people."""
    print(f"model {result['model']} on {result['gpu'] or result['cpu']}, {result['dtype']}, "
          f"{result['repeats']} images each way; times in ms, ratio ours / released")
    print(f"{'size':16}{'tokens':>7}{'way':>10}{'p50':>9}{'p99':>9}{'images/s':>10}{'ratio':>7}"
          f"{'TFLOP/s':>9}{'of peak':>8}{'GB/s':>8}{'of peak':>8}{'GB':>7}{'1st token':>11}"
          f"{'tokens/s':>10}")
    peak = result['ceilings']
    for name, figures in result['sizes'].items():
        for way in [way for way in LOOKS if way in figures]:
            print(row(name, figures, way, peak))
        apart = figures['depth_difference']
        print(f"  depth apart by {apart['as_released']:.2e} of its norm; "
              f"{apart['with_float32_tail']:.2e} with the released tail in float32 too"
              + (f"; processor time {figures['cpu_ratio']:.2f}" if result['gpu'] is None else ''))


def row(name, figures, way, peak):
    """Return one line of the table."""
    mine, asked = figures[way], figures.get('questions', {}).get(way, {})
    memory = mine['peak_bytes']
    first, rate = asked.get('first_token_s'), asked.get('tokens_s')
    return (f"{name:16}{figures['tokens']:7}{way:>10}{mine['p50_s'] * 1e3:9.1f}"
            f"{mine['p99_s'] * 1e3:9.1f}{mine['images_s']:10.2f}"
            f"{mine['p50_s'] / figures['released']['p50_s']:7.2f}"
            f"{mine['flops'] / 1e12:9.3f}{mine['flops'] / peak['flops']:8.2f}"
            f"{mine['bytes_s'] / 1e9:8.1f}{mine['bytes_s'] / peak['bytes_s']:8.2f}"
            + (f'{memory / 1e9:7.2f}' if memory else f"{'-':>7}")
            + (f'{first * 1e3:11.1f}' if first else f"{'-':>11}")
            + (f'{rate:10.1f}' if rate else f"{'-':>10}"))


def parsed(args):
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[1])
    parser.add_argument('--model', default='nano',
                        help="'4b' or '8b' (random weights), 'nano', a folder or a hub id")
    parser.add_argument('--device', default='auto')
    parser.add_argument('--dtype', default='auto')
    parser.add_argument('--sizes', nargs='+', default=list(SIZES), choices=list(SIZES),
                        metavar='SIZE', help=f'of {", ".join(SIZES)} (all)')
    parser.add_argument('--repeats', type=at_least(1), default=20,
                        help='images each way (%(default)s)')
    parser.add_argument('--questions', type=at_least(0), default=3,
                        help='asked about each size; 0 for none (%(default)s)')
    parser.add_argument('--max-tokens', type=at_least(1), default=32,
                        help='of an answer (%(default)s)')
    parser.add_argument('--out', type=Path, help='write the JSON here too')
    return parser.parse_args(args)


def main(args=None):
    """Parse the command line, measure, print; 2 where the model cannot be had."""
    options = parsed(args)
    try:
        predictor = predictor_of(options.model, options.device, options.dtype)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    result = {'model': options.model, 'repeats': options.repeats,
              'threads': torch.get_num_threads(),
              **provenance(predictor.device, predictor.model.dtype)}
    result |= measure(predictor, options)
    print_table(result)
    line = json_line(result)
    print(line)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(line + '\n', encoding='utf-8')
    return 0


if __name__ == '__main__':
    sys.exit(main())
