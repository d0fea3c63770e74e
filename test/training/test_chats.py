# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0

import json

import cv2
from depthvlm_ros.benchmark.annotations import RecordError
from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.model.preprocessing import plan_resize
from depthvlm_ros.training.chats import Chat, Chats, read_chat
from depthvlm_ros.training.config import ChatSource
from depthvlm_ros.training.samples import Encoder
from depthvlm_ros.training.start import build
import numpy as np
import pytest
import torch


def said(*turns):
    return [{'role': role, 'content': content} for role, content in turns]


@pytest.mark.parametrize(('fields', 'chat'), [
    ({'messages': said(('user', '<image>\nWhat?'), ('assistant', 'A cup.')), 'image': 'a.png'},
     Chat([('What?', 'A cup.')], 'a.png')),
    ({'messages': said(('user', 'What?\n<image>'), ('assistant', 'A cup.')),
      'images': ['a.png'], 'fx': 50.0},
     Chat([('What?', 'A cup.')], 'a.png', 50.0)),
    ({'messages': said(
        ('system', 'Be kind.'),
        ('user', [{'type': 'image', 'image': 'a.png'}, {'type': 'text', 'text': 'What?'}]),
        ('assistant', [{'type': 'text', 'text': 'A cup.'}]))},
     Chat([('What?', 'A cup.')], 'a.png')),
    ({'messages': said(
        ('user', [{'type': 'image', 'text': None}, {'type': 'text', 'text': 'What?'}]),
        ('assistant', 'A cup.')), 'images': ['a.png']},
     Chat([('What?', 'A cup.')], 'a.png')),
    ({'messages': said(
        ('user', [{'image': 'a.png'}, {'text': 'What?'}]), ('assistant', 'A cup.'))},
     Chat([('What?', 'A cup.')], 'a.png')),
    ({'conversations': [{'from': 'human', 'value': 'One?'}, {'from': 'gpt', 'value': 'Two.'},
                        {'from': 'human', 'value': 'Three?'}, {'from': 'gpt', 'value': 'Four.'}]},
     Chat([('One?', 'Two.'), ('Three?', 'Four.')]))])
def test_the_common_forms_are_read(fields, chat):
    assert read_chat(fields) == chat


def test_an_image_that_is_named_twice_is_one():
    shown = [{'type': 'image', 'image': 'a.png'}, {'type': 'text', 'text': 'A'}]
    assert read_chat({'images': ['a.png'], 'messages': said(
        ('user', shown), ('assistant', 'B'))}).image == 'a.png'


@pytest.mark.parametrize(('fields', 'said_of_it'), [
    ({'question': 'What?'}, r"has \['question'\], wanted messages or conversations"),
    ({'messages': said(('user', 'What?'))}, r"turns \['user'\], wanted user and assistant"),
    ({'messages': said(('user', 'A'), ('user', 'B'))}, 'wanted user and assistant in turn'),
    ({'messages': []}, 'wanted'),
    ([1], r'is \[1\], wanted an object with messages'),
    ({'messages': ['hi']}, "has the message 'hi', wanted one with role and content"),
    ({'messages': [None]}, 'has the message None, wanted one with'),
    ({'messages': said(('user', ['What?']), ('assistant', 'B'))},
     "a message has the part 'What\\?', wanted an object with a type"),
    ({'messages': said(('user', 3), ('assistant', 'B'))}, 'holds int, wanted text or parts'),
    ({'messages': said(('user', 'A'), ('assistant', 'B')), 'images': ['a', 'b']},
     'has 2 images, wanted at most one'),
    ({'messages': said(('user', 'A'), ('assistant', 'B')), 'images': [{'path': 'a.png'}]},
     r"has the image {'path': 'a.png'}, wanted a path"),
    ({'messages': said(('user', 'A'), ('assistant', 'B')), 'image': {'path': 'a.png'}},
     r"has the image {'path': 'a.png'}, wanted a path"),
    ({'messages': said(('user', 'A'), ('assistant', 'B')), 'video': 'a.mp4'}, 'has a video'),
    ({'messages': said(('user', '<video>A'), ('assistant', 'B'))}, 'says <video>, wanted images'),
    ({'messages': said(('user', 'What? \ud83d'), ('assistant', 'B'))},
     'a message: holds half of a character at 6'),
    ({'messages': said(('user', '<image>A'), ('assistant', 'B'))},
     'says <image> . times and has 0 images'),
    ({'messages': said(('user', [{'type': 'image'}, {'text': 'A'}]), ('assistant', 'B'))},
     'says <image> . times and has 0 images'),
    ({'messages': said(('user', [{'type': 'image_url', 'image_url': {'url': 'a.png'}}]),
                       ('assistant', 'B'))}, "has the part {'type': 'image_url'"),
    ({'messages': said(('user', [{'type': 'image', 'url': 'a.png'}]), ('assistant', 'B'))},
     "wanted text, or an image by its path in 'image'"),
    ({'messages': said(('user', 'A'), ('assistant', 'B')), 'fx': 10**400}, 'a chat: fx is 1000'),
    ({'messages': said(('user', 'A'), ('assistant', 'B')), 'fx': -1}, 'a chat: fx is -1, wanted'),
    ({'messages': said(('user', 'A'), ('assistant', ' '))}, "assistant says ' ' and shows"),
    ({'messages': said(('user', 'A'), ('assistant', [{'type': 'image', 'image': 'a.png'}]))},
     r"assistant says '' and shows \['a.png'\], wanted words alone"),
    ({'messages': said(('user', '<image>A<image>'), ('assistant', 'B')), 'image': 'a.png'},
     'says <image> 2 times and has 1 images')])
