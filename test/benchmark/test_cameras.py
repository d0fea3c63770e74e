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


def test_a_model_that_is_not_there_is_said(capsys):
    assert cameras.main(['--model', '/nowhere']) == 1
    assert '/nowhere' in capsys.readouterr().err


def test_a_number_of_cameras_that_cannot_be_is_refused(capsys):
    with pytest.raises(SystemExit):
        cameras.main(['--counts', '0'])
    assert 'wanted >= 1' in capsys.readouterr().err
