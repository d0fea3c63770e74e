# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
import json

from depthvlm_ros.nodes import frame_profile
import pytest

pytestmark = pytest.mark.ros


def test_every_step_of_a_frame_is_timed_and_the_rest_is_their_sum(checkpoint, capsys):
    assert frame_profile.main(['--model', str(checkpoint), '--device', 'cpu', '--size', '128',
                               '96', '--fx', '100', '--repeats', '2']) == 0
    lines = capsys.readouterr().out.splitlines()
    figures = json.loads(lines[-1])
    steps_ms = figures['steps_ms']
    assert {'deserialise the image', 'convert to RGB', 'rectify', 'model', 'make the cloud',
            'serialise the cloud'} <= steps_ms.keys()
    assert all(ms > 0 for ms in steps_ms.values())
    assert figures['rest_ms'] == pytest.approx(sum(steps_ms.values()) - steps_ms['model'])
    assert len(lines) == len(steps_ms) + 2


def test_a_model_that_is_not_there_is_said(capsys):
    assert frame_profile.main(['--model', '/nowhere']) == 1
    assert '/nowhere' in capsys.readouterr().err
