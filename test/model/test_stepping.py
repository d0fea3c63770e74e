# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Token by token with the lean step: the same numbers as the general forward pass."""

from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.model import Predictor
from depthvlm_ros.model.decoding import fork
from depthvlm_ros.model.stepping import Steps
import numpy as np
import pytest
import torch

STEPS = 12


@pytest.fixture(scope='module', params=['tiny', 'nano'])
def predictor(request, tiny_checkpoint):
    return Predictor.from_pretrained(
        'nano' if request.param == 'nano' else str(tiny_checkpoint), device='cpu')


@pytest.fixture(scope='module')
def view(predictor):
    rgb = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    return predictor.look(rgb, Intrinsics.centred(128, 96, 100.0))


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_hidden_states_are_those_of_the_forward_pass(predictor, view, dtype, monkeypatch):
    monkeypatch.setattr('depthvlm_ros.model.stepping.ROOM', 5)      # it grows on the way
    model = predictor.model.to(dtype)
    try:
        cache = fork(view.cache)
        for layer in cache.layers:
            layer.keys, layer.values = layer.keys.to(dtype), layer.values.to(dtype)
        steps = Steps(model.model.language_model, cache, view.next_position, STEPS)
        tokens = torch.randint(0, 200, (STEPS,), generator=torch.Generator().manual_seed(1))
        for n, token in enumerate(tokens):
            positions = torch.tensor([view.next_position + n]).expand(3, 1, -1)
            token = token.view(1, 1)
            wanted = model.read(model.get_input_embeddings()(token), positions,
                                past_key_values=cache)[:, -1]
            torch.testing.assert_close(
                steps.step(token), wanted, rtol=0 if dtype is torch.float32 else 0.02,
                atol=2e-5 if dtype is torch.float32 else 0.05)
    finally:
        predictor.model.float()


@torch.inference_mode()
def test_a_bound_that_is_never_met_costs_nothing(predictor, view):
    steps = Steps(predictor.model.model.language_model, fork(view.cache), view.next_position,
                  10**9)
    assert steps._cos.shape[1] <= 128


@torch.inference_mode()
def test_the_view_keeps_its_prefix(predictor, view):
    before = [layer.keys.clone() for layer in view.cache.layers]
    predictor.ask(view, 'How far is the red box?', max_tokens=8)
    for layer, keys in zip(view.cache.layers, before):
        assert torch.equal(layer.keys, keys)


def test_a_long_question_is_read_in_pieces_and_answered_alike(predictor, view, monkeypatch):
    question = 'How far is the red box, and what is to its left? ' * 8
    whole = predictor.ask(view, question, max_tokens=6)
    monkeypatch.setattr('depthvlm_ros.model.decoding.PIECE', 16)
    read = []
    hook = predictor.model.model.language_model.register_forward_hook(
        lambda _, args, kwargs, out: read.append(kwargs['inputs_embeds'].shape[1]),
        with_kwargs=True)
    decoding = predictor.begin(view, question, max_tokens=6)
    try:
        while decoding.step():
            pass
    finally:
        hook.remove()
    assert len(read) > 4 and set(read[:-1]) == {16}
    assert decoding.text == whole.text
