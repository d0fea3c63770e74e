# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The paper's two stages: which parameters move, and how fast (arXiv 2605.15876)."""

import math

from depthvlm_ros.training.precision import Float32
import torch

TRAINED = {1: ('depth_head.',), 2: ('model.language_model.', 'lm_head.', 'depth_head.')}
MUON_MOMENTUM = 0.95
VISION = 'model.visual.'  # tower, merger and DeepStack mergers


class Float32Muon(getattr(torch.optim, 'Muon', torch.optim.Optimizer)):
    """torch's Muon, which makes its steps orthogonal in float32 instead of bfloat16."""

    def step(self, closure=None):
        """Make a step, as torch's does."""
        with Float32():
            return super().step(closure)


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


def optimisers_of(module, training):
    """
    Build the optimisers of what is trained; weight decay is for matrices alone.

    AdamW for everything, or torch's Muon for the matrices of the vision tower's and the language
    model's layers, its steps as large as AdamW's (`match_rms_adamw`), and AdamW for the rest. Muon
    makes its steps orthogonal in the run's precision.

    :param training: TrainingConfig, its precision 'bf16' or 'float32'.
    :return: list of optimisers.
    :raises ValueError: Muon, and a torch that does not have it (before 2.9).
    """
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    by_muon = [p for name, p in named if training.optimiser == 'muon' and is_inner(name, p)]
    rest = [p for _, p in named if not any(p is other for other in by_muon)]
    groups = [{'params': [p for p in rest if p.ndim >= 2],
               'weight_decay': training.weight_decay},
              {'params': [p for p in rest if p.ndim < 2], 'weight_decay': 0.0}]
    optimisers = [torch.optim.AdamW(groups, lr=training.learning_rate, betas=training.betas)]
    if training.optimiser == 'muon':
        if not hasattr(torch.optim, 'Muon'):
            raise ValueError(f"optimiser is 'muon', but torch {torch.__version__} does not have "
                             "it; wanted torch >= 2.9, or 'adamw'")
        muon = torch.optim.Muon if training.precision == 'bf16' else Float32Muon
        optimisers.append(muon(
            by_muon, lr=training.learning_rate, weight_decay=training.weight_decay,
            momentum=MUON_MOMENTUM, adjust_lr_fn='match_rms_adamw'))
    return optimisers


def is_inner(name, parameter):
    """
    Tell whether a parameter is a matrix of a layer, neither the first nor the last.

    The mergers are not: four times a layer's width squared, they cost Muon more than all layers.
    """
    return parameter.ndim == 2 and ('.blocks.' in name or '.layers.' in name)


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
