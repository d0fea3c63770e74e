# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Clouds by either way are the same, and the faster way is taken."""

from types import SimpleNamespace

from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.nodes import clouds as clouds_module
from depthvlm_ros.nodes.clouds import Clouds, fill_on, TRIALS
from depthvlm_ros.nodes.conversions import cloud, fill_points
import numpy as np
import pytest
from std_msgs.msg import Header

pytestmark = pytest.mark.ros

CAMERA = Intrinsics(70, 50, 60.0, 61.0, 33.3, 26.1)
rng = np.random.default_rng(0)
DEPTH_M = rng.uniform(0.3, 9, (50, 70)).astype(np.float32)
DEPTH_M[3:9, 20:30] = np.nan
RGB = rng.integers(0, 256, (50, 70, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Let no time pass but what a Way takes."""
    monkeypatch.setattr(clouds_module, 'time', SimpleNamespace(perf_counter=lambda: Way.now_s))


class Way:
    """Fills by the plain way, in its own time, and counts."""

    now_s = 0.0

    def __init__(self, seconds=0.0, error=None):
        self.seconds, self.error, self.times = seconds, error, 0

    def __call__(self, *given):
        self.times += 1
        Way.now_s += self.seconds
        if self.error is not None:
            raise self.error
        fill_points(*given)


def made(clouds, depth_m=DEPTH_M, rgb=RGB, camera=CAMERA, stride=1):
    return clouds.message(depth_m, rgb, camera, Header(frame_id='optical'), stride)


@pytest.mark.parametrize('stride', [1, 2, 3])
@pytest.mark.parametrize('name', ['cpu', pytest.param('cuda', marks=pytest.mark.gpu)])
def test_both_ways_give_the_same_bytes(stride, name):
    torch = pytest.importorskip('torch')
    if name == 'cuda' and not torch.cuda.is_available():
        pytest.skip('this machine has no CUDA device')
    there = made(Clouds(fill_on(torch.device(name))), stride=stride)
    assert there == cloud(DEPTH_M, RGB, CAMERA, Header(frame_id='optical'), stride)
    assert np.isnan(np.frombuffer(there.data, '<f4')).any()


@pytest.mark.parametrize('faster', [0, 1])
def test_the_faster_way_is_taken_after_some_trials(faster):
    ways = [Way(0.05), Way(0.05)]
    ways[faster].seconds = 0.0
    clouds = Clouds(*ways)
    for _ in range(TRIALS + 5):
        assert made(clouds) == cloud(DEPTH_M, RGB, CAMERA, Header(frame_id='optical'))
    assert ways[faster].times == TRIALS + 5
    assert ways[1 - faster].times == TRIALS


def test_each_size_has_its_own_trials():
    ways = Way(0.05), Way()
    clouds = Clouds(*ways)
    for stride in (1, 2):
        for _ in range(TRIALS + 1):
            made(clouds, stride=stride)
    assert ways[0].times == 2 * TRIALS


@pytest.mark.parametrize('trials_before', [0, TRIALS])
def test_a_device_that_fails_is_not_tried_again(trials_before):
    device = Way()
    plain = Way(0.05)
    clouds = Clouds(plain, device)
    for _ in range(trials_before):
        made(clouds)
    device.error, tried = RuntimeError('out of memory'), device.times
    for _ in range(3):
        assert made(clouds) == cloud(DEPTH_M, RGB, CAMERA, Header(frame_id='optical'))
    assert device.times == tried + 1


def test_beside_a_model_on_the_cpu_nothing_is_tried():
    torch = pytest.importorskip('torch')
    assert len(Clouds.of(torch.device('cpu'))._ways) == 1
    assert len(Clouds.of(torch.device('cuda'))._ways) == 2
