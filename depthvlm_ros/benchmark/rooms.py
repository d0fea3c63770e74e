# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Depth and answers on held-out rooms: `python -m depthvlm_ros.benchmark.rooms --model nano`.

Prints a table and, last, one line of JSON.
"""

import argparse
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
import multiprocessing
import time

from depthvlm_ros.benchmark.loading import add_loading, Loading, PLAIN
from depthvlm_ros.benchmark.metrics import depth_metrics
from depthvlm_ros.benchmark.provenance import json_line, provenance
from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.model import Predictor
from depthvlm_ros.options import at_least
from depthvlm_ros.processes import end_with_parent
from depthvlm_ros.synthetic import draw_camera, judge, Scene
from depthvlm_ros.synthetic.walk import PERIOD_S
from depthvlm_ros.synthetic.wording import KINDS
import numpy as np
import torch
from tqdm import tqdm

DEPTH_FIGURES = ('delta1', 'delta2', 'delta3', 'abs_rel', 'rmse', 'log10', 'silog')
FOCAL_SHARES = (0.6, 0.8, 1.0, 1.3)  # fx over the width, of one room seen by four cameras
WRONG_FACTORS = (0.8, 1.25)
MOST_TOKENS = 128
WARM_UP = 3         # looks before any is timed: on a GPU the second is captured
DRAWS = 20260101    # tells these draws from others with the same seeds

_worker = {}        # of a process of measure_in_processes, its predictor


def measure_rooms(predictor, rooms, first_seed=0, width_px=(320, 640), per_kind=2,
                  compute_distances=False):
    """
    Look at held-out rooms through random cameras, and ask about them.

    :param predictor: model.Predictor.
    :param rooms: how many.
    :param first_seed: of the rooms, drawn from the held-out split.
    :param per_kind: most questions of a kind in a room.
    :param compute_distances: as Predictor.ask has it.
    :return: what `summary` makes of them.
    """
    seeds = range(first_seed, first_seed + rooms)
    return summary(measure_room(predictor, seed, width_px, per_kind, compute_distances)
                   for seed in tqdm(seeds, unit='room', mininterval=5))


def measure_room(predictor, seed, width_px=(320, 640), per_kind=2, compute_distances=False):
    """
    Look at one held-out room, whose camera, pose and questions follow from its seed alone.

    :return: (depth figures, list of (kind, right)).
    """
    rng = np.random.default_rng([DRAWS, seed])
    camera = draw_camera(rng, width_px)
    scene = Scene.random(seed)
    frame = scene.render(camera, scene.pose_at(rng.uniform(0, PERIOD_S)))
    view = predictor.look(frame.rgb, camera)
    answers = []
    for question, truth, kind in some_of_each(frame.questions(seed), per_kind, rng):
        answer = predictor.ask(view, question, MOST_TOKENS, compute_distances).text
        answers.append((kind, judge(kind, answer, truth, frame)))
        if kind == 'far':
            answers.append(('far_10', judge(kind, answer, truth, frame, tolerance=0.1)))
    return depth_metrics(view.depth_m, frame.depth_m).as_dict(), answers


def summary(measured):
    """
    Sum up what measure_room gave.

    :return: dict: depth figures as means over the rooms, 'coverage' (share of the pixels that have
        a prediction) over all, the others over those that have any; and 'answers': kind -> share
        right and number asked; 'far_10' counts distances within 10 %, 'far' and all others within
        25 %.
    """
    depth, right = [], defaultdict(list)
    for of_depth, answers in measured:
        depth.append(of_depth)
        for kind, is_right in answers:
            right[kind].append(is_right)
    judged = [of_depth for of_depth in depth if of_depth['pixels']]
    figures = {name: float(np.mean([of_depth[name] for of_depth in judged])) if judged else np.nan
               for name in DEPTH_FIGURES}
    figures['coverage'] = float(np.mean([of_depth['coverage'] for of_depth in depth]))
    answers = {kind: {'right': float(np.mean(right[kind])), 'asked': len(right[kind])}
               for kind in ('far_10', *KINDS) if right[kind]}
    return {**figures, 'answers': answers}


def measure_in_processes(model, workers, seeds, compute_distances=False, loading=PLAIN):
    """
    Measure rooms in several processes of one thread each, with the same result.

    :param model: as Predictor.from_pretrained takes it; the processes run it on the CPU.
    :param loading: Loading.
    """
    with ProcessPoolExecutor(workers, multiprocessing.get_context('spawn'), _begin_worker,
                             (model, compute_distances, loading)) as pool:
        return summary(tqdm(pool.map(_measure_in_worker, seeds), total=len(seeds), unit='room',
                            mininterval=5))


def _begin_worker(model, compute_distances, loading):
    end_with_parent()
    torch.set_num_threads(1)
    _worker['compute_distances'] = compute_distances
    _worker['predictor'] = Predictor.from_pretrained(model, device='cpu', **loading.as_dict())


def _measure_in_worker(seed):
    return measure_room(_worker['predictor'], seed,
                        compute_distances=_worker['compute_distances'])


def some_of_each(pairs, most, rng):
    """Choose up to `most` questions of every kind."""
    chosen = []
    for kind in KINDS:
        same = [pair for pair in pairs if pair[2] == kind]
        chosen += [same[i] for i in rng.permutation(len(same))[:most]]
    return chosen


def measure_focal(predictor, rooms, first_seed=0, width=480, height=360):
    """
    See rooms from one place through four focal lengths, and with a wrong one.

    :return: dict: 'ratio': fx / width -> median over rooms of the median of prediction over truth;
        'within_5_percent': share of the rooms whose four such medians are all that near to 1;
        'apart': median over rooms of the largest of the four over the smallest, less 1;
        'wrong_fx': factor of fx -> the same ratio, which should be that factor.
    """
    ratios, wrong = defaultdict(list), defaultdict(list)
    for seed in range(first_seed, first_seed + rooms):
        scene = Scene.random(seed)
        for share in FOCAL_SHARES:
            camera = Intrinsics.centred(width, height, share * width)
            frame = scene.render(camera)
            ratios[share].append(ratio(predictor, frame, camera))
            if share == 1.0:
                for factor in WRONG_FACTORS:
                    false = Intrinsics.centred(width, height, factor * share * width)
                    wrong[factor].append(ratio(predictor, frame, false))
    of_rooms = np.array(list(ratios.values()))      # (focal lengths, rooms)
    return {'ratio': {str(k): float(np.median(v)) for k, v in ratios.items()},
            'within_5_percent': float((np.abs(of_rooms - 1) <= 0.05).all(0).mean()),
            'apart': float(np.median(of_rooms.max(0) / of_rooms.min(0) - 1)),
            'wrong_fx': {str(k): float(np.median(v)) for k, v in wrong.items()}}


def ratio(predictor, frame, camera):
    """Return the median of predicted over true depth when the camera is said to be `camera`."""
    return float(np.nanmedian(predictor.look(frame.rgb, camera).depth_m / frame.depth_m))


def measure_speed(predictor, repeats=20):
    """Return images/s of depth alone at 640 x 480 and fx 525."""
    camera = Intrinsics.centred(640, 480, 525.0)
    rgb = Scene.random(0).render(camera).rgb
    for _ in range(WARM_UP):
        predictor.look(rgb, camera)
    began = time.perf_counter()
    for _ in range(repeats):
        predictor.look(rgb, camera)
    return repeats / (time.perf_counter() - began)


def print_table(result):
    """Print the figures for people."""
    print(f"{result['rooms']} held-out rooms, random cameras; model {result['model']}")
    print('  '.join(f'{name} {result[name]:.3f}' for name in (*DEPTH_FIGURES, 'coverage')))
    for kind, value in result['answers'].items():
        print(f"  {kind:8} {value['right']:.3f} of {value['asked']}")
    for share, value in result['focal']['ratio'].items():
        print(f'  fx = {share} of the width: prediction / truth {value:.3f}')
    print(f"  all four within 5 %: {result['focal']['within_5_percent']:.3f} of the rooms; "
          f"apart by {100 * result['focal']['apart']:.1f} % (median)")
    for factor, value in result['focal']['wrong_fx'].items():
        print(f'  fx wrong by {factor}: prediction / truth {value:.3f}')
    print(f"  {result['images_per_s']:.1f} images/s at 640 x 480 on {result['device']}")


def main(args=None):
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--model', default='nano', help="'nano', a folder or a hub id")
    parser.add_argument('--device', default='auto')
    parser.add_argument('--rooms', type=at_least(1), default=500)
    parser.add_argument('--focal-rooms', type=at_least(1), default=40)
    parser.add_argument('--first-seed', type=at_least(0), default=0,
                        help='seed of the first of the held-out rooms')
    parser.add_argument('--workers', type=at_least(1), default=1,
                        help='processes that share out the rooms, on the CPU')
    parser.add_argument('--compute-distances', action='store_true',
                        help='combine its words with the depth where it points')
    add_loading(parser)
    options = parser.parse_args(args)
    loading = Loading.of(options)
    if options.workers > 1 and options.device not in ('auto', 'cpu'):
        parser.error(f'--workers is {options.workers}, which is for the CPU, and --device '
                     f'{options.device}: wanted one or the other')
    device = 'cpu' if options.workers > 1 else options.device
    seeds = range(options.first_seed, options.first_seed + options.rooms)
    try:
        predictor = Predictor.from_pretrained(options.model, device=device, **loading.as_dict())
    except ValueError as e:
        parser.error(str(e))
    of_rooms = (measure_in_processes(options.model, options.workers, seeds,
                                     options.compute_distances, loading)
                if options.workers > 1 else None)
    result = {'model': options.model, 'rooms': options.rooms, 'first_seed': options.first_seed,
              **provenance(predictor.device, predictor.model.dtype),
              'loading': loading.as_dict(),
              'compute_distances': options.compute_distances,
              **(of_rooms or measure_rooms(predictor, options.rooms, options.first_seed,
                                           compute_distances=options.compute_distances)),
              'focal': measure_focal(predictor, options.focal_rooms, options.first_seed),
              'images_per_s': measure_speed(predictor)}
    print_table(result)
    print(json_line(result))


if __name__ == '__main__':
    main()
