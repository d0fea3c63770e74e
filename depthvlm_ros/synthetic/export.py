# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Rooms as files: `python -m depthvlm_ros.synthetic.export --out DIR --count N`.

annotations.jsonl with rgb/ and depth/ is a dataset in the DepthVLM-Bench format; questions.jsonl
holds conversations to train on, and vqa.jsonl questions with the answers that are accepted.
"""

import argparse
from contextlib import ExitStack
import json
import math
from pathlib import Path

import cv2
from depthvlm_ros.camera import check_image_size, Intrinsics
from depthvlm_ros.options import at_least
from depthvlm_ros.synthetic.cameras import FOCAL_RANGE
from depthvlm_ros.synthetic.scene import Scene
from depthvlm_ros.synthetic.walk import PERIOD_S
from depthvlm_ros.synthetic.wording import DEPTH_ANSWER, DEPTH_QUESTION, number_in
import numpy as np
from tqdm import tqdm

CANONICAL_FX_PX = 1000.0
DEPTH_SCALE = 4000.0  # steps per metre: a quarter of a millimetre, 16.38 m at most
POINTS = 10  # sparse points an image, as upstream draws
MOST_ROOMS = 10**9
IMAGE_MARK = '<image>\n'  # stands where a conversation shows its image

# Kinds of question whose answer is told by a word or two, whatever distances stand beside them.
VQA_KINDS = ('closer', 'count', 'side', 'what', 'absent')
NUMBER_WORDS = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')


def draw_export_camera(rng, width, height):
    """
    Draw a camera that the format can say: square pixels and centred, its fx to two decimals.

    :param rng: what it is drawn with.
    """
    fx_px = width * math.exp(rng.uniform(*map(math.log, FOCAL_RANGE)))
    return Intrinsics.centred(width, height, round(fx_px, 2))


def annotation_of(frame, name, scene, rng):
    """
    Annotate a frame in the released format, all fields of it.

    :param name: of its files, without the ending.
    :param scene: what the room is called.
    :param rng: what the sparse points are drawn with.
    :return: dict for one line of JSON.
    """
    k = frame.intrinsics
    stored = stored_depth(frame.depth_m)
    rows, columns = np.nonzero(stored)
    chosen = rng.choice(rows.size, min(POINTS, rows.size), replace=False)
    return {
        'scene': scene,
        'image': f'rgb/{name}.png',
        'depth_path': f'depth/{name}.png',
        'depth_scale': DEPTH_SCALE,
        'original_rgb_size': [k.width, k.height],
        'original_depth_size': [k.width, k.height],
        'original_fx': k.fx,
        'canonical_fx': CANONICAL_FX_PX,
        'canonical_size': list(k.size_at_focal(CANONICAL_FX_PX)),
        'prompt': DEPTH_QUESTION,
        'solution': DEPTH_ANSWER,
        'pixel_coords': [[int(columns[i]), int(rows[i])] for i in chosen],
        'depth': [round(float(stored[rows[i], columns[i]]) / DEPTH_SCALE, 4) for i in chosen],
        'depth_type': 'z_depth'}


def stored_depth(depth_m):
    """
    Return depth as a 16-bit PNG holds it: metres times DEPTH_SCALE, rounded, 0 invalid.

    :param depth_m: (H, W) metres.
    :raises ValueError: a depth beyond what 16 bits hold.
    """
    steps = np.round(np.asarray(depth_m, np.float64) * DEPTH_SCALE)
    if steps.max() > 65535:
        raise ValueError(f'a depth is {np.max(depth_m):.2f} m, wanted at most '
                         f'{65535 / DEPTH_SCALE:.2f} m')
    return steps.astype(np.uint16)


def conversations_of(frame, name, seed):
    """
    Write a frame's questions as conversations, one each.

    :param seed: of what is asked, and in which words.
    :return: list of dicts: image, fx (px), kind, and messages of a user and an assistant.
    """
    return [{'image': f'rgb/{name}.png', 'fx': frame.intrinsics.fx, 'kind': kind,
             'messages': [{'role': 'user', 'content': IMAGE_MARK + question},
                          {'role': 'assistant', 'content': answer}]}
            for question, answer, kind in frame.questions(seed)]


def vqa_of(frame, name, seed):
    """
    Write a frame's questions that have short answers, with the answers that are accepted.

    :param seed: of what is asked, and in which words.
    :return: list of dicts: image, fx (px), kind, question, answers, and of sides and numbers also
        exact_answers, words that are right alone but may stand in a wrong answer.
    """
    return [{'image': f'rgb/{name}.png', 'fx': frame.intrinsics.fx, 'kind': kind,
             'question': question, 'answers': accepted_answers(kind, answer),
             **({'exact_answers': lone} if (lone := lone_answers(kind, answer)) else {})}
            for question, answer, kind in frame.questions(seed) if kind in VQA_KINDS]


def lone_answers(kind, answer):
    """
    Return what is accepted only as it stands, since a wrong answer may hold it too.

    :param kind: one of VQA_KINDS.
    :param answer: as Frame.questions gives it.
    """
    if kind == 'side':
        side = side_of(answer)
        places = [f'to the {side}', f'on the {side}', f'on the {side} side']
        return [side, f'{side} side', *places, *(f'it is {place}' for place in places)]
    if kind == 'closer':
        label = closer_of(answer)
        return [label, f'the closer one is the {label}', f'the {label} is the closer one']
    if kind == 'count':
        words = words_of(number_in(answer))
        return words + [f'there {verb} {word}' for word in words for verb in ('is', 'are')]
    return []


def closer_of(answer):
    """Return the thing that is closer, as an answer that compares says."""
    return answer.rpartition(' so the ')[2].removesuffix(' is closer.')


def words_of(number):
    """Return a number of things in figures and in words."""
    return [str(number), *NUMBER_WORDS[number:number + 1], *(() if number else ('no', 'none'))]


def side_of(answer):
    """Return 'left' or 'right', as an answer about sides says."""
    return 'left' if ' left ' in answer else 'right'


def accepted_answers(kind, answer):
    """
    Return what is accepted in place of an exact answer, itself first.

    None of it stands in a wrong answer of the same form. Of what is at a place it is the thing's
    name, which an answer that names more may hold too; distances beside it are not judged.

    :param kind: one of VQA_KINDS.
    :param answer: as Frame.questions gives it.
    """
    text = answer.rstrip('.')
    if kind == 'closer':
        label = closer_of(answer)
        return [answer, f'the {label} is closer', f'{label} is nearer']
    if kind == 'side':
        side = side_of(answer)
        other = {'left': 'right', 'right': 'left'}[side]
        first, _, second = text.removeprefix('The ').partition(f' is {side} of the ')
        return [answer, *(f'{place} the {label}' for label, word in (
            (second, side), (first, other)) for place in (f'{word} of', f'{word} side of'))]
    if kind == 'what':
        return [answer, text.removeprefix('The ').partition(',')[0]]
    if kind == 'absent':
        return [answer, text.removesuffix(' in the image')]
    things = text.split(maxsplit=3)[3]
    return [answer, *(f'{word} {things}' for word in words_of(number_in(answer))
                      if word != 'none')]


def export(out, count, seed=0, split='held_out', width=640, height=480):
    """
    Write rooms to a folder.

    The three lists take the place of those that are there once all rooms are written.

    :param out: the folder; files of the same names are replaced.
    :param count: how many rooms, one image each.
    :param seed: of the first room.
    :param split: 'train' or 'held_out'.
    :param width: of the images, px.
    :param height: of the images, px.
    :raises ValueError: no folder, a count below 1 or above MOST_ROOMS, another split, a negative
        seed, or images that are too large to be read again.
    :raises OSError: a file that cannot be written.
    """
    if not str(out):
        raise ValueError('out is empty, wanted a folder')
    if not 1 <= count <= MOST_ROOMS:
        raise ValueError(f'count is {count}, wanted 1 to {MOST_ROOMS}')
    check_image_size(height, width)
    widest = Intrinsics.centred(width, height, FOCAL_RANGE[0] * width)
    canonical = widest.size_at_focal(CANONICAL_FX_PX)
    check_image_size(*canonical[::-1], f'an image of {width} x {height} at the canonical focal '
                     'length')
    out = Path(out)
    for folder in ('rgb', 'depth'):
        (out / folder).mkdir(parents=True, exist_ok=True)
    lists = [out / f'{name}.jsonl' for name in ('annotations', 'questions', 'vqa')]
    parts = [path.with_suffix('.jsonl.part') for path in lists]
    with ExitStack() as stack:
        annotations, questions, vqa = (stack.enter_context(open(part, 'w', encoding='utf-8'))
                                       for part in parts)
        for room in tqdm(range(seed, seed + count), unit='room', mininterval=1):
            scene = Scene.random(room, split)
            rng = np.random.default_rng([room, width, height])
            camera = draw_export_camera(rng, width, height)
            frame = scene.render(camera, scene.pose_at(rng.uniform(0, PERIOD_S)))
            # Lists of other sizes, or of a killed export, go on telling of their own images.
            name = f'{split}_{room:06d}_{width}x{height}'
            write_png(out / 'rgb' / f'{name}.png', frame.rgb[..., ::-1])
            write_png(out / 'depth' / f'{name}.png', stored_depth(frame.depth_m))
            write_lines(annotations, [annotation_of(frame, name, f'{split} {room}', rng)])
            write_lines(questions, conversations_of(frame, name, room))
            write_lines(vqa, vqa_of(frame, name, room))
    for part, path in zip(parts, lists):
        part.replace(path)


def write_png(path, pixels):
    """Write an image, blue first, or one of 16-bit depth."""
    if not cv2.imwrite(str(path), pixels):
        raise OSError(f'{path}: not written')


def write_lines(file, values):
    """Write values as lines of JSON."""
    for value in values:
        file.write(json.dumps(value) + '\n')


def main(args=None):
    """Parse the command line and export."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--out', required=True, help='folder')
    parser.add_argument('--count', type=at_least(1), required=True,
                        help='rooms, one image each')
    parser.add_argument('--seed', type=at_least(0), default=0, help='seed of the first room')
    parser.add_argument('--split', choices=('held_out', 'train'), default='held_out')
    parser.add_argument('--width', type=at_least(1), default=640, help='px')
    parser.add_argument('--height', type=at_least(1), default=480, help='px')
    options = parser.parse_args(args)
    try:
        export(options.out, options.count, options.seed, options.split, options.width,
               options.height)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(f'{options.out}: annotations.jsonl, questions.jsonl, vqa.jsonl')
    if options.split == 'held_out':
        print('These rooms are for judging, benchmark.rooms asks about them too: train on those '
              'of --split train')


if __name__ == '__main__':
    main()
