# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0

from depthvlm_ros.training.config import TrainingConfig
from depthvlm_ros.training.start import load_start
from depthvlm_ros.training.vision import encode
import pytest
import torch

GRIDS = torch.tensor([[1, 4, 6], [1, 2, 4], [1, 4, 6]])    # the first and the last go together


@pytest.fixture(scope='module')
def visual(tiny_checkpoint):
    return load_start(TrainingConfig(start=str(tiny_checkpoint)))[0].model.visual


@pytest.fixture(scope='module')
def patches():
    return torch.randn(24 + 8 + 24, 1536, generator=torch.Generator().manual_seed(0))


def run(visual, forward, patches):
    """Return tokens and features side by side, and the gradients of the tower's weights."""
    visual.zero_grad(set_to_none=True)
    out = forward(patches, grid_thw=GRIDS)
    values = torch.cat([out.pooler_output, *out.deepstack_features], dim=1)
    (values * torch.linspace(-1, 1, values.shape[1])).square().sum().backward()
    return values.detach(), {name: p.grad.clone() for name, p in visual.named_parameters()}


def test_it_is_transformers_tower_forwards_and_backwards(visual, patches):
    values, gradients = run(visual, visual, patches)
    ours, our_gradients = run(visual, lambda *a, **k: encode(visual, *a, **k), patches)
    torch.testing.assert_close(ours, values, rtol=1e-4, atol=1e-5)
    for name, gradient in gradients.items():
        off = (our_gradients[name] - gradient).norm() / gradient.norm().clamp(min=1e-6)
        assert off < 1e-3, name


def test_in_bfloat16_it_is_as_near_as_bfloat16_allows(visual, patches):
    exact, _ = run(visual, visual, patches)
    with torch.autocast('cpu', torch.bfloat16):
        theirs, _ = run(visual, visual, patches)
        ours, _ = run(visual, lambda *a, **k: encode(visual, *a, **k), patches)
    off = [(values.float() - exact).norm() / exact.norm() for values in (theirs, ours)]
    assert off[1] < 1.5 * off[0] + 1e-3
