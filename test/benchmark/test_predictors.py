# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0

from depthvlm_ros.benchmark.loading import Loading
from depthvlm_ros.benchmark.predictors import load_predictor
from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.model import Predictor
from depthvlm_ros.model.preprocessing import plan_resize
import numpy as np
import pytest
import torch
from transformers import (
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    DPTImageProcessorPil,
)

CAMERA = Intrinsics.centred(70, 50, 64.0)
RGB = np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8)


class FromElsewhere:
    """A predictor that stands outside of the package."""

    @classmethod
    def load(cls, source, device='auto'):
        predictor = cls()
        predictor.source, predictor.device = source, device
        return predictor

    def depth(self, rgb, intrinsics):
        return np.full(rgb.shape[:2], intrinsics.fx, np.float32)


@pytest.fixture(scope='module')
def depth_anything(tmp_path_factory):
    """Save a tiny Depth Anything V2 with random weights: metric, up to 20 m."""
    def save(depth_estimation_type):
        folder = tmp_path_factory.mktemp('depth_anything')
        backbone = Dinov2Config(
            hidden_size=16, num_hidden_layers=4, num_attention_heads=2, image_size=56,
            patch_size=14, out_indices=[1, 2, 3, 4], apply_layernorm=True,
            reshape_hidden_states=False)
        torch.manual_seed(0)
        DepthAnythingForDepthEstimation(DepthAnythingConfig(
            backbone_config=backbone, patch_size=14, reassemble_hidden_size=16,
            reassemble_factors=[4, 2, 1, 0.5], neck_hidden_sizes=[8, 8, 8, 8],
            fusion_hidden_size=8, head_hidden_size=8, max_depth=20,
            depth_estimation_type=depth_estimation_type)).save_pretrained(folder)
        DPTImageProcessorPil(
            size={'height': 56, 'width': 56}, keep_aspect_ratio=True,
            ensure_multiple_of=14).save_pretrained(folder)
        return folder
    return save


def test_a_depthvlm_is_loaded_as_told(tiny_checkpoint):
    how = Loading(dtype='bfloat16', max_image_tokens=9)
    predictor = load_predictor(str(tiny_checkpoint), 'cpu', how).predictor
    assert predictor.model.dtype == torch.bfloat16
    assert predictor.max_image_tokens == 9
    with pytest.raises(ValueError, match="quantise is 'int2'"):
        load_predictor(str(tiny_checkpoint), 'cpu', Loading(quantise='int2'))


def test_other_models_cannot_be_told_how(tiny_checkpoint):
    with pytest.raises(ValueError, match="--dtype, --max-image-tokens with model 'constant:3'"):
        load_predictor('constant:3', 'cpu', Loading(dtype='bfloat16', max_image_tokens=9))


def test_the_constant():
    depth_m = load_predictor('constant').depth(RGB, CAMERA)
    assert depth_m.shape == (50, 70)
    assert (depth_m == 2.0).all()
    assert (load_predictor('constant:3.5').depth(RGB, CAMERA) == 3.5).all()
    with pytest.raises(ValueError, match="'-1'"):
        load_predictor('constant:-1')
    with pytest.raises(ValueError, match="constant depth is 'abc', wanted metres above 0"):
        load_predictor('constant:abc')


def test_a_depthvlm_by_its_folder(tiny_checkpoint):
    expected = Predictor.from_pretrained(tiny_checkpoint, device='cpu').look(RGB, CAMERA).depth_m
    for name in (str(tiny_checkpoint), f'depthvlm:{tiny_checkpoint}'):
        np.testing.assert_array_equal(
            load_predictor(name, 'cpu').depth(RGB, CAMERA), expected)


def test_the_networks_own_map_is_what_look_resizes(tiny_checkpoint):
    predictor = load_predictor(str(tiny_checkpoint), 'cpu')
    network_m = predictor.network_depth(RGB, CAMERA)
    plan = plan_resize(CAMERA, predictor.predictor.config)
    assert network_m.shape == plan.final[::-1]
    looked_m = torch.nn.functional.interpolate(
        torch.from_numpy(network_m)[None, None], (50, 70), mode='bilinear')[0, 0]
    np.testing.assert_allclose(
        looked_m * plan.depth_scale, predictor.depth(RGB, CAMERA), rtol=1e-4)


def test_a_model_of_another_canonical_focal_length_gives_its_depth(tiny_checkpoint):
    predictor = load_predictor(str(tiny_checkpoint), 'cpu')
    other = Intrinsics.centred(70, 50, 100.0)
    np.testing.assert_array_equal(
        predictor.network_depth(RGB, other), predictor.depth(RGB, other))


def test_depth_anything_metric(depth_anything):
    folder = depth_anything('metric')
    predictor = load_predictor(f'transformers:{folder}', 'cpu')
    depth_m = predictor.depth(RGB, CAMERA)
    assert depth_m.shape == (50, 70)
    assert depth_m.dtype == np.float32
    assert (depth_m > 0).all() and (depth_m < 20).all()
    assert depth_m.std() > 0
    # The same through transformers' classes by hand.
    model = DepthAnythingForDepthEstimation.from_pretrained(folder).eval()
    pixels = DPTImageProcessorPil.from_pretrained(folder)(RGB, return_tensors='pt')
    with torch.inference_mode():
        by_hand = model(**pixels).predicted_depth
    by_hand = torch.nn.functional.interpolate(
        by_hand[None], (50, 70), mode='bicubic', align_corners=False)[0, 0]
    np.testing.assert_allclose(depth_m, by_hand, rtol=1e-4)


def test_relative_depth_has_no_metres(depth_anything):
    with pytest.raises(ValueError, match=r"'relative' is not metric.*wanted 'metric'"):
        load_predictor(f'transformers:{depth_anything("relative")}', 'cpu')


@pytest.mark.parametrize(('name', 'lacking'), [
    ('json.JSONDecoder', 'has no load and no depth'), ('numpy.random.Generator', 'has no load')])
def test_a_class_that_is_no_predictor_is_told(name, lacking):
    with pytest.raises(ValueError, match=f'predictor kind .{name}. {lacking}.*wanted both'):
        load_predictor(f'{name}:source')


def test_a_class_from_elsewhere():
    predictor = load_predictor(f'{__name__}.FromElsewhere:/some/weights', 'cpu')
    assert (predictor.source, predictor.device) == ('/some/weights', 'cpu')


@pytest.mark.parametrize('name', ['no_such_kind:x', 'os.path.NoSuch:x', '.Odd:x'])
def test_an_unknown_kind_is_named(name):
    with pytest.raises(ValueError, match=name.partition(':')[0].replace('.', r'\.')):
        load_predictor(name)
