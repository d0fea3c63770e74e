# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0

from depthvlm_ros.training.losses import log_l1, silog
import numpy as np
import pytest
import torch


def test_silog_is_the_papers_formula():
    rng = np.random.default_rng(0)
    prediction, truth = rng.uniform(0.5, 20, (2, 7, 9))
    truth[0, 0], truth[0, 1], truth[0, 2] = 0, np.nan, -1  # invalid
    valid = np.isfinite(truth) & (truth > 0)
    d = np.log(prediction[valid]) - np.log(truth[valid])
    expected = np.sqrt(np.mean(d ** 2) - 0.5 * np.mean(d) ** 2 + 1e-8)
    got = silog(torch.tensor(prediction, dtype=torch.float32),
                torch.tensor(truth, dtype=torch.float32))
    assert got.item() == pytest.approx(expected, rel=1e-5)
    assert valid.sum() == 60


@pytest.mark.parametrize('loss', [silog, log_l1])
def test_a_pixel_whose_prediction_is_0_is_left_out_as_released(loss):
    truth = torch.tensor([[1.0, 1.0, 2.2]])
    prediction = torch.tensor([[0.0, 1.0, 2.0]], requires_grad=True)
    value = loss(prediction, truth)
    value.backward()
    assert value.item() == pytest.approx(loss(prediction[:, 1:], truth[:, 1:]).item())
    assert prediction.grad.isfinite().all()


def test_silog_forgives_half_of_a_common_factor():
    truth = torch.rand(5, 5) + 1
    assert silog(truth, truth).item() == pytest.approx(1e-4)
    assert silog(2 * truth, truth).item() == pytest.approx(np.sqrt(0.5) * np.log(2), rel=1e-4)


def test_log_l1():
    truth = torch.full((2, 2), 3.0)
    assert log_l1(truth * 2, truth).item() == pytest.approx(np.log(2))


@pytest.mark.parametrize('loss', [silog, log_l1])
def test_an_image_without_labels_teaches_nothing(loss):
    prediction = torch.ones(3, 3, requires_grad=True)
    value = loss(prediction, torch.full((3, 3), torch.nan))
    value.backward()
    assert value == 0
    assert (prediction.grad == 0).all()
