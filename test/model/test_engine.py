# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The engine's pass against the plain one: the same depth, cache and answers, whatever comes."""

from contextlib import contextmanager, nullcontext

from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.model import engine as engine_module
from depthvlm_ros.model import Predictor, preprocess
from depthvlm_ros.model.batching import look_batch
from depthvlm_ros.model.preprocessing import plan_resize
from depthvlm_ros.model.vision_pass import encode, grid_tables
import numpy as np
import pytest
import torch

SIZES = ((128, 96, 100.0), (96, 128, 70.0), (160, 64, 90.0), (64, 64, 64.0))
ALIKE = ((128, 96, 100.0), (136, 100, 105.0), (60, 46, 47.0))   # of one size for the network


@pytest.fixture(scope='module', params=['tiny', 'nano'])
def predictor(request, tiny_checkpoint):
    return Predictor.from_pretrained(
        'nano' if request.param == 'nano' else tiny_checkpoint, device='cpu')


@pytest.fixture
def tiny(tiny_checkpoint):
    return Predictor.from_pretrained(tiny_checkpoint, device='cpu')


def image_of(width, height, fx, seed=0):
    rgb = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return rgb, Intrinsics.centred(width, height, fx)


def images_of(sizes, seed=0):
    return [image_of(*size, seed=seed + number) for number, size in enumerate(sizes)]


def look_plainly(predictor, rgb, camera):
    """Look while a hook hangs on the vision tower, so that the plain pass takes place."""
    with plain_passes(predictor):
        return predictor.look(rgb, camera)


@contextmanager
def plain_passes(predictor):
    hook = predictor.model.model.visual.register_forward_hook(lambda *_: None)
    try:
        yield
    finally:
        hook.remove()


