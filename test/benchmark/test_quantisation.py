# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0

import json
import sys

from depthvlm_ros.benchmark import quantisation
import numpy as np
import pytest


def test_depth_maps_are_compared_image_by_image():
    true_m = [np.full((2, 2), 2.0), np.full((2, 2), 4.0)]
    found_m = [np.full((2, 2), 2.2), np.full((2, 2), 8.0)]
    figures = quantisation.against(found_m, true_m)
    assert figures['delta1'] == 0.5
    assert figures['abs_rel'] == pytest.approx(0.55)


def test_without_torchao_it_is_said_what_to_install(tiny_checkpoint, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'torchao', None)
    assert quantisation.main(['--model', str(tiny_checkpoint), '--device', 'cpu']) == 2
    assert 'pip install torchao' in capsys.readouterr().err


def test_the_last_line_is_json_with_every_figure(tiny_checkpoint, capsys):
    pytest.importorskip('torchao')
    assert quantisation.main(['--model', str(tiny_checkpoint), '--device', 'cpu',
                              '--rooms', '2']) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(result['weights']) == ['none', 'int8', 'int4']
    none, int8 = result['weights']['none'], result['weights']['int8']
    assert none['unquantised'] == {'delta1': 1.0, 'abs_rel': 0.0}
    assert 0 < int8['unquantised']['abs_rel'] < 0.1
    assert int8['stored_mb'] < none['stored_mb']
