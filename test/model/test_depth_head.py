# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0

from depthvlm_ros.model import depth_head
from depthvlm_ros.model.depth_head import (
    DPTDepthHead,
    FusionBlock,
    MLPDepthHead,
    ResidualConvUnit,
    Window,
)
import pytest
import torch


def features(dim, rows, columns):
    torch.manual_seed(0)
    return [torch.randn(1, rows * columns, dim) for _ in range(4)]


def test_the_shortcut_carries_relu_of_x():
    """The released ReLU works in place: with zero convolutions the unit is relu, not identity."""
    unit = ResidualConvUnit(2)
    for p in unit.parameters():
        torch.nn.init.zeros_(p)
    x = torch.tensor([-1.0, 2.0]).reshape(1, 2, 1, 1)
    assert unit(x).flatten().tolist() == [0.0, 2.0]


def test_the_input_of_a_unit_is_left_as_it_was():
    x = torch.randn(1, 2, 3, 3)
    before = x.clone()
    ResidualConvUnit(2)(x)
    assert torch.equal(x, before)


def test_the_1x1_convolution_commutes_with_the_upsampling():
    torch.manual_seed(0)
    block = FusionBlock(4, has_skip=False).double()
    x = torch.randn(1, 4, 3, 5, dtype=torch.float64)
    after = block.out_conv(torch.nn.functional.interpolate(
        block.resConfUnit2(x), size=(6, 10), mode='bilinear', align_corners=True))
    torch.testing.assert_close(block(x, (6, 10)), after, atol=1e-12, rtol=0)


@pytest.mark.parametrize('head', [
    DPTDepthHead(8, 4, (4, 4, 4, 4)), MLPDepthHead(8, 4), MLPDepthHead(8, 4, 'concat'),
    MLPDepthHead(8, 4, 'sum')])
def test_depth_has_the_size_of_the_networks_image(head):
    depth = head(features(8, 2, 3), 2, 3)
    assert depth.shape == (1, 64, 96)
    assert depth.dtype == torch.float32
    assert (depth > 0).all()


@pytest.mark.parametrize('head', [DPTDepthHead(8, 4, (4, 4, 4, 4)), MLPDepthHead(8, 4)])
@pytest.mark.parametrize('window', [
    Window(0, 64, 0, 96), Window(5, 40, 33, 77), Window(0, 20, 70, 96), Window(63, 64, 0, 1)])
def test_a_window_has_the_depth_of_the_whole_there(head, window):
    x = features(8, 2, 3)
    whole = head(x, 2, 3)[0]
    part, everything = head([torch.cat([f, f]) for f in x], 2, 3, [window, None])
    torch.testing.assert_close(part, window.of(whole), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(everything, whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('windows', [None, [Window(5, 40, 33, 77), None, None, None, None]])
def test_a_map_with_more_elements_than_a_gpu_can_index_is_made_in_parts(monkeypatch, windows):
    head, sizes = DPTDepthHead(8, 4, (4, 4, 4, 4)), []
    torch.manual_seed(0)
    x = [torch.randn(5, 6, 8) for _ in range(4)]
    whole = head(x, 2, 3, windows)
    head.scratch.output_conv1.register_forward_hook(lambda *call: sizes.append(len(call[2])))
    monkeypatch.setattr(depth_head, 'MOST_ELEMENTS', 2 * 2 * 64 * 96)    # features / 2, two images
    parts = head(x, 2, 3, windows)
    assert sizes == [2, 2, 1]
    assert len(parts) == 5
    for one, other in zip(parts, whole):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)


def test_an_empty_window_is_refused():
    with pytest.raises(ValueError, match='v_min=3, v_max=3'):
        Window(3, 3, 0, 4)


def test_mlp_head_puts_each_token_in_its_square():
    head = MLPDepthHead(8, 4, 'llm_last')
    x = features(8, 2, 3)
    before = head(x, 2, 3)
    x[3][0, 4] += 1  # second row, second column
    changed = (head(x, 2, 3) != before)[0]
    assert changed[32:64, 32:64].any()
    changed[32:64, 32:64] = False
    assert not changed.any()


def test_the_tail_is_float32_in_a_bfloat16_model():
    """In bfloat16 metres would step by 1/4 at 50 m."""
    torch.manual_seed(0)
    head = DPTDepthHead(8, 8, (8, 8, 8, 8)).bfloat16()
    with torch.no_grad():
        head.scratch.output_conv2[2].bias.fill_(50.0)
        depth = head([f.bfloat16() for f in features(8, 4, 4)], 4, 4)
    assert depth.dtype == torch.float32
    assert 49 < depth.mean() < 51
    steps = depth.unique().diff()
    assert steps.min() < 0.01
    assert (depth != depth.bfloat16().float()).float().mean() > 0.9
