# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0

import json
import re

import cv2
from depthvlm_ros.benchmark.annotations import read_annotations, read_depth, read_rgb
from depthvlm_ros.benchmark.vqa import is_contained, is_exact
from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.synthetic import export as export_module
from depthvlm_ros.synthetic.export import (
    accepted_answers,
    export,
    lone_answers,
    main,
    stored_depth,
)
from depthvlm_ros.synthetic.scene import Scene
import numpy as np
import pytest

FIELDS = {
    'image', 'depth_path', 'depth_scale', 'original_rgb_size', 'original_depth_size',
    'original_fx', 'canonical_fx', 'canonical_size', 'prompt', 'solution', 'pixel_coords',
    'depth', 'depth_type'}


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    """Export three rooms; return the folder and the frames that went into it."""
    folder = tmp_path_factory.mktemp('rooms')
    frames, render = [], Scene.render

    def watch(scene, *args):
        frames.append(render(scene, *args))
        return frames[-1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_module.Scene, 'render', watch)
        export(folder, 3, seed=7, width=100, height=72)
    return folder, frames


def test_what_is_read_is_what_was_rendered(exported):
    folder, frames = exported
    records = read_annotations(folder / 'annotations.jsonl')
    assert len(records) == len(frames) == 3
    for record, frame in zip(records, frames):
        np.testing.assert_array_equal(read_rgb(folder / record.image), frame.rgb)
        depth_m = read_depth(record, folder)
        assert np.abs(depth_m - frame.depth_m).max() <= 0.5 / 4000 + 1e-5
        assert record.camera(72, 100) == frame.intrinsics
        u, v = record.points.T
        np.testing.assert_allclose(record.point_depth_m, depth_m[v, u], atol=6e-5)
        assert len(set(map(tuple, record.points.tolist()))) == 10


def test_every_released_field_is_there(exported):
    folder, frames = exported
    for fields, frame in zip(lines(folder / 'annotations.jsonl'), frames):
        assert set(fields) >= FIELDS | {'scene'}
        assert fields['original_rgb_size'] == fields['original_depth_size'] == [100, 72]
        assert fields['canonical_size'] == [round(side * 1000 / fields['original_fx'])
                                            for side in (100, 72)]
        assert fields['depth_type'] == 'z_depth'
        assert frame.intrinsics == Intrinsics.centred(100, 72, fields['original_fx'])


def test_the_cameras_differ(exported):
    assert len({frame.intrinsics.fx for frame in exported[1]}) == 3


def test_conversations_are_the_frames_questions(exported):
    folder, frames = exported
    conversations = lines(folder / 'questions.jsonl')
    expected = [pair for frame, seed in zip(frames, (7, 8, 9)) for pair in frame.questions(seed)]
    assert [(c['messages'][0]['content'].removeprefix('<image>\n'), c['messages'][1]['content'],
             c['kind']) for c in conversations] == expected
    for conversation in conversations:
        assert [m['role'] for m in conversation['messages']] == ['user', 'assistant']
        assert (folder / conversation['image']).is_file()
        assert conversation['fx'] > 0


def test_exact_answers_are_accepted_and_opposite_ones_not(exported):
    folder, frames = exported
    opposite = (('left', 'right'), ('no', '3'), ('1', '2'))
    for frame in frames:
        for _, answer, kind in frame.questions():
            if kind in export_module.VQA_KINDS:
                accepted = accepted_answers(kind, answer)
                assert is_contained(answer, accepted)
                assert not is_contained('I cannot tell.', accepted)
                for a, b in opposite:
                    swapped = re.sub(rf'\b({a}|{b})\b',
                                     lambda m, a=a, b=b: b if m[1] == a else a, answer)
                    if kind in ('count', 'side') and swapped != answer:
                        assert not is_contained(swapped, accepted)
                if kind == 'side':
                    first, side, second = re.fullmatch(
                        r'The (.+) is (left|right) of the (.+)\.', answer).groups()
                    other = {'left': 'right', 'right': 'left'}[side]
                    assert is_contained(f'The {second} is {other} of the {first}.', accepted)
                    assert not is_contained(f'The {second} is {side} of the {first}.', accepted)


