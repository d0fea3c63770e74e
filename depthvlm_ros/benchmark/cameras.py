# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Several cameras on one model: `python -m depthvlm_ros.benchmark.cameras --model nano`.

As many images as there are cameras go through the model in one pass, as the node takes them, and
one after the other, in turns. It prints images per second of both and their ratio, and ends with
a line of JSON.
"""

from __future__ import annotations

import argparse
import sys
import time

from depthvlm_ros.benchmark.provenance import json_line, provenance
from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.model import Predictor
from depthvlm_ros.model.batching import look_batch
from depthvlm_ros.options import at_least
import numpy as np

CAMERA = Intrinsics.centred(640, 480, 525.0)
COUNTS = (1, 2, 4, 6)
WARM_UP = 3     # rounds before any is timed: on a GPU the second is captured


def time_ways(predictor, count: int, repeats: int) -> tuple[list[float], list[float], float]:
    """
    Look at as many images together and apart, in turns.

    :raises RuntimeError: where they cannot go together, for lack of memory.
    :return: (seconds of each pass together, seconds of each round apart, the largest relative
        difference between their depths).
    """
    rng = np.random.default_rng(count)
    images = [(rng.integers(0, 256, (CAMERA.height, CAMERA.width, 3), np.uint8), CAMERA)
              for _ in range(count)]

    def together():
        return look_batch(predictor, images)

    def apart():
        return [predictor.look(*image) for image in images]
    spent: dict = {together: [], apart: []}
    for number in range(-WARM_UP, repeats):
        for way in (together, apart) if number % 2 else (apart, together):
            began_s = time.perf_counter()
            views = way()       # ends with the depth on the host
            if number >= 0:
                spent[way].append(time.perf_counter() - began_s)
            elif way is apart:
                apart_m = np.stack([view.depth_m for view in views])
            else:
                together_m = np.stack([view.depth_m for view in views])
    if not predictor.batches:
        raise RuntimeError(f'{count} images do not go through the model together, see the log')
    off = float(np.nanmax(np.abs(together_m - apart_m) / apart_m))
    return spent[together], spent[apart], off


def main(args: list[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[1])
    parser.add_argument('--model', default='nano', help="'nano', a folder or a hub id")
    parser.add_argument('--device', default='auto')
    parser.add_argument('--dtype', default='auto')
    parser.add_argument('--counts', type=at_least(1), nargs='+', default=list(COUNTS),
                        metavar='N')
    parser.add_argument('--repeats', type=at_least(1), default=10)
    options = parser.parse_args(args)
    try:
        predictor = Predictor.from_pretrained(
            options.model, device=options.device, dtype=options.dtype)
    except ValueError as error:
        sys.stderr.write(f'{error}\n')
        return 2
    print('cameras   together   apart (images/s)   ratio   depth differs by')
    rows = []
    for count in options.counts:
        try:
            together_s, apart_s, off = time_ways(predictor, count, options.repeats)
        except RuntimeError as error:
            sys.stderr.write(f'{error}\n')
            return 2
        hz = [count / float(np.median(spent)) for spent in (together_s, apart_s)]
        rows.append({'cameras': count, 'together_hz': hz[0], 'apart_hz': hz[1],
                     'ratio': hz[0] / hz[1], 'largest_difference': off})
        print(f'{count:7d} {hz[0]:10.1f} {hz[1]:7.1f} {hz[0] / hz[1]:20.2f} {off:14.1e}')
    print(json_line({'model': options.model, 'size': [CAMERA.width, CAMERA.height],
                     'rows': rows, **provenance(predictor.device)}))
    return 0


if __name__ == '__main__':
    sys.exit(main())
