# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0

from dataclasses import replace

import cv2
from depthvlm_ros.model.preprocessing import plan_resize
from depthvlm_ros.synthetic import Scene
from depthvlm_ros.synthetic.cameras import NARROW_RANGE
from depthvlm_ros.synthetic.judge import metres_in
from depthvlm_ros.synthetic.wording import number_in
from depthvlm_ros.training import rooms as rooms_module
from depthvlm_ros.training.config import RoomSource
from depthvlm_ros.training.learner import Learner, PARTS
from depthvlm_ros.training.mixture import open_sources
from depthvlm_ros.training.rooms import named_depths, Rooms
from depthvlm_ros.training.samples import Encoder
from depthvlm_ros.training.start import build
import numpy as np
import pytest
import torch


@pytest.fixture(scope='module')
def parts(tiny_training):
    training = replace(tiny_training, precision='float32')
    model, tokenizer, prompt = build(training)
    return training, model, Encoder(model.config, tokenizer, prompt)


@pytest.mark.parametrize('kind', ['far', 'apart'])
def test_words_are_in_the_metres_of_the_networks_image_where_the_model_is_told_so(parts, kind):
    training, _, encoder = parts
    said = {}
    for told in (False, True):
        encoder.config.canonical_words = told
        source = replace(training.sources[0], kinds={kind: 1}, native_px=(200, 300), questions=1)
        rooms = Rooms(source, encoder, seed=3)
        said[told] = [
            (sample, metres_in(encoder.tokenizer.decode(
                [token for token in sample.row.talks[0][1] if token >= 0])))
            for sample in map(rooms.sample, range(12)) if sample.row.talks]
    encoder.config.canonical_words = False
    assert len(said[False]) == len(said[True]) > 3
    drawn = [one.depth_scale for one in (
        plan_resize(camera, encoder.config) for camera in cameras_of(rooms, 12))]
    ratios = [true_m / told_m for (_, true_m), (_, told_m) in zip(said[False], said[True])]
    assert max(ratios) > 1.2 or min(ratios) < 0.8
    assert all(any(abs(ratio / scale - 1) < 0.02 for scale in drawn) for ratio in ratios)


@pytest.mark.parametrize('exact', [False, True])
def test_depth_is_that_of_a_training_room_in_the_networks_metres(parts, monkeypatch, exact):
    training, _, encoder = parts
    frames, render = [], Scene.render
    monkeypatch.setattr(Scene, 'render', lambda *a: frames.append(render(*a)) or frames[-1])
    splits, draw = [], Scene.random
    monkeypatch.setattr(Scene, 'random', lambda *a, **k: splits.append(k) or draw(*a, **k))
    monkeypatch.setattr(encoder.config, 'exact_focal', exact)
    rooms = Rooms(replace(training.sources[0], native_px=(200, 300)), encoder, seed=3)
    scales = set()
    for index in range(6):
        sample = rooms.sample(index)
        scale = plan_resize(frames[-1].intrinsics, encoder.config).depth_scale
        truth_m = cv2.resize(frames[-1].depth_m, sample.depth_m.shape[::-1],
                             interpolation=cv2.INTER_NEAREST_EXACT)
        np.testing.assert_allclose(sample.depth_m * scale, truth_m, rtol=1e-6)
        named_m = named_depths(frames[-1], sample.depth_m.shape[::-1], encoder.config.token_px)
        np.testing.assert_allclose(sample.named_m * scale, named_m, rtol=1e-6)
        scales.add(scale)
    assert len(scales) > 3 and splits == [{'split': 'train'}] * 6


def cameras_of(rooms, count):
    """Return the cameras of the first samples."""
    for index in range(count):
        yield rooms._camera(index, np.random.default_rng([rooms.seed, 2, index]))


def test_sources_of_rooms_in_one_run_show_different_rooms(parts):
    training, _, encoder = parts
    rooms = training.sources[0]
    alone, = open_sources('.', encoder, training)
    both = open_sources('.', encoder, replace(training, sources=(
        replace(rooms, share=0.5), replace(rooms, share=0.5, things=0.5))))
    views = [source.sample(3).pixel_values for source in (alone, *both)]
    assert torch.equal(views[0], views[1])
    assert views[1].shape != views[2].shape or not torch.equal(views[1], views[2])


