# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Losses over depth in metres; the paper's first (arXiv 2605.15876)."""

import torch

EPS = 1e-8


def silog(prediction_m, truth_m, variance_focus=0.5):
    """
    Scale-invariant log loss (Eigen et al., arXiv 1406.2283), with the root taken.

    sqrt(mean d^2 - focus * mean(d)^2 + 1e-8), d = ln(prediction) - ln(truth) over valid pixels.

    :param prediction_m: (H, W), metres, > 0.
    :param truth_m: the same shape, metres; invalid where not finite or not > 0.
    :return: a scalar; where no pixel is valid 0, still connected to the prediction for autograd.
    """
    d = log_difference(prediction_m, truth_m)
    if d.numel() == 0:
        return prediction_m.sum() * 0.0
    return torch.sqrt(d.square().mean() - variance_focus * d.mean().square() + EPS)


def log_l1(prediction_m, truth_m):
    """Mean absolute difference of the logarithms; shapes and validity as silog's."""
    d = log_difference(prediction_m, truth_m)
    return d.abs().mean() if d.numel() else prediction_m.sum() * 0.0


def log_difference(prediction_m, truth_m):
    """
    Return ln(prediction) - ln(truth) at the valid pixels, (N,).

    As released, those where the prediction is 0, as softplus is far down, count as invalid.
    """
    valid = torch.isfinite(truth_m) & (truth_m > 0) & (prediction_m > 0)
    return prediction_m[valid].float().log() - truth_m[valid].float().log()
