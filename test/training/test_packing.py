# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0

import copy

from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.model import Predictor
from depthvlm_ros.model.preprocessing import preprocess
from depthvlm_ros.model.prompt import Prompt
from depthvlm_ros.training.packing import conversation_ids, IGNORED, pack, Row
import pytest
import torch

TALK = [('How far is the red box?', 'The red box is 2.37 m away.'),
        ('Point at the blue ball.', '[{"point_2d": [512, 430], "label": "blue ball"}]'),
        ('Is there more?', 'There is no green cone in the image.')]
OPENING = '<|im_end|>\n<|im_start|>assistant\n'


@pytest.fixture(scope='module')
def predictor(tiny_checkpoint):
    return Predictor.from_pretrained(tiny_checkpoint, device='cpu')


@pytest.fixture(scope='module')
def image(predictor):
    rgb = torch.randint(0, 256, (60, 80, 3), dtype=torch.uint8,
                        generator=torch.Generator().manual_seed(0))
    return preprocess(rgb, Intrinsics.centred(80, 60, 64.0), predictor.config)


def encode(predictor, *turns):
    return conversation_ids(predictor.tokenizer, predictor.prompt, turns)


def test_only_the_answer_is_supervised(predictor):
    tokenizer = predictor.tokenizer
    ids, targets = encode(predictor, TALK[0])
    supervised = [t for t in targets if t != IGNORED]
    assert tokenizer.decode(supervised) == TALK[0][1] + '<|im_end|>'
    first = next(i for i, t in enumerate(targets) if t != IGNORED)
    assert tokenizer.decode(ids[:first + 1]) == TALK[0][0] + OPENING
    # A target is the token that follows.
    assert all(t in (IGNORED, ids[i + 1]) for i, t in enumerate(targets[:-1]))
    assert targets[-1] == IGNORED


def test_of_several_turns_every_answer_and_nothing_else_is_supervised(predictor):
    tokenizer = predictor.tokenizer
    ids, targets = encode(predictor, *TALK)
    assert tokenizer.decode(ids) == '\n<|im_start|>user\n'.join(
        f'{question}{OPENING}{answer}<|im_end|>' for question, answer in TALK)
    supervised = [t for t in targets if t != IGNORED]
    assert tokenizer.decode(supervised) == ''.join(
        f'{answer}<|im_end|>' for _, answer in TALK)
    assert all(t in (IGNORED, ids[i + 1]) for i, t in enumerate(targets[:-1]))


def test_turns_are_cut_alike_whatever_the_tokenizer_is_set_to(predictor):
    ids, _ = encode(predictor, *TALK)
    told = copy.deepcopy(predictor.tokenizer)
    told.split_special_tokens = True
    assert conversation_ids(told, Prompt.of(told), TALK)[0] == ids


def test_packed_questions_are_as_if_asked_alone(predictor, image):
    model, tokenizer, prompt = predictor.model, predictor.tokenizer, predictor.prompt
    pixels, grid = image
    prefix = prompt.prefix(len(pixels) // 4)
    positions = model.positions(torch.tensor([prefix]), image_grid_thw=grid)[:, 0]
    talks = [encode(predictor, pair) for pair in TALK]
    packed = pack([Row(prefix, positions, talks), Row(prefix, positions, talks[:1])],
                  tokenizer.pad_token_id)
    with torch.no_grad():
        out = model(packed.input_ids, attention_mask=packed.mask, position_ids=packed.positions,
                    pixel_values=torch.cat([pixels, pixels]),
                    image_grid_thw=torch.cat([grid, grid]))
        at = len(prefix)
        for ids, _ in talks:
            alone = model(torch.tensor([prefix + ids]), pixel_values=pixels, image_grid_thw=grid)
            torch.testing.assert_close(out.hidden[0, at:at + len(ids)],
                                       alone.hidden[0, len(prefix):], atol=2e-4, rtol=0)
            at += len(ids)
    torch.testing.assert_close(out.depth_pred[0], alone.depth_pred[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(out.hidden[1, :len(prefix)], out.hidden[0, :len(prefix)],
                               atol=2e-4, rtol=0)


def test_rows_of_one_conversation_need_no_mask(predictor, image):
    model, prompt = predictor.model, predictor.prompt
    pixels, grid = image
    prefix = prompt.prefix(len(pixels) // 4)
    positions = model.positions(torch.tensor([prefix]), image_grid_thw=grid)[:, 0]
    text = list(prompt.before_image[:-1])
    rows = [Row(prefix, positions, [encode(predictor, TALK[0])]),
            Row(text, torch.arange(len(text)).expand(3, -1), [encode(predictor, TALK[1])])]
    packed = pack(rows, predictor.tokenizer.pad_token_id)
    assert packed.mask is None
    with torch.no_grad():
        out = model(packed.input_ids, position_ids=packed.positions, pixel_values=pixels,
                    image_grid_thw=grid)
        image_alone = model(torch.tensor([prefix + rows[0].talks[0][0]]), pixel_values=pixels,
                            image_grid_thw=grid)
        text_alone = model(torch.tensor([text + rows[1].talks[0][0]]))
    for b, alone in enumerate((image_alone, text_alone)):
        length = alone.hidden.shape[1]
        torch.testing.assert_close(out.hidden[b, :length], alone.hidden[0], atol=2e-4, rtol=0)
    torch.testing.assert_close(out.depth_pred[0], image_alone.depth_pred[0], atol=1e-4, rtol=0)


def test_padding_is_not_supervised(predictor):
    talks = [encode(predictor, pair) for pair in TALK]
    positions = torch.arange(4).expand(3, -1)
    prefix = [1, 2, 3, 4]
    packed = pack([Row(prefix, positions, talks), Row(prefix, positions, talks[:1])], 0)
    end = 4 + len(talks[0][0])
    assert (packed.targets[1, end:] == IGNORED).all()
    assert (packed.targets[:, :4] == IGNORED).all()
    assert (packed.targets[1] != IGNORED).sum() == sum(t != IGNORED for t in talks[0][1])


def test_rows_have_few_lengths(predictor):
    ids, targets = encode(predictor, TALK[0])
    row = Row([1, 2, 3], torch.arange(3).expand(3, -1), [(ids, targets)])
    packed = pack([row], predictor.tokenizer.pad_token_id)
    assert packed.input_ids.shape == (1, 32)
    assert (packed.targets != IGNORED).sum() == sum(t != IGNORED for t in targets)
