# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What command lines ask of their numbers."""

import argparse

from depthvlm_ros.options import at_least, up_to
import pytest


def parsed(kind, *words):
    parser = argparse.ArgumentParser()
    parser.add_argument('--number', type=kind)
    return parser.parse_args(words).number


def test_numbers_from_the_least_on_are_taken():
    assert parsed(at_least(1), '--number', '1') == 1
    assert parsed(at_least(-2), '--number=-2') == -2
    assert parsed(at_least(1)) is None


def test_numbers_above_nothing_are_taken():
    assert parsed(up_to(600), '--number', '600') == 600.0
    assert parsed(up_to(600), '--number', '1e-3') == 0.001


@pytest.mark.parametrize(('kind', 'text', 'told'), [
    (at_least(1), '0', "argument --number: '0', wanted >= 1"),
    (at_least(0), '-3', "argument --number: '-3', wanted >= 0"),
    (at_least(0), '1.5', "argument --number: invalid int value: '1.5'"),
    (up_to(600), '0', "argument --number: '0', wanted more than 0, at most 600"),
    (up_to(600), 'nan', "argument --number: 'nan', wanted more than 0, at most 600"),
    (up_to(600), '601', "argument --number: '601', wanted more than 0, at most 600"),
    (up_to(600), 'long', "argument --number: invalid float value: 'long'"),
])
def test_other_numbers_end_in_a_line_that_names_them(capsys, kind, text, told):
    with pytest.raises(SystemExit, match='2'):
        parsed(kind, f'--number={text}')
    assert told in capsys.readouterr().err