def test_rooms_seen_together_have_one_size_and_cameras_of_their_own(parts, monkeypatch):
    drawn = []
    draw = rooms_module.draw_camera
    monkeypatch.setattr(rooms_module, 'draw_camera',
                        lambda *what: drawn.append(draw(*what)) or drawn[-1])
    rooms = Rooms(RoomSource(native_px=(60, 140)), parts[2], seed=3, together=4)
    seen, cameras = [], []
    for index in range(4):
        seen.append(rooms.sample(index))
        cameras.append(drawn[-1])
    assert len({tuple(sample.grid_thw[0].tolist()) for sample in seen}) == 1
    assert len({camera.fx / camera.width for camera in cameras}) > 1


def test_a_share_of_the_views_is_narrow(parts, monkeypatch):
    drawn = []
    draw = rooms_module.draw_camera
    monkeypatch.setattr(rooms_module, 'draw_camera',
                        lambda *what: drawn.append(draw(*what)) or drawn[-1])
    narrow = []
    for share in (0.0, 0.5, 1.0):
        rooms = Rooms(RoomSource(native_px=(60, 100), narrow=share), parts[2], seed=3,
                      with_language=False, with_names=False)
        drawn.clear()
        for index in range(100):
            rooms.sample(index)
        narrow.append(sum(camera.fx / camera.width > NARROW_RANGE[0] for camera in drawn))
    assert len(drawn) == narrow[2] == 100
    assert 35 < narrow[0] < 65 < narrow[1] < 90
    assert max(camera.fx / camera.width for camera in drawn) <= NARROW_RANGE[1]


