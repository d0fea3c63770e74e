# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0

from dataclasses import replace
import json

import cv2
from depthvlm_ros.benchmark.annotations import dataset_of, RecordError
from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.model.preprocessing import preprocess
from depthvlm_ros.training.annotated import Annotated, crop_to_edge
from depthvlm_ros.training.config import AnnotatedSource
from depthvlm_ros.training.samples import Encoder
from depthvlm_ros.training.start import build
import numpy as np
import pytest
import torch

WIDTH, HEIGHT, FX = 64, 48, 64.0  # the tiny model's canonical focal length: no resizing along u


@pytest.fixture(scope='module')
def encoder(tiny_training):
    model, tokenizer, prompt = build(tiny_training)
    return Encoder(model.config, tokenizer, prompt)


@pytest.fixture
def depth_m():
    """Return a ramp along both axes with a hole, (48, 64) float32 metres."""
    depth = np.add.outer(np.linspace(0, 3, HEIGHT), np.linspace(1, 5, WIDTH)).astype(np.float32)
    depth[:10, :20] = 0
    return depth


def write(folder, depth_m, name='scene', fx=FX, **fields):
    """Write a record with its files; returns its source."""
    rgb = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    cv2.imwrite(str(folder / 'image.png'), rgb[..., ::-1])
    if fields.get('depth_format'):
        depth_m.astype('<f4').tofile(folder / 'depth')
    else:
        cv2.imwrite(str(folder / 'depth.png'), np.round(depth_m * 1000).astype(np.uint16))
    record = {'image': 'image.png', 'depth_scale': 1000.0, 'original_fx': fx,
              'depth_path': 'depth' if fields.get('depth_format') else 'depth.png',
              'original_rgb_size': [WIDTH, HEIGHT],
              'original_depth_size': list(depth_m.shape[::-1]), 'depth_type': 'z_depth',
              'prompt': 'Estimate the depth.', 'solution': 'OK.', **fields}
    (folder / f'{name}.jsonl').write_text(json.dumps(record) + '\n')
    return AnnotatedSource(f'{name}.jsonl', '.', '.'), rgb


def test_a_record_becomes_image_label_and_reply(encoder, depth_m, tmp_path):
    source, rgb = write(tmp_path, depth_m)
    sample = Annotated(source, tmp_path, encoder).sample(0)
    pixels, grid = preprocess(rgb, Intrinsics.centred(WIDTH, HEIGHT, FX), encoder.config)
    assert torch.equal(sample.pixel_values, pixels) and torch.equal(sample.grid_thw, grid)
    assert sample.depth_m.shape == (64, 64)  # 48 rows are rounded to the whole tokens' 64
    # Nearest: the ramp's own values, and no mean of them with the hole.
    assert torch.equal(sample.depth_m[40], torch.from_numpy(np.round(depth_m[30] * 1000) / 1000))
    hole = sample.depth_m[:13, :20]
    assert not (torch.isfinite(hole) & (hole > 0)).any()
    assert torch.isfinite(sample.depth_m[14:]).all()
    (ids, targets), = sample.row.talks
    assert encoder.tokenizer.decode([t for t in targets if t >= 0]) == 'OK.<|im_end|>'
    assert encoder.tokenizer.decode(ids).startswith('Estimate the depth.<|im_end|>')


def test_stage_1_reads_no_reply(encoder, depth_m, tmp_path):
    source, _ = write(tmp_path, depth_m)
    assert Annotated(source, tmp_path, encoder, with_language=False).sample(0).row.talks == []


def test_bounds_on_pixels_scale_the_label(encoder, tmp_path):
    flat = np.full((HEIGHT, WIDTH), 2.0, np.float32)
    source, _ = write(tmp_path, flat, fx=4 * FX)  # canonical 16 x 12 px: too few
    label = Annotated(source, tmp_path, encoder).sample(0).depth_m
    # The network sees 96 x 64 px, so that its focal length is sqrt(96 * 64 / (16 * 12)) too long.
    assert label.shape == (64, 96)
    torch.testing.assert_close(label, torch.full((64, 96), 2.0 / (96 * 64 / (16 * 12)) ** 0.5))


def test_the_folder_of_the_data_tells_the_dataset_as_in_the_benchmark(encoder, tmp_path):
    folder = tmp_path / 'ddad'
    folder.mkdir()
    source, _ = write(folder, np.ones((HEIGHT, WIDTH), np.float32), name='annotations')
    assert Annotated(source, folder, encoder).dataset == dataset_of('ddad.jsonl')
    assert Annotated(source, folder, encoder).dataset.name == 'DDAD'


def test_a_list_instead_of_lines_is_named(encoder, tmp_path):
    source, _ = write(tmp_path, np.ones((HEIGHT, WIDTH), np.float32), name='a')
    text = (tmp_path / 'a.jsonl').read_text()
    for written in (f'[{text}]', f'[\n{text}]\n', f'[{text.strip()}]'):
        (tmp_path / 'a.jsonl').write_text(written)
        with pytest.raises(ValueError, match='a.jsonl: is one JSON list, wanted JSON lines'):
            Annotated(source, tmp_path, encoder)