def test_accepted_answers_by_hand():
    closer = accepted_answers('closer', 'The red box is at 2.00 m and the blue ball at 3.00 m, '
                              'so the red box is closer.')
    assert closer[1:] == ['the red box is closer', 'red box is nearer']
    assert not is_contained('The red box is at 2.00 m and the blue ball at 1.00 m, so the blue '
                            'ball is closer.', closer)
    count = 'There are 2 cones.'
    assert accepted_answers('count', count)[1:] == ['2 cones', 'two cones']
    assert lone_answers('count', count)[:2] == ['2', 'two']
    for answer, wrong in (
            ('There are no boxes.', 'There is no way to tell.'),
            ('There are no boxes.', 'There is no doubt: 3 boxes.'),
            ('There is 1 box.', 'There are 2 boxes, one red and one blue.')):
        assert not is_contained(wrong, accepted_answers('count', answer))
    none = accepted_answers('count', 'There are no red objects.')
    assert is_contained('I see no red objects here.', none)
    assert is_contained('Zero red objects.', none)
    assert {'0', 'zero', 'no', 'none'} == {
        said for said in lone_answers('count', none[0]) if ' ' not in said}
    for said in ('Left.', 'To the left.', 'On the left side.'):
        assert is_exact(said, lone_answers('side', 'The red box is left of the blue ball.'))
    for said in ('The red box.', 'red box', 'The closer one is the red box.'):
        assert is_exact(said, lone_answers('closer', closer[0]))
        wrong = said.replace('red box', 'blue ball')
        assert not is_exact(wrong, lone_answers('closer', closer[0]))
    assert is_exact('There are 2.', lone_answers('count', count))
    assert not is_exact('There are 3.', lone_answers('count', count))
    assert is_exact('It is to the left.', lone_answers(
        'side', 'The red box is left of the blue ball.'))
    assert accepted_answers('what', 'The floor, 2.88 m away.')[1:] == ['floor']
    assert accepted_answers('absent', 'There is no red box in the image.')[1:] == [
        'There is no red box']


def test_the_same_seed_gives_the_same_files_and_splits_differ(exported, tmp_path):
    main(['--out', str(tmp_path / 'a'), '--count', '1', '--seed', '8', '--width', '100',
          '--height', '72'])
    again = lines(tmp_path / 'a/annotations.jsonl')
    assert again == lines(exported[0] / 'annotations.jsonl')[1:2]
    main(['--out', str(tmp_path / 'b'), '--count', '1', '--seed', '8', '--width', '100',
          '--height', '72', '--split', 'train'])
    assert lines(tmp_path / 'b/annotations.jsonl')[0]['depth'] != again[0]['depth']
    assert cv2.imread(str(tmp_path / 'b/depth/train_000008_100x72.png'), -1).dtype == np.uint16


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(ValueError, match='count is 0'):
        export(tmp_path, 0)
    for words in (['--count', '-3'], ['--count', '1', '--seed', '-1'],
                  ['--count', '1', '--width', '0'], ['--count', '1', '--out', '']):
        with pytest.raises(SystemExit, match='2'):
            main(['--out', str(tmp_path), *words])
    with pytest.raises(ValueError, match=r'20\.00 m, wanted at most 16\.38 m'):
        stored_depth(np.full((2, 2), 20.0))


@pytest.mark.parametrize(('words', 'error'), [
    (['--width', '20000', '--height', '4'], 'the image is 20000 x 4, wanted 1 to 16384'),
    (['--width', '8', '--height', '1000'], 'canonical focal length is 2000 x 250000, wanted 1 to'),
    (['--count', '1' + 20 * '0'], 'count is 1' + 20 * '0' + ', wanted 1 to 1000000000')])
def test_what_could_not_be_read_again_is_refused_and_replaces_nothing(
        tmp_path, capsys, words, error):
    main(['--out', str(tmp_path), '--count', '1', '--width', '64', '--height', '48'])
    before = {path: path.read_text() for path in tmp_path.glob('*.jsonl')}
    with pytest.raises(SystemExit, match='2'):
        main(['--out', str(tmp_path), '--count', '1', *words])
    assert error in capsys.readouterr().err
    assert {path: path.read_text() for path in tmp_path.glob('*')
            if path.is_file()} == before != {}


def test_an_export_that_fails_leaves_the_lists_that_were_there(tmp_path, monkeypatch):
    export(tmp_path, 1, width=64, height=48)
    before = {path: path.read_text() for path in tmp_path.glob('*.jsonl')}
    monkeypatch.setattr(export_module.cv2, 'imwrite', lambda *_: False)
    with pytest.raises(OSError, match='not written'):
        export(tmp_path, 1, seed=5, width=64, height=48)
    assert {path: path.read_text() for path in tmp_path.glob('*.jsonl')} == before


def test_lists_tell_of_their_own_images_though_an_export_of_another_size_is_killed(
        tmp_path, monkeypatch):
    export(tmp_path, 2, width=64, height=48)
    before = {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()}

    def killed(*_):
        raise KeyboardInterrupt
    monkeypatch.setattr(export_module, 'vqa_of', killed)
    with pytest.raises(KeyboardInterrupt):
        export(tmp_path, 2, width=96, height=48)
    assert {path: path.read_bytes() for path in before} == before
