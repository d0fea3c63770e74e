# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Agreement with the released class (upstream at 940a9ba) on its own inputs and outputs."""

import json
import zlib

from depthvlm_ros.model import DepthVLM, DepthVLMConfig
import numpy as np
import pytest
import torch


@pytest.fixture(scope='module')
def parity(data):
    return (json.loads((data / 'parity/parity_public.json').read_text()),
            np.load(data / 'parity/parity_public.npz'))


def fill(key, shape):
    """Draw the weights of a key as the released class's were drawn for its outputs."""
    x = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape, dtype=np.float32)
    if len(shape) >= 2:
        return torch.from_numpy(x / np.float32(np.sqrt(np.prod(shape[1:]))))
    return torch.from_numpy(1 + np.float32(0.1) * x if key.endswith('weight')
                            else np.float32(0.1) * x)


@pytest.fixture(scope='module')
def model(parity):
    model = DepthVLM(DepthVLMConfig(**parity[0]['config'])).eval()
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if key != 'lm_head.weight':
                value.copy_(fill(key, value.shape))
    return model


def inputs(arrays, i):
    ids = torch.from_numpy(arrays[f'input_ids_{i}']).reshape(1, -1)
    grid = torch.from_numpy(arrays[f'grid_thw_{i}']).reshape(1, 3)
    return {'input_ids': ids, 'attention_mask': torch.ones_like(ids),
            'pixel_values': torch.from_numpy(arrays[f'pixel_values_{i}']), 'image_grid_thw': grid}


@pytest.mark.parametrize('i', [0, 1])
def test_depth_and_last_logits(model, parity, i):
    with torch.no_grad():
        out = model(**inputs(parity[1], i))
    assert out.depth_pred[0].dtype == torch.float32
    np.testing.assert_allclose(out.depth_pred[0], parity[1][f'depth_{i}'], atol=1e-5, rtol=0)
    np.testing.assert_allclose(out.logits[0, -1], parity[1][f'last_logits_{i}'], atol=1e-4, rtol=0)


@pytest.mark.parametrize('i', [0, 1])
def test_greedy_tokens(model, parity, i):
    given = inputs(parity[1], i)
    told = []
    with torch.no_grad():
        for _ in range(8):
            token = model(**given).logits[0, -1].argmax()
            told.append(int(token))
            given['input_ids'] = torch.cat([given['input_ids'], token.reshape(1, 1)], dim=1)
            given['attention_mask'] = torch.ones_like(given['input_ids'])
    assert told == parity[1][f'greedy_{i}'].tolist()


def test_a_batch_of_both_gives_what_each_alone_does(model, parity):
    a, b = inputs(parity[1], 0), inputs(parity[1], 1)
    length = max(a['input_ids'].shape[1], b['input_ids'].shape[1])

    def padded(ids, value):
        return torch.nn.functional.pad(ids, (0, length - ids.shape[1]), value=value)

    with torch.no_grad():
        out = model(
            torch.cat([padded(x['input_ids'], 0) for x in (a, b)]),
            attention_mask=torch.cat([padded(x['attention_mask'], 0) for x in (a, b)]),
            pixel_values=torch.cat([a['pixel_values'], b['pixel_values']]),
            image_grid_thw=torch.cat([a['image_grid_thw'], b['image_grid_thw']]))
    for i in (0, 1):
        np.testing.assert_allclose(out.depth_pred[i], parity[1][f'depth_{i}'], atol=1e-5, rtol=0)


def test_depth_does_not_depend_on_the_question(model, parity):
    given = inputs(parity[1], 0)
    with torch.no_grad():
        one = model(**given).depth_pred[0]
        given['input_ids'][0, -3:] = 7
        other = model(**given).depth_pred[0]
    assert torch.equal(one, other)


def test_a_sample_without_an_image_changes_nobody_elses_depth(model, parity):
    given = inputs(parity[1], 0)
    text = torch.randint(1, 400, given['input_ids'].shape)
    with torch.no_grad():
        out = model(torch.cat([text, given['input_ids']]),
                    attention_mask=torch.ones(2, text.shape[1], dtype=torch.long),
                    pixel_values=given['pixel_values'], image_grid_thw=given['image_grid_thw'])
    assert len(out.depth_pred) == 1
    np.testing.assert_allclose(out.depth_pred[0], parity[1]['depth_0'], atol=1e-5, rtol=0)


def test_image_tokens_that_do_not_fit_are_refused(model, parity):
    given = inputs(parity[1], 0)
    given['input_ids'] = given['input_ids'].clone()
    given['input_ids'][given['input_ids'] == 500] = 5
    with pytest.raises(ValueError, match='hold 0 image tokens, the images give 12'):
        model(**given)


@pytest.mark.parametrize('size, parameters', [('4b', 4_472_961_729), ('8b', 8_806_598_065)])
def test_every_released_key_and_shape(data, size, parameters):
    released = json.loads((data / 'parity/released_checkpoints.json').read_text())
    with torch.device('meta'):
        model = DepthVLM(DepthVLMConfig(**released[f'config_{size}']))
    ours = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert ours == released[f'state_dict_{size}']
    assert sum(p.numel() for p in model.parameters()) == parameters