def test_other_forms_are_refused(fields, said_of_it):
    with pytest.raises(ValueError, match=said_of_it):
        read_chat(fields)


@pytest.fixture(scope='module')
def encoder(tiny_training):
    model, tokenizer, prompt = build(tiny_training)
    return Encoder(model.config, tokenizer, prompt)


def chats_of(folder, encoder, *records):
    (folder / 'chats.jsonl').write_text('\n'.join(
        r if isinstance(r, str) else json.dumps(r) for r in records))
    return Chats(ChatSource('chats.jsonl'), folder, encoder)


def test_text_alone_has_no_image_token(encoder, tmp_path):
    chats = chats_of(tmp_path, encoder,
                     {'messages': said(('user', 'One?'), ('assistant', 'Two.'))})
    sample = chats.sample(0)
    assert len(chats) == 1 and sample.pixel_values is None
    ids = [*sample.row.prefix, *sample.row.talks[0][0]]
    assert encoder.tokenizer.decode(ids) == (
        '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nOne?'
        '<|im_end|>\n<|im_start|>assistant\nTwo.<|im_end|>')


def test_an_image_is_brought_to_the_canonical_focal_length_where_its_own_is_known(
        encoder, tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), np.full((96, 128, 3), 90, np.uint8))
    turns = said(('user', 'One?'), ('assistant', 'Two.'))
    chats = chats_of(tmp_path, encoder, {'messages': turns, 'image': 'a.png'},
                     {'messages': turns, 'image': 'a.png', 'fx': 32.0})
    assert torch.equal(chats.sample(0).grid_thw, torch.tensor([[1, 6, 8]]))
    assert torch.equal(chats.sample(1).grid_thw, torch.tensor([[1, 12, 16]]))
    assert chats.sample(0).depth_m is None


def test_answers_are_in_the_metres_of_the_networks_image_where_the_model_is_told_so(
        encoder, tmp_path, monkeypatch):
    record = {'messages': said(('user', 'How far?'), ('assistant', 'It is 3.00 m away.')),
              'image': 'a.png', 'fx': 40.0}
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((96, 128, 3), np.uint8))
    (tmp_path / 'q.jsonl').write_text(json.dumps(record))
    monkeypatch.setattr(encoder.config, 'canonical_words', True)
    chats = Chats(ChatSource('q.jsonl', max_image_tokens=6), tmp_path, encoder)
    (ids, targets), = chats.sample(0).row.talks
    plan = plan_resize(Intrinsics.centred(128, 96, 40.0), encoder.config, 6)
    assert plan.depth_scale < 0.7
    assert encoder.tokenizer.decode([token for token in targets if token >= 0]) == (
        f'It is {3 / plan.depth_scale:.2f} m away.<|im_end|>')


@pytest.mark.parametrize('fx', [1e12, 1.0])
def test_a_focal_length_that_is_none_is_told(encoder, tmp_path, fx):
    cv2.imwrite(str(tmp_path / 'a.png'), np.full((96, 128, 3), 90, np.uint8))
    chats = chats_of(tmp_path, encoder, {'messages': said(('user', 'A'), ('assistant', 'B')),
                                         'image': 'a.png', 'fx': fx})
    with pytest.raises(RecordError, match='line 1: fx is .*, wanted px, 0.01 to 1000') as told:
        chats.sample(0)
    assert told.value.reason == 'record'


@pytest.mark.parametrize(('record', 'reason'), [
    ('{', 'record'), ({'messages': []}, 'record'), ([1], 'record'),
    ({'messages': said(('user', 'A'), ('assistant', 'B')), 'image': 'none.png'}, 'image'),
    ({'messages': said(('user', 'A' * 5000), ('assistant', 'B'))}, 'record'),
    ({'messages': [3], 'image': 'none.png'}, 'record')])
def test_what_cannot_be_used_says_why(encoder, tmp_path, record, reason):
    with pytest.raises(RecordError) as caught:
        chats_of(tmp_path, encoder, record).sample(0)
    assert caught.value.reason == reason
