# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
What is captured gives what it gives directly, and the places for it are bounded.

Without a GPU a stand-in runs the work anew at each call; memory of fixed size, places, refusals
and the way of the weights are the same.
"""

import gc
import weakref

from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.model import engine, Predictor
from depthvlm_ros.model.batching import look_batch
from depthvlm_ros.model.capture import Captures, CudaCapture, PATIENCE
from depthvlm_ros.model.decoding import fork
from depthvlm_ros.model.engine import Engine, Pass
from depthvlm_ros.model.preprocessing import plan_resize
from depthvlm_ros.model.slots import Slots
from depthvlm_ros.model.stepping import Steps
import numpy as np
import pytest
import torch

SIZES = ((128, 96, 100.0), (96, 128, 70.0), (160, 64, 90.0))
QUESTION = 'How far is the red box?'


def run_anew(work, example):
    """Stand in for a capture: warm-up runs, and the same memory for what goes in and comes out."""
    fixed = example.clone()
    for _ in range(3):
        held = work(fixed)

    def replay(given):
        fixed.copy_(given)
        out = work(fixed)
        if not isinstance(out, Pass):
            return held.copy_(out)
        for kept, new in zip((*held.keys, *held.values), (*out.keys, *out.values)):
            kept.copy_(new)
        return Pass(out.depths_m, held.keys, held.values)   # depths go to the host at once
    return replay


def forget_work(work, example):
    """Stand in for a capture that, as a CUDA graph, keeps what it gives but not what it read."""
    held = work(example)
    return lambda given: held


def image_of(width, height, fx, seed=0):
    rgb = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return rgb, Intrinsics.centred(width, height, fx)


@pytest.fixture(scope='module', params=['tiny', 'nano'])
def predictor(request, tiny_checkpoint):
    return Predictor.from_pretrained(
        'nano' if request.param == 'nano' else tiny_checkpoint, device='cpu')


@pytest.fixture
def captured(predictor):
    """Return the predictor with an engine that captures, as far as there is anything to."""
    before = predictor.engine
    predictor.engine = Engine(predictor.model, predictor.prompt, run_anew)
    yield predictor
    predictor.engine = before


def test_views_and_answers_are_those_without_capture(captured):
    def seen():
        for seed in range(3):
            for size in SIZES[:2]:
                view = captured.look(*image_of(*size, seed=seed))
                yield view.depth_m, captured.ask(view, QUESTION, 5).text
    with captured.engine.direct():
        wanted = list(seen())
    found = list(seen())
    assert len(captured.engine._captures._held) == 2
    for (depth_m, text), (depth_again_m, text_again) in zip(wanted, found):
        np.testing.assert_allclose(depth_m, depth_again_m, rtol=1e-6)
        assert text == text_again


def test_a_captured_view_is_not_changed_by_the_next_look(captured):
    for seed in range(3):
        view = captured.look(*image_of(*SIZES[0], seed=seed))
    before = [layer.keys.clone() for layer in view.cache.layers]
    captured.look(*image_of(*SIZES[0], seed=9))
    for layer, keys in zip(view.cache.layers, before):
        assert torch.equal(layer.keys, keys)


def test_where_memory_runs_out_what_was_captured_is_let_go(captured):
    def fail(*_):
        raise torch.OutOfMemoryError('out of memory')
    for _ in range(2):
        view = captured.look(*image_of(*SIZES[0]))
    captured.ask(view, QUESTION, 2)
    assert captured.engine._captures._held and captured.engine._slots._slots
    hook = captured.model.model.visual.merger.register_forward_hook(fail)
    with pytest.raises(torch.OutOfMemoryError):
        captured.look(*image_of(*SIZES[0]))
    hook.remove()
    assert not captured.engine._captures._held and not captured.engine._slots._slots
    captured.look(*image_of(*SIZES[0]))


def test_memory_that_was_held_for_later_costs_no_image(captured):
    for _ in range(2):
        view = captured.look(*image_of(*SIZES[0]))
    captured.ask(view, QUESTION, 2)
    slots = captured.engine._slots

    def fail(*_):
        if len(slots):
            raise torch.OutOfMemoryError('out of memory')
    hook = captured.model.model.visual.merger.register_forward_hook(fail)
    try:
        again = captured.look(*image_of(*SIZES[0]))
    finally:
        hook.remove()
    assert not len(slots)
    np.testing.assert_allclose(again.depth_m, view.depth_m, rtol=1e-6)


def test_what_a_captured_pass_reads_lives_as_long_as_it(predictor, monkeypatch):
    monkeypatch.setattr(engine, 'MOST_SIZES', 1)
    its = Engine(predictor.model, predictor.prompt, forget_work)

    def run(size):
        rgb, camera = image_of(*size)
        return its.run([(rgb, camera, plan_resize(camera, predictor.config))])[1][0]
    read = weakref.ref(run(SIZES[0]).tables)
    run(SIZES[0])
    assert len(its._captures._held) == 1
    run(SIZES[1])       # takes the other size's place
    assert read() is not None
    its.forget()
    gc.collect()
    assert read() is None


def test_memory_that_runs_out_for_what_is_kept_of_a_pass_lets_captures_go(captured, monkeypatch):
    for _ in range(2):
        captured.look(*image_of(*SIZES[0]))
    assert captured.engine._captures._held

    def fail(*_):
        raise torch.OutOfMemoryError('out of memory')
    monkeypatch.setattr('depthvlm_ros.model.predictor.cache_row', fail)
    with pytest.raises(torch.OutOfMemoryError):
        captured.look(*image_of(*SIZES[0]))
    assert not captured.engine._captures._held


def test_captured_batches_give_the_views_and_answers_of_direct_ones(captured):
    def seen():
        for seed in range(3):
            for count in (2, 1, 3):
                images = [image_of(*SIZES[0], seed=10 * seed + n) for n in range(count)]
                views = captured.look_at_equal(images)
                assert len(views) == count
                for view in views:
                    yield view.depth_m, captured.ask(view, QUESTION, 3).text
    with captured.engine.direct():
        wanted = list(seen())
    found = list(seen())
    assert [key[0] for key in captured.engine._captures._held] == [2, 1, 3]
    for (depth_m, text), (depth_again_m, text_again) in zip(wanted, found):
        np.testing.assert_allclose(depth_m, depth_again_m, rtol=1e-6)
        assert text == text_again


def test_a_batch_of_several_cameras_sizes_is_run_directly(captured):
    images = [image_of(*size) for size in ((128, 96, 100.0), (136, 100, 105.0))]
    for turn in (images, images[::-1], images):
        for (rgb, camera), view in zip(turn, captured.look_at_equal(turn)):
            np.testing.assert_allclose(
                view.depth_m, captured.look(rgb, camera).depth_m, rtol=1e-5)
    assert all(key[0] == 1 for key in captured.engine._captures._held)


def test_a_captured_batchs_views_are_not_changed_by_the_next(captured):
    for seed in (0, 2, 4):
        views = captured.look_at_equal([image_of(*SIZES[0], seed=seed + n) for n in range(2)])
    before = [[layer.values.clone() for layer in view.cache.layers] for view in views]
    assert not torch.equal(before[0][-1], before[1][-1])
    captured.look_at_equal([image_of(*SIZES[0], seed=8 + n) for n in range(2)])
    for view, values in zip(views, before):
        for layer, kept in zip(view.cache.layers, values):
            assert torch.equal(layer.values, kept)


def test_captured_batches_are_let_go_with_the_weights_they_were_captured_with(tiny_checkpoint):
    predictor = Predictor.from_pretrained(tiny_checkpoint, device='cpu')
    predictor.engine = Engine(predictor.model, predictor.prompt, run_anew)
    images = [image_of(*SIZES[0], seed=seed) for seed in range(2)]
    for _ in range(2):
        predictor.look_at_equal(images)
    assert predictor.engine._captures._held
    with torch.no_grad():
        for weight in predictor.model.parameters():
            weight.add_(0.01)
    views = predictor.look_at_equal(images)
    assert not predictor.engine._captures._held
    for image, view in zip(images, views):
        np.testing.assert_allclose(view.depth_m, predictor.look(*image).depth_m, rtol=1e-5)


def test_where_memory_runs_out_for_a_batch_captures_go_and_images_are_looked_at_alone(
        captured, caplog):
    tokens = []

    def fail(module, inputs, out):
        tokens.append(len(out))
        if len(out) > tokens[0]:
            raise torch.OutOfMemoryError('out of memory')
    images = [image_of(*SIZES[0], seed=seed) for seed in range(2)]
    wanted = [captured.look(*image).depth_m for image in images]
    assert captured.engine._captures._held
    hook = captured.model.model.visual.merger.register_forward_hook(fail)
    captured.look(*images[0])
    try:
        views = look_batch(captured, images)
        assert not captured.batches and not captured.engine._captures._held
        look_batch(captured, images)
    finally:
        captured.batches = True
        hook.remove()
    # The batch is tried once more behind what was let go.
    assert tokens == [tokens[0]] + [2 * tokens[0]] * 2 + [tokens[0]] * 4
    assert caplog.text.count('from now on looked at one by one') == 1
    for view, depth_m in zip(views, wanted):
        np.testing.assert_allclose(view.depth_m, depth_m, rtol=1e-6)


def test_interleaved_answers_keep_to_their_own_slots(captured):
    view = captured.look(*image_of(*SIZES[0]))
    questions = [f'{QUESTION} {number}' for number in range(6)]     # more than there are slots
    with captured.engine.direct():
        alone = [captured.ask(view, question, 8).text for question in questions]
    for _ in range(2):
        decodings = [captured.begin(view, question, 8) for question in questions]
        while sum(decoding.step() for decoding in decodings):
            pass
        assert [decoding.text for decoding in decodings] == alone
    assert 0 < len(captured.engine._slots._slots) <= 4


@torch.inference_mode()
def test_a_slots_hidden_states_are_those_of_the_steps(predictor):
    view = predictor.look(*image_of(*SIZES[0]))
    slots = Slots(run_anew)
    model = predictor.model.model.language_model
    for seed in range(2):       # the second finds the first one's slot, and what is left in it
        one = slots.take(model, view.cache, view.next_position, 12)
        other = Steps(model, fork(view.cache), view.next_position, 12)
        for token in torch.randint(0, 200, (12,), generator=torch.Generator().manual_seed(seed)):
            torch.testing.assert_close(one.step(token.view(1, 1)), other.step(token.view(1, 1)),
                                       rtol=0, atol=2e-5)
        assert slots.take(model, view.cache, view.next_position, 5000) is None      # too long
        del one
    assert len(slots._slots) == 1


def test_a_slot_is_as_new_after_an_answer_that_was_not_finite(predictor):
    view = predictor.look(*image_of(*SIZES[0]))
    slots, model = Slots(run_anew, most=1), predictor.model.model.language_model
    with torch.inference_mode():
        first = slots.take(model, view.cache, view.next_position, 12)
        for values in slots._slots[0]._values:
            values[:, :, -1] = torch.nan
        del first
        again = slots.take(model, view.cache, view.next_position, 12)
        assert again.step(torch.zeros(1, 1, dtype=torch.int64)).isfinite().all()
    assert len(slots._slots) == 1


def test_a_slot_is_free_again_when_its_answer_is_let_go(predictor):
    slots = Slots(run_anew, most=1)
    view = predictor.look(*image_of(*SIZES[0]))
    model = predictor.model.model.language_model

    def take(most):
        with torch.inference_mode():
            return slots.take(model, view.cache, view.next_position, most)
    first = take(8)
    assert take(8) is None
    del first
    second = take(8)
    assert second is not None
    del second
    small, made = weakref.ref(slots._slots[0]), []

    def run_without_the_small(work, example):
        gc.collect()    # as torch does before it captures
        made.append(small() is None)
        return run_anew(work, example)
    slots._capture = run_without_the_small
    assert take(1000) is not None       # a larger one in its place, once the small one is gone
    assert made == [True]
    assert len(slots._slots) == 1


def test_what_cannot_be_captured_is_run_directly_and_said(predictor, caplog):
    def refuse(work, example):
        raise RuntimeError('operation not permitted when stream is capturing')
    wanted = predictor.look(*image_of(*SIZES[0])).depth_m
    before, predictor.engine = predictor.engine, Engine(predictor.model, predictor.prompt, refuse)
    try:
        for _ in range(4):
            view = predictor.look(*image_of(*SIZES[0]))
            predictor.ask(view, QUESTION, 3)
        np.testing.assert_allclose(view.depth_m, wanted, rtol=1e-6)
    finally:
        predictor.engine = before
    assert [record.levelname for record in caplog.records] == ['WARNING'] * 2
    assert 'stream is capturing' in caplog.text


def test_a_watched_module_runs_where_a_capture_would_stand_for_it(captured):
    for _ in range(3):
        captured.look(*image_of(*SIZES[0]))
    seen = []
    hook = captured.model.model.language_model.layers[1].mlp.register_forward_hook(
        lambda *_: seen.append(1))
    runs = captured.engine._captures._calls
    captured.look(*image_of(*SIZES[0]))
    hook.remove()
    assert seen == [1] and captured.engine._captures._calls == runs


def test_a_work_is_captured_when_it_comes_again_and_places_are_bounded():
    made = []

    def capture(work, example):
        made.append(example)
        return work
    captures = Captures(capture, most=2)

    def comes(key):
        return captures.of(key, str, key) is not None
    assert [comes('a') for _ in range(3)] == [False, True, True]
    assert made == ['a']
    for key in 'bcd' * 20:      # they take turns: two are kept, none is captured again and again
        comes(key)
        comes('a')
    assert made == ['a', 'b']
    for _ in range(PATIENCE):   # nobody asks for b any more
        comes('a')
    assert [comes('e') for _ in range(2)] == [False, True]
    assert comes('a') and not comes('b')
    captures.clear()
    assert not comes('a')


def test_a_work_that_there_was_no_memory_for_is_captured_later():
    tried = []

    def capture(work, example):
        tried.append(example)
        if len(tried) == 1:
            raise torch.OutOfMemoryError('out of memory')
        return work
    captures = Captures(capture)
    found = [captures.of('a', str, 'a') is not None for _ in range(PATIENCE + 4)]
    assert tried == ['a', 'a'] and not any(found[:PATIENCE]) and found[-1]


def test_without_a_capture_there_is_none():
    assert Captures(None).of('a', str, 'a') is None
    assert Slots(None).take(None, type('', (), {'layers': [
        type('', (), {'keys': torch.zeros(1, 1, 3, 2)})]}), 0, 3) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('name', ['tiny', 'nano'])
def test_cuda_replays_give_the_direct_depth_and_answers(name, tiny_checkpoint):
    predictor = Predictor.from_pretrained(
        'nano' if name == 'nano' else tiny_checkpoint, device='cuda', dtype='float32')
    assert isinstance(predictor.engine._captures._capture, CudaCapture)
    for turn in range(4):
        for size in SIZES:
            given = image_of(*size, seed=turn)
            view = predictor.look(*given)
            with predictor.engine.direct():
                wanted = predictor.look(*given)
            np.testing.assert_allclose(view.depth_m, wanted.depth_m, rtol=1e-5)
            decodings = [predictor.begin(view, f'{QUESTION} {n}', 6) for n in range(6)]
            while sum(decoding.step() for decoding in decodings):
                pass
            with predictor.engine.direct():
                texts = [predictor.ask(wanted, f'{QUESTION} {n}', 6).text for n in range(6)]
            assert [decoding.text for decoding in decodings] == texts
    assert len(predictor.engine._captures._held) == len(SIZES)
    assert not predictor.engine._captures._refused


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_cuda_replays_of_batches_give_the_direct_depth(tiny_checkpoint):
    predictor = Predictor.from_pretrained(tiny_checkpoint, device='cuda', dtype='float32')
    for turn in range(4):
        for count in (2, 1, 3):
            images = [image_of(*SIZES[0], seed=10 * turn + n) for n in range(count)]
            views = predictor.look_at_equal(images)
            with predictor.engine.direct():
                wanted = predictor.look_at_equal(images)
            for view, direct in zip(views, wanted):
                np.testing.assert_allclose(view.depth_m, direct.depth_m, rtol=1e-5)
    assert sorted(key[0] for key in predictor.engine._captures._held) == [1, 2, 3]
    assert not predictor.engine._captures._refused


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_cuda_nothing_waits_between_upload_and_download(tiny_checkpoint):
    predictor = Predictor.from_pretrained(tiny_checkpoint, device='cuda')
    rgb, camera = image_of(*SIZES[0])
    predictor.look(rgb, camera)
    with torch.inference_mode(), predictor.engine.direct():
        torch.cuda.set_sync_debug_mode('error')
        try:
            for count in (1, 2):
                predictor.engine.run(
                    [(rgb, camera, plan_resize(camera, predictor.config))] * count)
        finally:
            torch.cuda.set_sync_debug_mode('default')
