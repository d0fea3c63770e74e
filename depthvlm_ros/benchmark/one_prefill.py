# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What many questions about one frame cost: one pass for all of them, or full passes for each."""

from __future__ import annotations

import time

from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.model.lengths import scaled
from depthvlm_ros.model.prompt import encode_words
from depthvlm_ros.synthetic import Scene
import numpy as np
import torch
from tqdm import tqdm
from transformers import DynamicCache

CAMERA = Intrinsics.centred(640, 480, 525.0)
SEED = 7


def room_questions(count):
    """
    Return an image of a held-out room, and questions about it, the kinds taking turns.

    :param count: how many different questions are wanted.
    :return: (H, W, 3) uint8 seen by CAMERA, and a list of count questions.
    """
    scene = Scene.random(SEED)
    frame = scene.render(CAMERA, scene.pose_at(0.0))
    questions = {}
    for draw in range(20 * count):
        of_kinds = {kind: question for question, _, kind in frame.questions(draw)}
        questions.update(dict.fromkeys(of_kinds.values()))
        if len(questions) >= count:
            break
    return frame.rgb, list(questions)[:count]


def measure_one_prefill(predictor, questions=10, rounds=3, max_tokens=64):
    """
    Ask the same questions about one frame both ways, in turn, and compare.

    The ways of a question: *ours*, whose share of the one pass over the image is counted; *full*,
    the released code's: a pass for the depth with the output layer over every token, and another
    with the image encoded anew that the words are generated from, by a general forward pass a
    token; *words*, that second pass alone.

    :param predictor: model.Predictor.
    :param rounds: how often each way is timed; medians are taken.
    :return: dict: 'ratio' (full over ours), 'words_ratio' (words over ours), 'identical' (whether
        all answers are the same), times per question in s, 'look_s' of our one pass, and how many
        tokens were decoded for all questions.
    """
    rgb, asked = room_questions(questions)
    ways = {'ours': ask_ours, 'full': ask_full}
    for ask in (*ways.values(),) * 2:   # the first times pay for what is set up and captured
        ask(predictor, rgb, asked[:1], 2)
    times = {'ours': [], 'full': [], 'words': []}
    answers, looking_s = {}, []
    for turn in tqdm(range(rounds), unit='round', desc='one pass against full passes'):
        for way in list(ways) if turn % 2 == 0 else reversed(ways):
            began = time.perf_counter()
            answers[way], depth_s = ways[way](predictor, rgb, asked, max_tokens)
            times[way].append(time.perf_counter() - began)
            if way == 'full':
                times['words'].append(times['full'][-1] - depth_s)
            else:
                looking_s.append(depth_s)
    per_question = {way: float(np.median(spent)) / len(asked) for way, spent in times.items()}
    return {'ratio': per_question['full'] / per_question['ours'],
            'identical': answers['ours'] == answers['full'],
            'words_ratio': per_question['words'] / per_question['ours'],
            'ours_s': per_question['ours'], 'full_s': per_question['full'],
            'words_s': per_question['words'], 'look_s': float(np.median(looking_s)),
            'questions': len(asked), 'tokens': sum(tokens for _, tokens in answers['ours'])}


def ask_ours(predictor, rgb, questions, max_tokens):
    """Look once and continue its cache; return [(text, tokens), ...] and the s of the look."""
    began = time.perf_counter()
    view = predictor.look(rgb, CAMERA)
    look_s = time.perf_counter() - began
    answers = [predictor.ask(view, question, max_tokens) for question in questions]
    return [(answer.text, answer.tokens) for answer in answers], look_s


def ask_full(predictor, rgb, questions, max_tokens):
    """Pass twice for every question; return [(text, tokens), ...] and the s spent for depth."""
    answers, depth_s = [], 0.0
    for question in questions:
        began = time.perf_counter()
        depth_pass(predictor, rgb, question)
        depth_s += time.perf_counter() - began
        answers.append(generate(predictor, rgb, question, max_tokens))
    return answers, depth_s


def inputs_of(predictor, rgb, question, camera=CAMERA):
    """Return the whole prompt's ids (1, S) and positions (3, 1, S), the pixels and their grid."""
    ids, _, pixels, grid, _ = predictor.inputs_of([(rgb, camera)])
    words = torch.tensor([[*encode_words(predictor.tokenizer, question),
                           *predictor.prompt.after_question]], device=predictor.device)
    ids = torch.cat((ids, words), dim=1)
    return ids, predictor.model.positions(ids, image_grid_thw=grid), pixels, grid


@torch.inference_mode()
def depth_pass(predictor, rgb, question):
    """Return the depth, (H, W) numpy float32, of a pass as the released code makes it."""
    ids, positions, pixels, grid = inputs_of(predictor, rgb, question)
    out = predictor.model(ids, pixel_values=pixels, image_grid_thw=grid, position_ids=positions,
                          past_key_values=DynamicCache(), logits_to_keep=ids.shape[1])
    return out.depth_pred[0].cpu().numpy()


@torch.inference_mode()
def generate(predictor, rgb, question, max_tokens, camera=CAMERA, on_token=lambda: None):
    """
    Decode greedily behind a pass over the whole prompt.

    :param on_token: called when a token is known.
    :return: the text and the number of its tokens.
    """
    model, cache, decoded = predictor.model, DynamicCache(), []
    ids, positions, pixels, grid = inputs_of(predictor, rgb, question, camera)
    logits = model(ids, pixel_values=pixels, image_grid_thw=grid, position_ids=positions,
                   past_key_values=cache, with_depth=False).logits
    position = int(positions.max()) + 1
    while (token := int(logits[0, -1].argmax())) not in predictor.prompt.stops:
        decoded.append(token)
        on_token()
        if len(decoded) >= max_tokens:
            break
        logits = model(torch.tensor([[token]], device=predictor.device), past_key_values=cache,
                       position_ids=torch.full((3, 1, 1), position, device=predictor.device),
                       with_depth=False).logits
        position += 1
    text = predictor.tokenizer.decode(decoded, skip_special_tokens=True)
    return scaled(text, predictor.words_scale(predictor.plan(camera))), len(decoded)
