# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0

import copy
import json
import subprocess
import sys

from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.model import DepthVLMConfig, preprocess
from depthvlm_ros.model.preprocessing import (
    as_image_tensor,
    cut_to,
    fit_size,
    plan_resize,
    to_patches,
)
import numpy as np
from PIL import Image
import pytest
import torch


@pytest.fixture(scope='module')
def released(data):
    fields = json.loads((data / 'parity/released_checkpoints.json').read_text())['config_4b']
    return DepthVLMConfig(**fields)


def test_sizes_of_the_released_chain(data, released):
    cases = json.loads((data / 'parity/sizes_public.json').read_text())
    for case in cases:
        plan = plan_resize(Intrinsics.centred(case['width'], case['height'], case['fx']), released)
        assert list(plan.canonical) == case['canonical']
        assert list(plan.intermediate) == case['after_28']
        assert list(plan.grid()) == case['grid_thw']
    assert len(cases) >= 10


@pytest.mark.parametrize('size, final', [
    ((1342, 1006), (1344, 1024)), ((1233, 925), (1216, 928)), ((1685, 488), (1664, 480)),
    ((256, 192), (320, 256))])
def test_sizes_at_canonical_focal(released, size, final):
    assert plan_resize(Intrinsics.centred(*size, 1000.0), released).final == final


def test_pixels_of_the_released_chain(data, released):
    stored = np.load(data / 'parity/preprocess_public.npz')
    height, width, _ = stored['rgb'].shape
    pixels, grid = preprocess(
        stored['rgb'], Intrinsics.centred(width, height, float(stored['fx'])), released)
    difference = np.abs((pixels.numpy() + 1) * 127.5 - stored['pixel_values_u8'])
    assert pixels.dtype == torch.float32
    assert grid.tolist() == [[1, 18, 22]]
    assert difference.mean() < 0.002  # of 255; measured 0.0002
    assert difference.max() < 1.5


def test_pixels_agree_with_pillow_on_noise(released):
    rgb = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    camera = Intrinsics.centred(160, 120, 260.0)
    plan = plan_resize(camera, released)
    image = Image.fromarray(rgb).resize(plan.canonical, Image.BILINEAR)
    image = image.resize(plan.intermediate, Image.BICUBIC).resize(plan.final, Image.BICUBIC)
    expected = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1
    pixels, _ = preprocess(rgb, camera, released)
    difference = (pixels - to_patches(expected, released.vision_config)).abs() * 127.5
    assert difference.mean() < 0.3  # of 255; noise is the worst case


def test_array_and_tensor_give_the_same(released):
    rgb = np.random.default_rng(1).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    camera = Intrinsics.centred(80, 60, 200.0)
    a, _ = preprocess(rgb, camera, released)
    b, _ = preprocess(torch.from_numpy(rgb), camera, released)
    assert torch.equal(a, b)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='this machine has no CUDA device')
def test_gpu_agrees_with_cpu(released):
    rgb = np.random.default_rng(1).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    camera = Intrinsics.centred(320, 240, 260.0)
    a, _ = preprocess(rgb, camera, released)
    b, grid = preprocess(torch.from_numpy(rgb).cuda(), camera, released)
    assert b.is_cuda and grid.is_cuda
    assert (a - b.cpu()).abs().mean() * 127.5 < 0.05


def test_each_axis_has_its_own_focal_length(released):
    plan = plan_resize(Intrinsics(640, 480, 500.0, 1000.0, 320, 240), released)
    assert plan.canonical == (1280, 480)


def test_half_rounds_to_even(released):
    assert plan_resize(Intrinsics.centred(205, 215, 1000 / 4.1), released).canonical[0] == 840
    assert Intrinsics.centred(5, 7, 2.0).size_at_focal(1.0) == (2, 4)


def test_a_token_bound_is_made_good_in_depth(released):
    camera = Intrinsics.centred(640, 480, 525.0)
    free, bound = plan_resize(camera, released), plan_resize(camera, released, 300)
    assert free.depth_scale == 1.0
    tokens = bound.final[0] * bound.final[1] // 1024
    assert 250 <= tokens <= 300
    # A smaller image is one of a shorter focal length, in which all looks further away.
    f_reached = 525.0 * np.sqrt(bound.final[0] / 640 * bound.final[1] / 480)
    assert bound.depth_scale == pytest.approx(f_reached / 1000, rel=2e-3)


def test_a_lower_pixel_bound_is_made_good_in_depth(released):
    plan = plan_resize(Intrinsics.centred(320, 240, 2000.0), released)
    assert plan.canonical == (160, 120) and plan.final == (320, 224)
    assert plan.depth_scale == pytest.approx(np.sqrt(320 * 224 / (160 * 120)))


@pytest.mark.parametrize('size, fitted', [
    ((1000, 500), (352, 160, True)),    # 65536 px are a 2.762th of each side: 362 and 181
    ((500, 1000), (160, 352, True)),
    ((6010, 60), (2560, 32, True)),     # a 2.346th, and at least one multiple
    ((256, 256), (256, 256, False)),    # the most pixels that there may be
    ((64, 64), (64, 64, False)),        # the fewest
    ((70, 40), (96, 64, True)),         # 64 x 32 are too few: 1.21 times each side, 84.7 and 48.4
    ((240, 144), (256, 128, False))])   # halves go to the even multiple
