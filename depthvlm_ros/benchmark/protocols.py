# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Three ways to depth with one model: `python -m depthvlm_ros.benchmark.protocols --model nano`.

A question a pixel, read out of its words (DepthLM's way); a coarse grid of depths written token by
token (Youtu-VL's way); one pass with the depth head. Prints a table and, last, one line of JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
import time

from depthvlm_ros.benchmark.metrics import depth_metrics
from depthvlm_ros.benchmark.provenance import json_line, provenance
from depthvlm_ros.benchmark.published import predictor_of
from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.model import Decoding, View
from depthvlm_ros.synthetic import Scene
from depthvlm_ros.synthetic.judge import metres_in
import numpy as np
import torch
from tqdm import tqdm
from transformers import DynamicCache

CAMERA = Intrinsics.centred(256, 192, 210.0)    # the paper's size; the focal length is ours
PIXEL_QUESTION = 'What is at [{x}, {y}] and how far is it?'     # what nano was taught
GRID_QUESTION = ('Estimate the depth in metres on a grid of {columns} x {rows} places, '
                 'row by row, one number for each.')
MOST_PIXEL_TOKENS = 32
WARM_UP = 2     # runs that pay for what is set up once


def clocks_s(device):
    """Return (wall clock, processor time of this process) in s once the device has caught up."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
    return np.array([time.perf_counter(), time.process_time()])


def pixel_question(u, v, camera):
    """Ask for the depth of pixel (u, v), its centre in thousandths of the image."""
    return PIXEL_QUESTION.format(x=round((u + 0.5) / camera.width * 1000),
                                 y=round((v + 0.5) / camera.height * 1000))


def draw_pixels(depth_m, count, rng):
    """Draw (u, v) places at which a depth map (H, W) is known, all different where it can be."""
    v, u = np.nonzero(np.isfinite(depth_m))
    chosen = rng.choice(len(u), count, replace=count > len(u))
    return [(int(u[i]), int(v[i])) for i in chosen]


@torch.inference_mode()
def read_image(predictor, rgb, camera):
    """Return a View of an image that was encoded for words alone: its depth is NaN."""
    ids, positions, pixels, grid, tokens = predictor.inputs_of([(rgb, camera)])
    cache = DynamicCache()
    predictor.model(ids, pixel_values=pixels, image_grid_thw=grid, position_ids=positions,
                    past_key_values=cache, logits_to_keep=0, with_depth=False)
    unknown_m = np.full((camera.height, camera.width), np.nan, np.float32)
    return View(depth_m=unknown_m, intrinsics=camera, image_tokens=tokens, cache=cache,
                next_position=int(positions.max()) + 1,
                words_scale=predictor.words_scale(predictor.plan(camera)))


def sample_rooms(rooms, pixels, first_seed=0):
    """
    Render held-out rooms and draw places in them.

    :return: list of (frame, [(u, v), ...]), `pixels` places in all, shared evenly.
    """
    rng = np.random.default_rng(first_seed)
    shares = [len(part) for part in np.array_split(np.arange(pixels), rooms)]
    frames = [Scene.random(first_seed + i).render(CAMERA) for i in range(rooms)]
    return [(frame, draw_pixels(frame.depth_m, share, rng))
            for frame, share in zip(frames, shares)]


def measure_pixels(predictor, sampled, shared_pass):
    """
    Ask for the depth of single pixels, one question each.

    :param sampled: as sample_rooms gives it.
    :param shared_pass: encode an image once for all of its questions; False encodes it anew for
        every pixel, as DepthLM must, whose image carries a mark at the pixel.
    :return: s of each question (questions, 2), wall clock and processor, and the depths read, NaN
        where there was none.
    """
    spent_s, depths_m = [], []
    for frame, places in tqdm(sampled, unit='room', desc='a question a pixel', mininterval=5):
        view = read_image(predictor, frame.rgb, CAMERA) if shared_pass else None
        for u, v in places:
            began = clocks_s(predictor.device)
            seen = view or read_image(predictor, frame.rgb, CAMERA)
            answer = predictor.ask(seen, pixel_question(u, v, CAMERA), MOST_PIXEL_TOKENS)
            spent_s.append(clocks_s(predictor.device) - began)
            depths_m.append(metres_in(answer.text))
    return np.array(spent_s), np.array(depths_m, np.float32)


def grid_answer(depth_m, columns, rows):
    """Write the depths (m) at the cells' centres as an answer to GRID_QUESTION would."""
    v = ((np.arange(rows) + 0.5) / rows * depth_m.shape[0]).astype(int)
    u = ((np.arange(columns) + 0.5) / columns * depth_m.shape[1]).astype(int)
    return '\n'.join(' '.join(f'{metres:.2f}' for metres in row) for row in depth_m[v][:, u])


def measure_grid(predictor, frame, columns, rows):
    """
    Let the model write a coarse grid of depths, token by token.

    A model that was never taught this ends early or writes something else; it is made to go on
    for as many tokens as such an answer has, since its time does not depend on what it writes.

    :return: (2,) s, wall clock and processor, to as many tokens as there are cells (a vocabulary
        of quantised depths, one token each, as Youtu-VL has it); the same to as many as the
        numbers with two decimals take in this tokenizer; and a dict: 'text_tokens', how many that
        is, 'ended_after', where the model wanted to stop, None where it did not, and 'numbers'
        that it had written by then.
    """
    cells = columns * rows
    question = GRID_QUESTION.format(columns=columns, rows=rows)
    written = grid_answer(np.nan_to_num(frame.depth_m), columns, rows)
    text_tokens = max(cells, len(predictor.tokenizer(written)['input_ids']))
    free = predictor.ask(read_image(predictor, frame.rgb, CAMERA), question, text_tokens)
    endless = dataclasses.replace(predictor.prompt, stops=frozenset())
    began = clocks_s(predictor.device)
    decoding = Decoding(predictor.model, predictor.tokenizer, endless,
                        read_image(predictor, frame.rgb, CAMERA), question, text_tokens,
                        predictor.engine.steps)
    while decoding.tokens < cells:
        decoding.step()
    cells_s = clocks_s(predictor.device) - began
    while decoding.step():
        pass
    return cells_s, clocks_s(predictor.device) - began, {
        'cells': cells, 'text_tokens': decoding.tokens,
        'ended_after': free.tokens if free.ended == 'stop' else None,
        'numbers': len(re.findall(r'\d+\.\d+', free.text))}


def measure_head(predictor, sampled, repeats):
    """
    Look at rooms in one pass each, with the depth head.

    :return: s of each pass (passes, 2), wall clock and processor, and the depth maps (H, W) in
        the rooms' order.
    """
    spent_s, maps_m = [], []
    for turn in range(max(repeats, len(sampled))):
        frame, _ = sampled[turn % len(sampled)]
        began = clocks_s(predictor.device)
        view = predictor.look(frame.rgb, CAMERA)
        spent_s.append(clocks_s(predictor.device) - began)
        if turn < len(sampled):
            maps_m.append(view.depth_m)
    return np.array(spent_s), maps_m


def warm_up(predictor, frame):
    """Pay for what is set up once."""
    for _ in range(WARM_UP):
        view = predictor.look(frame.rgb, CAMERA)
        predictor.ask(view, pixel_question(0, 0, CAMERA), 2)


def accuracy(depths_m, maps_m, sampled):
    """
    Hold words and depth head against the rooms' true depth, at the same places.

    :return: dict: 'words', 'head' at these places and 'head_dense' over whole images: delta1 and
        abs_rel each; of words also 'read', the share of answers that name a distance. The other
        figures of 'words' are over these alone.
    """
    at = [(room, u, v) for room, (_, places) in enumerate(sampled) for u, v in places]
    truth_m = np.array([sampled[room][0].depth_m[v, u] for room, u, v in at])
    head_m = np.array([maps_m[room][v, u] for room, u, v in at])
    dense = [depth_metrics(map_m, frame.depth_m) for map_m, (frame, _) in zip(maps_m, sampled)]
    words, head = depth_metrics(depths_m, truth_m), depth_metrics(head_m, truth_m)
    return {'words': {'delta1': words.delta1, 'abs_rel': words.abs_rel, 'read': words.coverage},
            'head': {'delta1': head.delta1, 'abs_rel': head.abs_rel},
            'head_dense': {'delta1': float(np.mean([d.delta1 for d in dense])),
                           'abs_rel': float(np.mean([d.abs_rel for d in dense]))}}


def measure_protocols(predictor, pixels, rooms, columns, rows, repeats=10):
    """
    Time the three ways on the same images, and judge what can be judged.

    :param pixels: questions asked of each kind, over all rooms.
    :return: dict: 'times_s', 'cpu_s' (processor time, which other programs on the machine touch
        little) and their ratios to the one pass, by way, for one image; and accuracy.
    """
    sampled = sample_rooms(rooms, pixels)
    frame = sampled[0][0]
    warm_up(predictor, frame)
    whole = CAMERA.width * CAMERA.height
    anew_s, depths_m = measure_pixels(predictor, sampled, shared_pass=False)
    shared_s, shared_m = measure_pixels(predictor, sampled, shared_pass=True)
    cells_s, text_s, grid = measure_grid(predictor, frame, columns, rows)
    looks_s, maps_m = measure_head(predictor, sampled, repeats)
    spent = {'pixel_questions': anew_s.mean(0) * whole,
             'pixel_questions_shared': shared_s.mean(0) * whole,
             'grid_one_token_a_cell': cells_s, 'grid_as_text': text_s, 'head': looks_s.mean(0)}
    times_s, cpu_s = ({way: float(both[i]) for way, both in spent.items()} for i in (0, 1))
    return {'times_s': times_s, 'ratios': over(times_s, 'head'),
            'cpu_s': cpu_s, 'cpu_ratios': over(cpu_s, 'head'),
            'pixels_timed': pixels, 'pixels_scaled_to': whole, 'rooms': rooms, 'grid': grid,
            'answers_identical': bool(np.array_equal(depths_m, shared_m, equal_nan=True)),
            'accuracy': accuracy(depths_m, maps_m, sampled)}


def over(times_s, way):
    """Return every time over that of one way."""
    return {name: spent_s / times_s[way] for name, spent_s in times_s.items()}


def spelt(seconds):
    """Write a time for people."""
    for unit, length in (('h', 3600.0), ('min', 60.0), ('s', 1.0)):
        if seconds >= length:
            return f'{seconds / length:.2f} {unit}'
    return f'{seconds * 1e3:.1f} ms'


def print_table(result):
    """Print the figures for people."""
    grid, asked = result['grid'], result['pixels_timed']
    print(f"one {CAMERA.width} x {CAMERA.height} image, model {result['model']} on "
          f"{result['device']}, {result['dtype']}")
    print(f"{'':66} {'time':>8} {'ratio':>14} {'cpu ratio':>13}")
    for name, key in (
            (f'(i) a question a pixel, image encoded anew [{asked} timed, scaled]',
             'pixel_questions'),
            (f'    the same behind one shared pass [{asked} timed, scaled]',
             'pixel_questions_shared'),
            (f"(ii) grid of {grid['cells']} depths, one token each", 'grid_one_token_a_cell'),
            (f"    the same as text, {grid['text_tokens']} tokens", 'grid_as_text'),
            ('(iii) one pass with the depth head', 'head')):
        print(f"  {name:62} {spelt(result['times_s'][key]):>10} {result['ratios'][key]:12.1f} x"
              f"{result['cpu_ratios'][key]:12.1f} x")
    print(f"  (i) is {asked} questions over {result['rooms']} rooms, scaled to "
          f"{result['pixels_scaled_to']} pixels")
    if grid['ended_after'] is not None or grid['numbers'] < grid['cells']:
        stop = grid['ended_after']
        print(f"  (ii) this model does not know the grid: it wrote {grid['numbers']} of "
              f"{grid['cells']} numbers and "
              + (f'ended after {stop} tokens' if stop is not None else 'did not end')
              + '; it was made to go on, so its time holds and its words mean nothing')
    print('accuracy in synthetic rooms:      delta1  AbsRel')
    for name, key in (('(i) words, at the pixels asked', 'words'),
                      ('(iii) head, at the same pixels', 'head'),
                      ('(iii) head, whole images', 'head_dense')):
        figures = result['accuracy'][key]
        print(f"  {name:31} {figures['delta1']:6.3f}  {figures['abs_rel']:6.3f}")
    print(f"  {result['accuracy']['words']['read']:.2f} of the answers name a distance")


def grid_size(text):
    """Read 'COLUMNSxROWS'."""
    match = re.fullmatch(r'([1-9]\d{0,2})x([1-9]\d{0,2})', text)
    if not match:
        raise argparse.ArgumentTypeError(f'{text!r}, wanted columns x rows such as 16x12')
    return int(match[1]), int(match[2])


def parsed(args):
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[1])
    parser.add_argument('--model', default='nano',
                        help="'nano', a folder, a hub id, or '4b' or '8b' for random weights")
    parser.add_argument('--device', default='auto')
    parser.add_argument('--dtype', default='auto')
    parser.add_argument('--pixels', type=int, default=96,
                        help='pixels to ask about, over all rooms (%(default)s)')
    parser.add_argument('--rooms', type=int, default=12, help='that they lie in (%(default)s)')
    parser.add_argument('--grid', type=grid_size, default=(16, 12), metavar='16x12',
                        help='columns and rows; 16x12 is a cell for 16 x 16 px')
    options = parser.parse_args(args)
    if not 1 <= options.rooms <= options.pixels:
        parser.error(f'--rooms is {options.rooms} and --pixels {options.pixels}, '
                     'wanted 1 <= rooms <= pixels')
    return options


def main(args=None):
    """Parse the command line, measure, print; 2 where the model cannot be had."""
    options = parsed(args)
    try:
        predictor = predictor_of(options.model, options.device, options.dtype)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    result = {'model': options.model, 'threads': torch.get_num_threads(),
              **provenance(predictor.device, predictor.model.dtype),
              **measure_protocols(predictor, options.pixels, options.rooms, *options.grid)}
    print_table(result)
    print(json_line(result))
    return 0


if __name__ == '__main__':
    sys.exit(main())
