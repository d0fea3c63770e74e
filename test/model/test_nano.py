# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The embedded checkpoint: small, whole, and able to see rooms."""

from depthvlm_ros.benchmark.rooms import measure_focal, measure_rooms
from depthvlm_ros.model import Predictor
from depthvlm_ros.model.checkpoint import EMBEDDED
import pytest


@pytest.fixture(scope='module')
def nano():
    return Predictor.from_pretrained('nano', device='cpu')


def test_it_is_small_and_in_the_released_layout():
    files = {path.name: path.stat().st_size for path in (EMBEDDED / 'nano').iterdir()}
    assert {'config.json', 'model.safetensors', 'tokenizer.json', 'tokenizer_config.json',
            'chat_template.jinja', 'README.md'} <= set(files)
    assert sum(files.values()) < 25e6


def test_it_sees_the_depth_of_rooms_it_has_not_seen(nano):
    """A floor below what its card says: a broken checkpoint falls through it."""
    result = measure_rooms(nano, 12, first_seed=5000, width_px=(240, 320), per_kind=1)
    assert result['delta1'] > 0.9
    assert result['answers']['depth']['right'] == 1.0
    assert result['answers']['side']['right'] > 0.7
    assert result['answers']['point']['right'] > 0.7


def test_a_wrong_focal_length_shows_in_its_depth(nano):
    result = measure_focal(nano, 4, first_seed=5000, width=320, height=240)
    assert result['wrong_fx']['0.8'] < result['ratio']['1.0'] < result['wrong_fx']['1.25']
