# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0

from dataclasses import replace

from depthvlm_ros.training import attention
from depthvlm_ros.training.mixture import open_source
from depthvlm_ros.training.samples import Encoder
from depthvlm_ros.training.start import build
import pytest
import torch


@pytest.fixture(scope='module')
def passed(tiny_training):
    """Return a function: hidden states of a batch by an attention, its maps, what was watched."""
    training = replace(tiny_training, precision='float32')
    model, tokenizer, prompt = build(training)
    encoder = Encoder(model.config, tokenizer, prompt)
    rooms = open_source(training.sources[0], '.', encoder, training)
    batch = encoder.collate([(rooms.sample(i), []) for i in range(2)])

    def run(implementation, mask):
        model.set_attn_implementation(implementation)
        maps, seen = [], []
        inner = model.model.language_model.layers[1].self_attn
        inner.watch = lambda *what: seen.append(what)
        hook = inner.register_forward_hook(lambda _, __, out: maps.append(out[1]))
        packed = batch.packed
        hidden = model(packed.input_ids, attention_mask=packed.mask if mask else None,
                       position_ids=packed.positions, pixel_values=batch.pixel_values,
                       image_grid_thw=batch.grid_thw, with_depth=False).hidden
        hook.remove()
        return hidden, maps[0], seen
    return run


@pytest.mark.parametrize('mask', [True, False])
def test_it_attends_as_transformers_does(passed, mask):
    hidden, maps, _ = passed('eager', mask)
    ours, none, seen = passed(attention.NAME, mask)
    torch.testing.assert_close(ours, hidden, atol=2e-5, rtol=1e-4)
    assert none is None
    query, key, seen_mask, scaling = seen[0]
    columns = torch.tensor([3, 20, 30])
    rows = attention.rows_of_attention(
        query[1, 0], key[1, 0], seen_mask[1, 0] if mask else None, scaling, columns)
    torch.testing.assert_close(rows, maps[1, 0, columns], atol=1e-6, rtol=1e-4)