def test_a_size_is_rounded_within_its_bounds(size, fitted):
    assert fit_size(*size, 32, 4096, 65536) == fitted


@pytest.mark.parametrize('tokens, most, left', [
    ((3, 3), 9, (3, 3)), ((10, 2), 8, (4, 2)), ((2, 10), 8, (2, 4)), ((3, 3), 4, (1, 3)),
    ((2, 3), 1, (1, 1)), ((3, 2), 1, (1, 1)), ((5, 4), 3, (1, 3)), ((4, 5), 3, (3, 1))])
def test_the_longer_side_is_cut(tokens, most, left):
    assert cut_to(tokens[0] * 32, tokens[1] * 32, 32, most) == (left[0] * 32, left[1] * 32)


def test_a_large_image_is_bounded_between_the_two_resizes(released):
    plan = plan_resize(Intrinsics.centred(4500, 3000, 1000.0), released)
    # 16384 x 28 x 28 px at most; then the config's own bound.
    assert plan.intermediate == (4368, 2912)
    assert plan.depth_scale == pytest.approx(
        np.sqrt(plan.final[0] * plan.final[1] / (4500 * 3000)))


def test_rounding_to_tokens_alone_is_not_made_good_in_depth(released):
    config = copy.deepcopy(released)
    config.intermediate_multiple = 1
    plan = plan_resize(Intrinsics.centred(650, 470, 1000.0), config)
    assert plan.intermediate == (650, 470) and plan.final == (640, 480)
    assert plan.depth_scale == 1.0


def test_with_exact_focal_rounding_is_made_good_too(released):
    config = copy.deepcopy(released)
    config.intermediate_multiple, config.exact_focal = 1, True
    camera = Intrinsics.centred(480, 360, 384.0)
    config.canonical_fx, config.min_pixels, config.max_pixels = 256.0, 81920, 147456
    plan = plan_resize(camera, config)
    assert plan.canonical == (320, 240) and plan.final == (320, 256)
    fx, fy = 384.0 * 320 / 480, 384.0 * 256 / 360
    assert plan.depth_scale == pytest.approx(np.sqrt(fx * fy) / 256.0)


def test_an_image_of_one_row_is_one_and_an_empty_one_is_none():
    assert as_image_tensor(np.zeros((1, 5, 3), np.uint8)).shape == (3, 1, 5)
    with pytest.raises(ValueError, match=r'rgb is \(0, 5, 3\) uint8'):
        as_image_tensor(np.zeros((0, 5, 3), np.uint8))


@pytest.mark.parametrize('rgb, message', [
    (np.zeros((4, 4, 3), np.float32), r'float32, wanted \(H, W, 3\) uint8'),
    (np.zeros((4, 4), np.uint8), r'\(4, 4\)'),
    ([[[1, 2, 3]]], r'rgb is a list, wanted an array or tensor \(H, W, 3\) uint8'),
    (np.full((4, 4, 3), None), r'rgb is \(4, 4, 3\) object, wanted'),
    (np.zeros((4, 5, 3), np.uint8), 'the image is 5 x 4 px, its camera 4 x 4')])
def test_bad_images_are_refused(released, rgb, message):
    with pytest.raises(ValueError, match=message):
        preprocess(rgb, Intrinsics.centred(4, 4, 4.0), released)


def test_bad_bounds_are_refused(released):
    with pytest.raises(ValueError, match='-1, wanted >= 0'):
        plan_resize(Intrinsics.centred(64, 64, 64.0), released, -1)
    with pytest.raises(ValueError, match='aspect ratio up to 200'):
        plan_resize(Intrinsics.centred(3000, 4, 1000.0), released)
    unbounded = copy.deepcopy(released)
    unbounded.intermediate_multiple = 1
    for config in (released, unbounded):
        with pytest.raises(ValueError, match='at the canonical focal length is 640000 x'):
            plan_resize(Intrinsics.centred(640, 480, 1.0), config)
        with pytest.raises(ValueError, match='fx is 1e-308 and fy 1e-308, wanted longer ones'):
            plan_resize(Intrinsics.centred(640, 480, 1e-308), config)


def test_torchvision_is_not_needed():
    code = ("import sys; sys.modules['torchvision'] = None\n"
            'import depthvlm_ros.model; import transformers\n'
            'assert sys.modules["torchvision"] is None')
    subprocess.run([sys.executable, '-c', code], check=True, timeout=300)


def test_a_token_bound_below_the_least_size_keeps_the_images_shape(released):
    config = copy.deepcopy(released)
    config.canonical_fx, config.min_pixels, config.max_pixels = 256.0, 81920, 147456
    assert plan_resize(Intrinsics.centred(640, 480, 2000.0), config, 16).final == (128, 128)


@pytest.mark.parametrize('size', [(3200, 32), (32, 3200), (300, 200), (640, 480), (40, 40)])
@pytest.mark.parametrize('most', [1, 4, 16, 64])
def test_no_image_has_more_tokens_than_it_may_have(released, size, most):
    width, height = plan_resize(Intrinsics.centred(*size, 1000.0), released, most).final
    assert 1 <= width // 32 * (height // 32) <= most
