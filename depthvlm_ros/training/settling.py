# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The hints' own layers, learnt before a run's first step.

A checkpoint does not hold them. Drawn by lot, their gradients are larger than all others for some
hundred steps, and a trained model forgets under them (docs/experiments.md). So the model stays as
it is until they fit it: first the head, then all, as for any other (Kumar et al., arXiv
2202.10054).
"""

from dataclasses import replace

import torch

ROUNDS = 60     # over all batches
RATE = 2e-2     # of Adam, falling to zero


def settle(learner, batches):
    """
    Fit the hints' own layers to a model that stays as it is, to the bit.

    :param learner: Learner with hints.
    :param batches: samples.Batch, a few; what the model makes of them is kept.
    """
    hints, seen = learner.hints, []
    device = next(learner.parameters()).device
    for batch in batches:
        batch = batch.to(device)
        with torch.no_grad(), learner.autocast(batch):
            hidden = learner.look(batch).hidden
        bare = replace(batch, pixel_values=batch.pixel_values[:0])      # most of a batch's memory
        seen.append((bare, learner.is_image(batch), hidden, dict(hints.watched)))
    optimiser = torch.optim.Adam(hints.parameters(), lr=RATE)
    for done in range(ROUNDS):
        optimiser.param_groups[0]['lr'] = RATE * (1 - done / ROUNDS)
        for batch, is_image, hidden, watched in seen:
            hints.watched = watched
            naming, gaze = hints(batch, is_image, hidden)
            none = torch.zeros_like(naming)
            parts = torch.stack([none, none, none, naming, gaze])
            optimiser.zero_grad()
            learner.total(learner.means(parts, batch.counts)).backward()
            optimiser.step()
    optimiser.zero_grad()
    hints.watched = {}