def assert_same_view(one, other):
    np.testing.assert_allclose(one.depth_m, other.depth_m, rtol=1e-5)
    assert one.next_position == other.next_position
    assert one.words_scale == other.words_scale
    assert one.image_tokens == other.image_tokens
    assert len(one.cache.layers) == len(other.cache.layers)
    for mine, plain in zip(one.cache.layers, other.cache.layers):
        torch.testing.assert_close(mine.keys, plain.keys, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(mine.values, plain.values, rtol=1e-4, atol=1e-4)


def test_sizes_back_and_forth_give_the_plain_views_and_answers(predictor):
    for turn in range(2):
        for number, size in enumerate(SIZES[:2 if predictor.name == 'nano' else None]):
            rgb, camera = image_of(*size, seed=10 * turn + number)
            mine, plain = predictor.look(rgb, camera), look_plainly(predictor, rgb, camera)
            assert_same_view(mine, plain)
            question = 'How far is the red box?' * (1 + 20 * turn)
            assert (predictor.ask(mine, question, 6).text
                    == predictor.ask(plain, question, 6).text)


def test_the_vision_tower_gives_what_the_general_pass_gives(predictor):
    model = predictor.model
    pixels, grid = preprocess(*image_of(160, 64, 90.0), predictor.config)
    tables = grid_tables(model.model.visual, *grid[0, 1:].tolist())
    with torch.inference_mode():
        tokens, deepstack = encode(model.model.visual, pixels, tables)
        wanted, wanted_deepstack = model.encode_images(pixels, grid)
    for mine, plain in zip((tokens, *deepstack), (wanted, *wanted_deepstack)):
        torch.testing.assert_close(mine.flatten(0, 1), plain, rtol=1e-4, atol=1e-4)


def test_deepstack_layers_may_be_listed_in_any_order(tiny):
    before = tiny.look(*image_of(*SIZES[0]))
    tiny.model.model.visual.deepstack_visual_indexes = [2, 0, 1]
    tiny.engine.forget()
    mine = tiny.look(*image_of(*SIZES[0]))
    assert_same_view(mine, look_plainly(tiny, *image_of(*SIZES[0])))
    assert not np.allclose(mine.depth_m, before.depth_m, rtol=1e-5)


def test_bfloat16_stays_near_the_plain_pass(tiny_checkpoint):
    predictor = Predictor.from_pretrained(tiny_checkpoint, device='cpu', dtype='bfloat16')
    rgb, camera = image_of(128, 96, 100.0)
    mine, plain = predictor.look(rgb, camera), look_plainly(predictor, rgb, camera)
    assert np.linalg.norm(mine.depth_m - plain.depth_m) < 0.02 * np.linalg.norm(plain.depth_m)


def test_more_sizes_than_are_kept(tiny, monkeypatch):
    monkeypatch.setattr(engine_module, 'MOST_SIZES', 2)
    for size in SIZES * 2:
        rgb, camera = image_of(*size)
        assert_same_view(tiny.look(rgb, camera), look_plainly(tiny, rgb, camera))
        assert len(tiny.engine._sizes) <= 2


def test_the_system_text_is_read_once_and_the_vision_tower_runs_once_an_image(tiny):
    model, rows = tiny.model, []
    tower = []
    model.model.language_model.norm.register_forward_hook(
        lambda _, args, out: rows.append(out.shape[1]))
    model.model.visual.merger.register_forward_hook(lambda *_: tower.append(1))
    rgb, camera = image_of(*SIZES[0])
    tokens = tiny.look(rgb, camera).image_tokens
    tiny.look(rgb, camera)
    image = tokens + len(tiny.prompt.after_image)
    assert rows == [len(tiny.prompt.before_image), image, image]
    assert tower == [1, 1]


def test_a_watched_module_really_runs(tiny):
    """Who hangs a hook on the tower or the model, as a test of faults does, sees every pass."""
    rgb, camera = image_of(*SIZES[0])
    inner = tiny.model.model
    layer, block = inner.language_model.layers[1], inner.visual.blocks[2]
    for module in (tiny.model, inner.visual, inner.language_model, layer, layer.self_attn,
                   layer.mlp, block, block.attn, block.mlp, inner.visual.patch_embed):
        seen = []
        hook = module.register_forward_hook(lambda *_, seen=seen: seen.append(1))
        tiny.look(rgb, camera)
        hook.remove()
        tiny.look(rgb, camera)
        assert seen == [1]


@pytest.mark.parametrize('change', ['trained', 'one trained', 'converted', 'replaced'])
def test_changed_weights_are_noticed(tiny, change):
    rgb, camera = image_of(*SIZES[0])
    before = tiny.look(rgb, camera)
    with torch.no_grad():
        if change == 'trained':
            for weight in tiny.model.parameters():
                weight.add_(0.01)
        elif change == 'one trained':
            tiny.model.model.language_model.layers[1].mlp.down_proj.weight.mul_(1.5)
        elif change == 'converted':
            tiny.model.double()
            tiny.model.float()
            tiny.model.to(torch.bfloat16)
        else:
            tiny.model.load_state_dict({key: value * 0.9 for key, value
                                        in tiny.model.state_dict().items()}, assign=True)
    mine, plain = tiny.look(rgb, camera), look_plainly(tiny, rgb, camera)
    assert not np.array_equal(before.depth_m, mine.depth_m)
    if change == 'converted':
        assert mine.cache.layers[0].keys.dtype == torch.bfloat16
        apart = np.linalg.norm(mine.depth_m - plain.depth_m)
        assert apart < 0.02 * np.linalg.norm(plain.depth_m)
    else:
        assert_same_view(mine, plain)


def test_another_attention_goes_the_plain_way(tiny):
    rgb, camera = image_of(*SIZES[0])
    wanted = tiny.look(rgb, camera)
    tiny.model.set_attn_implementation('eager')
    assert not tiny.engine.fits()
    np.testing.assert_allclose(tiny.look(rgb, camera).depth_m, wanted.depth_m, rtol=1e-4)


def test_a_view_is_not_changed_by_the_next_look(tiny):
    rgb, camera = image_of(*SIZES[0])
    view = tiny.look(rgb, camera)
    depth_m = view.depth_m.copy()
    keys = [layer.keys.clone() for layer in view.cache.layers]
    tiny.look(*image_of(*SIZES[0], seed=5))
    np.testing.assert_array_equal(view.depth_m, depth_m)
    for layer, before in zip(view.cache.layers, keys):
        assert torch.equal(layer.keys, before)


def test_depth_that_is_not_finite_is_nan(tiny):
    rgb, camera = image_of(*SIZES[0])
    with torch.no_grad():
        tiny.model.depth_head.scratch.output_conv2[2].bias.fill_(torch.inf)
    assert np.isnan(tiny.look(rgb, camera).depth_m).all()
    assert np.isnan(look_plainly(tiny, rgb, camera).depth_m).all()


def test_a_tensor_is_looked_at_as_an_array_is(tiny):
    rgb, camera = image_of(*SIZES[0])
    np.testing.assert_array_equal(tiny.look(torch.from_numpy(rgb), camera).depth_m,
                                  tiny.look(rgb, camera).depth_m)
    with pytest.raises(ValueError, match='wanted .H, W, 3. uint8'):
        tiny.look(rgb[..., :2], camera)


@pytest.mark.parametrize('sizes', [SIZES[1:2] * 2, SIZES[:1] * 3, ALIKE[:2], ALIKE],
                         ids=['two', 'three', 'two cameras', 'three cameras'])
def test_a_batch_gives_the_views_and_answers_of_single_looks_and_of_the_plain_way(
        predictor, sizes):
    images = images_of(sizes)
    together = predictor.look_at_equal(images)
    with plain_passes(predictor):
        plain = predictor.look_at_equal(images)
    for image, mine, other in zip(images, together, plain):
        alone = predictor.look(*image)
        assert mine.intrinsics == image[1]
        for wanted in (alone, other):
            assert_same_view(mine, wanted)
        texts = {predictor.ask(view, 'How far is the red box?', 5).text
                 for view in (mine, alone, other)}
        assert len(texts) == 1


def test_a_batch_takes_each_cameras_own_scale(tiny):
    tiny.max_image_tokens = 4
    images = images_of(ALIKE)
    plans = [plan_resize(camera, tiny.config, 4) for _, camera in images]
    assert len({plan.depth_scale for plan in plans}) == 3
    assert {plan.final for plan in plans} == {(64, 32)}
    for image, view in zip(images, tiny.look_at_equal(images)):
        assert view.depth_m.shape == image[0].shape[:2]
        assert_same_view(view, look_plainly(tiny, *image))


def test_a_batch_after_single_looks_and_back(tiny):
    images = images_of(ALIKE + SIZES[:1])
    for batch in (images[:1], images, images[1:2], images[:2], images[1:], images[:1]):
        views = tiny.look_at_equal(batch) if len(batch) > 1 else [tiny.look(*batch[0])]
        for image, view in zip(batch, views):
            assert_same_view(view, look_plainly(tiny, *image))


def test_weights_changed_between_batches_are_noticed(tiny):
    images = images_of(ALIKE)
    before = tiny.look_at_equal(images)
    with torch.no_grad():
        for weight in tiny.model.parameters():
            weight.add_(0.01)
    for image, old, view in zip(images, before, tiny.look_at_equal(images)):
        assert not np.array_equal(old.depth_m, view.depth_m)
        assert_same_view(view, look_plainly(tiny, *image))


def test_a_batch_is_one_pass_behind_the_system_text_that_was_read(tiny):
    rows, tower = [], []
    tokens = tiny.look(*image_of(*ALIKE[0])).image_tokens
    tiny.model.model.language_model.norm.register_forward_hook(
        lambda _, args, out: rows.append(tuple(out.shape[:2])))
    tiny.model.model.visual.merger.register_forward_hook(lambda *_: tower.append(1))
    look_batch(tiny, images_of(ALIKE))
    assert rows == [(3, tokens + len(tiny.prompt.after_image))]
    assert tower == [1]


@pytest.mark.parametrize('plain', [False, True])
def test_a_batchs_views_hold_nothing_of_each_other(tiny, plain):
    with plain_passes(tiny) if plain else nullcontext():
        views = tiny.look_at_equal(images_of(SIZES[:1] * 3))
    held = [tensor for view in views for layer in view.cache.layers
            for tensor in (layer.keys, layer.values)]
    held += [torch.from_numpy(view.depth_m) for view in views]
    storages = [tensor.untyped_storage() for tensor in held]
    assert [storage.nbytes() for storage in storages] == [tensor.nbytes for tensor in held]
    assert len({storage.data_ptr() for storage in storages}) == len(held)


def test_an_image_that_cannot_be_used_fails_its_batch_with_the_reason(tiny):
    images = images_of(ALIKE)
    wrong = [*images[:2], (images[2][0][:20], images[2][1])]
    with pytest.raises(ValueError, match='the image is 60 x 20 px, its camera 60 x 46'):
        tiny.look_at_equal(wrong)
    views = look_batch(tiny, wrong)
    assert isinstance(views[2], ValueError)
    assert_same_view(views[0], tiny.look(*images[0]))
    assert tiny.batches


def test_several_sizes_for_the_network_or_no_image_are_refused(tiny):
    images = images_of(SIZES[:2])
    with pytest.raises(ValueError, match='wanted one size for all'):
        tiny.look_at_equal(images)
    with pytest.raises(ValueError, match='wanted one size for all'):
        tiny.engine.run([])
    views = look_batch(tiny, images)
    for image, view in zip(images, views):
        assert_same_view(view, tiny.look(*image))
