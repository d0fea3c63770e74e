# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The paper's two stages: which parameters move, and how fast (arXiv 2605.15876)."""

import math

import torch

TRAINED = {1: ('depth_head.',), 2: ('model.language_model.', 'lm_head.', 'depth_head.')}
VISION = 'model.visual.'  # tower, merger and DeepStack mergers


def freeze(model, stage, thaw_vision=False):
    """
    Set which parameters are trained; all others stay as they are, to the bit.

    :param model: DepthVLM.
    :param stage: 1: the depth head; 2: language model, output layer and head.
    :param thaw_vision: train the vision tower, mergers included, too.
    """
    moving = TRAINED[stage] + ((VISION,) if thaw_vision else ())
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(moving))


def optimiser_of(module, training):
    """Build AdamW over what is trained: weight decay on matrices alone."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    groups = [{'params': [p for p in parameters if p.ndim >= 2],
               'weight_decay': training.weight_decay},
              {'params': [p for p in parameters if p.ndim < 2], 'weight_decay': 0.0}]
    return torch.optim.AdamW(groups, lr=training.learning_rate, betas=training.betas)


def rate_at(step, steps, training):
    """
    Return the learning rate of a step.

    It rises in equal parts through the warm-up, whose first step has the first part, and falls
    to zero at the end.

    :param steps: in all.
    """
    warm_up = training.warm_up if training.warm_up >= 1 else math.ceil(training.warm_up * steps)
    share = min(1.0, (step + 1) / max(1, warm_up))
    if training.schedule == 'trapezoid':
        share = min(share, (steps - step) / max(1.0, training.decay * steps))
    elif step >= warm_up:
        share = 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))
    return training.learning_rate * share