def test_the_depth_loss_sees_the_window_alone(parts):
    training, model, encoder = parts
    rooms = Rooms(RoomSource(native_px=(60, 140), window=0.5), encoder, seed=3)
    sample = rooms.sample(0)
    height, width = sample.depth_m.shape
    window = sample.window
    assert (window.v_max - window.v_min, window.u_max - window.u_min) == (height // 2, width // 2)
    outside = sample.depth_m.clone()
    outside[:] = 7.0
    outside[window.v_min:window.v_max, window.u_min:window.u_max] = window.of(sample.depth_m)
    learner = Learner(model, replace(training, naming_weight=0.0))
    losses = []
    for depth_m in (sample.depth_m, outside, sample.depth_m + 1.0):
        batch = encoder.collate([(replace(sample, depth_m=depth_m), [])])
        with torch.no_grad():
            losses.append(float(learner(batch)[PARTS.index('depth')]))
    assert losses[0] == losses[1] != losses[2]


def test_a_window_beyond_the_image_is_refused():
    with pytest.raises(ValueError, match=r'window is 1.5, wanted a share in \(0, 1\]'):
        RoomSource(window=1.5)


def test_the_depth_loss_is_on_things_by_the_share_that_is_wanted(parts, monkeypatch):
    looked_at = []      # numbers of the things seen, (H, W)
    draw = rooms_module.Rooms._judged
    monkeypatch.setattr(rooms_module.Rooms, '_judged', lambda self, rng, ids, window: (
        looked_at.append(ids) or draw(self, rng, ids, window)))

    def samples(**source):
        rooms = Rooms(RoomSource(native_px=(120, 140), window=0.5, **source), parts[2], seed=3,
                      with_language=False, with_names=False)
        return [rooms.sample(index) for index in range(40)]

    before, after, most = [], [], []
    for plain, sample, ids in zip(samples(), samples(things=0.5), looked_at, strict=True):
        assert plain.judged is None and sample.window == plain.window
        assert torch.equal(sample.depth_m, plain.depth_m)
        judged, ids = sample.window.of(sample.judged).numpy(), sample.window.of(ids)
        if (ids >= 0).mean() > 0.05:
            before.append((ids >= 0).mean())
            after.append((ids[judged] >= 0).mean())
            most += [(judged & (ids == thing)).mean() for thing in np.unique(ids[ids >= 0])]
        elif not (ids >= 0).any():
            assert judged.all()
    assert len(after) > 10 and np.mean(before) < 0.35
    assert 0.4 < np.mean(after) < 0.55
    assert 0.02 < max(most) < 0.05


def test_a_small_share_of_things_leaves_all_of_the_room(parts):
    rooms = Rooms(RoomSource(native_px=(120, 140), things=0.02), parts[2], seed=3)
    ids = np.full((200, 200), -1)
    ids[:100, :50] = 0      # an eighth, of which a fourth would be 1 in 29
    judged = rooms._judged(np.random.default_rng(0), ids, None)
    assert judged[ids < 0].all()
    assert (ids[judged] == 0).mean() == pytest.approx(0.02, abs=0.004)


def test_the_depth_loss_takes_the_judged_pixels_alone(parts):
    training, model, encoder = parts
    sample = Rooms(RoomSource(native_px=(60, 140), window=0.5, things=0.5), encoder,
                   seed=3).sample(0)
    learner = Learner(model, training)      # with hints, which know the depth everywhere
    losses = []
    for changed in (sample.judged & False, ~sample.judged, sample.judged):
        batch = encoder.collate([
            (replace(sample, depth_m=torch.where(changed, 7.0, sample.depth_m)), [])])
        with torch.no_grad():
            losses.append(dict(zip(PARTS, learner(batch).tolist())))
    assert all(np.isfinite(list(loss.values())).all() for loss in losses)
    for part in ('depth', 'log_l1'):
        assert losses[0][part] == losses[1][part] != losses[2][part]


def test_a_depth_loss_on_things_alone_is_refused():
    with pytest.raises(ValueError, match=r'things is 1.0, wanted a share in \[0, 1\)'):
        RoomSource(things=1.0)


def test_a_share_of_narrow_views_above_1_is_refused():
    with pytest.raises(ValueError, match=r'narrow is 1.5, wanted a share in \[0, 1\]'):
        RoomSource(narrow=1.5)


@pytest.fixture
def asked(parts, monkeypatch):
    """Return a function that draws (question, answer, kind) of 100 rooms of a source."""
    drawn = []
    draw = rooms_module.Rooms._asked
    monkeypatch.setattr(rooms_module.Rooms, '_asked',
                        lambda *a: drawn.append(draw(*a)) or drawn[-1])

    def of(**source):
        drawn.clear()
        rooms = Rooms(RoomSource(native_px=(60, 100), **source), parts[2], seed=3,
                      with_names=False)
        for index in range(100):
            rooms.sample(index)
        return [pair for pairs in drawn for pair in pairs]
    return of


def test_how_often_a_number_of_things_is_asked_for_can_be_told(asked):
    kinds = {'count': 1, 'far': 1}
    plain = asked(kinds=kinds, questions=2)
    rare = asked(kinds=kinds, questions=2, numbers=(1, 1, 4, 20))
    threes, more = (sum(kind == 'count' and number_in(answer) >= 3 for _, answer, kind in pairs)
                    for pairs in (plain, rare))
    assert more >= 3 * max(threes, 1)
    # The kinds keep their shares.
    plain, rare = (sum(kind == 'count' for _, _, kind in pairs) for pairs in (plain, rare))
    assert 0.85 < rare / plain < 1.15


def test_how_often_a_kind_is_asked_can_be_told(asked):
    kinds = [kind for _, _, kind in asked(kinds={'depth': 9, 'absent': 1, 'far': 0}, questions=1)]
    assert kinds.count('depth') > 3 * kinds.count('absent') > 0
    assert len(kinds) == kinds.count('depth') + kinds.count('absent')


def test_half_of_the_windows_hold_a_thing_by_intent(parts, monkeypatch):
    draw = rooms_module.Rooms._window
    shown = []
    monkeypatch.setattr(rooms_module.Rooms, '_window', lambda *a: shown.append(
        (a[3], a[2], draw(*a))) or shown[-1][-1])
    rooms = Rooms(RoomSource(native_px=(60, 140), window=0.3), parts[2], seed=3,
                  with_language=False, with_names=False)
    for index in range(60):
        rooms.sample(index)
    held = 0
    for frame, size, window in shown:
        scales = size[0] / frame.intrinsics.width, size[1] / frame.intrinsics.height
        held += any(window.u_min <= thing.pixel[0] * scales[0] < window.u_max
                    and window.v_min <= thing.pixel[1] * scales[1] < window.v_max
                    for thing in frame.objects)
    assert held > 0.5 * len(shown)    # a third of them without it