def test_depth_beyond_the_datasets_range_is_invalid(encoder, tmp_path):
    depth = np.full((HEIGHT, WIDTH), 9.0, np.float32)
    depth[:, 32:] = 11.0
    source, _ = write(tmp_path, depth, name='scannetpp_train')  # to 10 m
    label = Annotated(source, tmp_path, encoder).sample(0).depth_m
    assert (label[:, :32] == 9).all() and label[:, 32:].isnan().all()
    stated = AnnotatedSource(source.annotations, '.', '.', range_m=(10.0, 20.0))
    label = Annotated(stated, tmp_path, encoder).sample(0).depth_m
    assert label[:, :32].isnan().all() and (label[:, 32:] == 11).all()


@pytest.mark.parametrize('told', ['euclidean', 'z_depth', None])
def test_distances_along_the_ray_become_depths(encoder, tmp_path, told):
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    ray = np.hypot(1, np.hypot((u - (WIDTH - 1) / 2) / FX, (v - (HEIGHT - 1) / 2) / FX))
    source, _ = write(tmp_path, (3.0 * ray).astype(np.float32), depth_type=told)
    source = replace(source, euclidean=told != 'euclidean')
    label = Annotated(source, tmp_path, encoder).sample(0).depth_m
    torch.testing.assert_close(label, torch.full((64, 64), 3.0), atol=1e-3, rtol=0)


def test_an_image_that_tells_no_size_has_its_own(encoder, tmp_path):
    v, u = np.mgrid[:HEIGHT // 2, :WIDTH // 2]      # half as fine as the image
    x, y = ((at - (n / 2 - 1) / 2) / (FX / 2) for at, n in ((u, WIDTH), (v, HEIGHT)))
    source, _ = write(tmp_path, (3.0 * np.hypot(1, np.hypot(x, y))).astype(np.float32),
                      depth_type='euclidean', original_rgb_size=None)
    label = Annotated(source, tmp_path, encoder).sample(0).depth_m
    torch.testing.assert_close(label, torch.full((64, 64), 3.0), atol=1e-3, rtol=0)


def test_bare_floats_are_read(encoder, depth_m, tmp_path):
    depth_m[20, 20] = np.inf
    source, _ = write(tmp_path, depth_m, depth_format='binary_float32')
    label = Annotated(source, tmp_path, encoder).sample(0).depth_m
    torch.testing.assert_close(label[40], torch.from_numpy(depth_m[30]))


def break_image(folder):
    (folder / 'image.png').write_bytes((folder / 'image.png').read_bytes()[:300])


def lose_depth(folder):
    (folder / 'depth.png').unlink()


def empty_depth(folder):
    cv2.imwrite(str(folder / 'depth.png'), np.zeros((HEIGHT, WIDTH), np.uint16))


def turn_depth(folder):
    depth = cv2.imread(str(folder / 'depth.png'), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(folder / 'depth.png'), depth.T)


def break_line(folder):
    (folder / 'scene.jsonl').write_text('{"image": \n')


@pytest.mark.parametrize(('damage', 'reason'), [
    (break_image, 'image'), (lose_depth, 'depth'), (empty_depth, 'empty'),
    (turn_depth, 'depth'), (break_line, 'record')])
def test_what_cannot_be_used_says_why(encoder, depth_m, tmp_path, damage, reason):
    source, _ = write(tmp_path, depth_m)
    damage(tmp_path)
    with pytest.raises(RecordError) as caught:
        Annotated(source, tmp_path, encoder).sample(0)
    assert caught.value.reason == reason


def test_what_is_too_long_to_train_on_is_skipped_and_can_be_bounded(encoder, depth_m, tmp_path):
    source, _ = write(tmp_path, depth_m, prompt='word ' * 5000)
    with pytest.raises(RecordError, match=r'scene.jsonl line 1: has \d+ tokens, wanted at most'):
        Annotated(source, tmp_path, encoder).sample(0)
    source, _ = write(tmp_path, depth_m)
    tokens = len(Annotated(source, tmp_path, encoder).sample(0).pixel_values) // 4
    bounded = replace(source, max_image_tokens=tokens // 2)
    sample = Annotated(bounded, tmp_path, encoder).sample(0)
    assert len(sample.pixel_values) // 4 <= tokens // 2
    # A shorter focal length makes things look farther, and that is what the network should say.
    assert sample.depth_m.nanmean() > 1.2 * depth_m[depth_m > 0].mean()


def test_a_reply_to_nothing_is_not_learnt(encoder, depth_m, tmp_path):
    source, _ = write(tmp_path, depth_m, prompt='')
    assert not Annotated(source, tmp_path, encoder).sample(0).row.talks


def test_a_missing_file_is_named(encoder, tmp_path):
    with pytest.raises(ValueError, match=r'none.jsonl: no such file, wanted JSON lines'):
        Annotated(AnnotatedSource('none.jsonl', '.', '.'), tmp_path, encoder)


def test_the_crop_keeps_the_middle_and_the_camera():
    camera = Intrinsics.centred(300, 100, 500.0)  # 600 x 200 px at a focal length of 1000
    rgb = np.zeros((100, 300, 3), np.uint8)
    rgb[:, 50:250] = 255
    depth = np.zeros((50, 150), np.float32)
    depth[:, 25:125] = 1
    image, label, cropped = crop_to_edge(rgb, depth, camera, 1000.0, 400)
    assert image.shape == (100, 200, 3) and (image == 255).all()
    assert label.shape == (50, 100) and (label == 1).all()
    assert cropped == Intrinsics.centred(200, 100, 500.0)
    assert crop_to_edge(rgb, depth, camera, 1000.0, 600)[0] is rgb
    assert crop_to_edge(rgb, depth, camera, 1000.0, None)[0] is rgb
