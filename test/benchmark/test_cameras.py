# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
import json

from depthvlm_ros.benchmark import cameras
import pytest


def test_the_last_line_has_a_row_for_each_number_of_cameras(capsys):
    assert cameras.main(['--model', 'nano', '--device', 'cpu', '--counts', '1', '2',
                         '--repeats', '1']) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row['cameras'] for row in figures['rows']] == [1, 2]
    for row in figures['rows']:
        assert row['ratio'] == pytest.approx(row['together_hz'] / row['apart_hz'])
        assert row['largest_difference'] < 1e-3


def test_images_that_do_not_go_together_are_no_figure(capsys, monkeypatch):
    load = cameras.Predictor.from_pretrained

    def load_alone(*args, **options):
        predictor = load(*args, **options)
        predictor.batches = False       # as after a pass that there was no memory for
        return predictor
    monkeypatch.setattr(cameras.Predictor, 'from_pretrained', load_alone)
    assert cameras.main(['--device', 'cpu', '--counts', '2', '--repeats', '1']) == 2
    assert '2 images do not go through the model together' in capsys.readouterr().err


def test_a_model_that_is_not_there_is_said(capsys):
    assert cameras.main(['--model', '/nowhere']) == 2
    assert '/nowhere' in capsys.readouterr().err


def test_a_number_of_cameras_that_cannot_be_is_refused(capsys):
    with pytest.raises(SystemExit):
        cameras.main(['--counts', '0'])
    assert 'wanted >= 1' in capsys.readouterr().err
