# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
What weights of 8 and 4 bits cost: `python -m depthvlm_ros.benchmark.quantisation --model nano`.

Depth with and without, in the same held-out rooms, and the size. Prints a table and, last, one
line of JSON. Needs torchao.
"""

from __future__ import annotations

import argparse
import sys

from depthvlm_ros.benchmark.metrics import depth_metrics
from depthvlm_ros.benchmark.provenance import json_line, provenance
from depthvlm_ros.benchmark.published import predictor_of
from depthvlm_ros.benchmark.rooms import measure_speed
from depthvlm_ros.model.quantisation import (
    KINDS,
    packed_bytes,
    quantise,
    stored_bytes,
    torchao_for,
)
from depthvlm_ros.options import at_least
from depthvlm_ros.synthetic import draw_camera, Scene
from depthvlm_ros.synthetic.walk import PERIOD_S
import numpy as np
import torch
from tqdm import tqdm

MB = 1e6
WIDTH_PX = (320, 640)


def draw_rooms(rooms, first_seed=0):
    """Render held-out rooms through random cameras: [(frame, Intrinsics), ...]."""
    rng = np.random.default_rng(first_seed)
    drawn = []
    for seed in range(first_seed, first_seed + rooms):
        camera = draw_camera(rng, WIDTH_PX)
        scene = Scene.random(seed)
        drawn.append((scene.render(camera, scene.pose_at(rng.uniform(0, PERIOD_S))), camera))
    return drawn


def look_at(predictor, drawn, name):
    """Return the depth maps (H, W) of all rooms."""
    return [predictor.look(frame.rgb, camera).depth_m
            for frame, camera in tqdm(drawn, unit='room', desc=name, mininterval=5)]


def against(maps_m, references_m):
    """Average delta1 and AbsRel of depth maps against reference ones, image by image."""
    figures = [depth_metrics(map_m, reference_m)
               for map_m, reference_m in zip(maps_m, references_m)]
    return {name: float(np.mean([getattr(f, name) for f in figures]))
            for name in ('delta1', 'abs_rel')}


def measure_quantisation(load, drawn, kinds=KINDS):
    """
    Look at the same rooms with each kind of weights.

    :param load: function that gives a fresh predictor.
    :param drawn: as draw_rooms gives it.
    :return: dict: kind ('none' first) -> 'truth' and 'unquantised' (delta1 and abs_rel against
        these), 'stored_mb' as the weights lie here, 'packed_mb' as they do where int4 is packed,
        and 'look_s', of one size of images again and again (rooms.measure_speed).
    """
    truth_m = [frame.depth_m for frame, _ in drawn]
    figures, plain_m = {}, None
    for kind in ('', *kinds):
        predictor = load()
        packed = packed_bytes(predictor.model, kind)
        if kind:
            quantise(predictor.model, kind)
        name = kind or 'none'
        maps_m = look_at(predictor, drawn, name)
        plain_m = plain_m or maps_m
        figures[name] = {'truth': against(maps_m, truth_m),
                         'unquantised': against(maps_m, plain_m),
                         'stored_mb': stored_bytes(predictor.model) / MB, 'packed_mb': packed / MB,
                         'look_s': 1 / measure_speed(predictor, repeats=5)}
        predictor.close()
    return figures


def print_table(result):
    """Print the figures for people."""
    print(f"{result['rooms']} held-out rooms, model {result['model']} on {result['device']}, "
          f"{result['dtype']}; sizes in MB")
    print('weights   to the truth      to unquantised     size    size    a look')
    print('         delta1  AbsRel    delta1  AbsRel      here  packed        ms')
    for name, figures in result['weights'].items():
        truth, apart = figures['truth'], figures['unquantised']
        print(f"{name:7} {truth['delta1']:7.3f} {truth['abs_rel']:7.3f}   {apart['delta1']:7.3f} "
              f"{apart['abs_rel']:7.4f}   {figures['stored_mb']:7.1f} {figures['packed_mb']:7.1f} "
              f"{figures['look_s'] * 1e3:9.1f}")


def main(args=None):
    """Parse the command line, measure, print; 2 where the model or torchao cannot be had."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--model', default='nano',
                        help="'nano', a folder, a hub id, or '4b' or '8b' for random weights")
    parser.add_argument('--device', default='auto')
    parser.add_argument('--dtype', default='auto')
    parser.add_argument('--rooms', type=at_least(1), default=50, help='(%(default)s)')
    parser.add_argument('--kinds', nargs='+', choices=KINDS, default=list(KINDS))
    options = parser.parse_args(args)

    def load():
        return predictor_of(options.model, options.device, options.dtype)

    try:
        predictor = load()
        torchao_for(options.kinds[0], predictor.device.type)    # before anything is measured
        where = {'threads': torch.get_num_threads(),
                 **provenance(predictor.device, predictor.model.dtype)}
        predictor.close()
        figures = measure_quantisation(load, draw_rooms(options.rooms), options.kinds)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    result = {'model': options.model, 'rooms': options.rooms, **where, 'weights': figures}
    print_table(result)
    print(json_line(result))
    return 0


if __name__ == '__main__':
    sys.exit(main())
