# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The model with its losses, as one module: all that a step computes is in its forward."""

from depthvlm_ros.training.hints import Hints
from depthvlm_ros.training.losses import log_l1, silog
from depthvlm_ros.training.samples import COUNTED
import torch
import torch.nn.functional as F

PARTS = ('depth', 'log_l1', 'language', 'naming', 'gaze')
COUNT_OF = {'depth': 'images', 'log_l1': 'images', 'language': 'tokens', 'naming': 'named',
            'gaze': 'gazes'}


class Learner(torch.nn.Module):
    """
    A DepthVLM and what it is taught by.

    :param model: DepthVLM.
    :param training: TrainingConfig, its precision 'bf16' or 'float32' (precision.precision_on).
    """

    def __init__(self, model, training):
        super().__init__()
        self.model = model
        hinted = training.naming_weight > 0 or training.gaze_weight > 0
        self.hints = Hints(model, training.gaze_weight > 0) if hinted else None
        self.with_language = training.with_language
        self.bf16 = training.precision == 'bf16'
        self.checkpointed = training.gradient_checkpointing
        self.weights = {'depth': training.depth_weight, 'language': training.language_weight,
                        'log_l1': training.depth_weight * training.log_l1_weight,
                        'naming': training.naming_weight, 'gaze': training.gaze_weight}

    def forward(self, batch):
        """
        Run a batch.

        :param batch: samples.Batch, on the model's device.
        :return: (5,) float32, in the order of PARTS: sums over the images with depth (SILog and
            log L1), over the supervised tokens, the named tokens and the gazes; sums, so that
            batches of any make-up add up to what their samples give together.
        """
        with self.autocast(batch):
            out = self.look(batch)
            language = self.language_loss(out.hidden, batch.packed.targets, batch.weights)
        naming = gaze = out.hidden.new_zeros(())
        if self.hints is not None:
            naming, gaze = self.hints(batch, self.is_image(batch), out.hidden)
        depth = absolute = sum(metres.sum() for metres in out.depth_pred) * 0.0
        for metres, truth_m, window, judged in zip(out.depth_pred, batch.depth_m, batch.windows,
                                                   batch.judged, strict=True):
            if truth_m is not None:
                truth_m = truth_m if judged is None else truth_m.where(judged, torch.nan)
                truth_m = truth_m if window is None else window.of(truth_m)
                depth = depth + silog(metres, truth_m)
                absolute = absolute + log_l1(metres, truth_m)
        return torch.stack([part.float() for part in (depth, absolute, language, naming, gaze)])

    def autocast(self, batch):
        """Return the context of the run's precision."""
        # With checkpoints each weight is cast again on the way back: what is kept serves nobody.
        return torch.autocast(batch.pixel_values.device.type, torch.bfloat16, enabled=self.bf16,
                              cache_enabled=not self.checkpointed)

    def look(self, batch):
        """Pass a batch through the model; return its output, without logits."""
        packed = batch.packed
        mask = packed.mask
        if mask is not None and self.bf16:
            mask = mask.clamp(min=torch.finfo(torch.bfloat16).min).bfloat16()
        return self.model(
            packed.input_ids, attention_mask=mask, position_ids=packed.positions,
            pixel_values=batch.pixel_values, image_grid_thw=batch.grid_thw, logits_to_keep=0,
            depth_windows=batch.windows if any(batch.windows) else None)

    def is_image(self, batch):
        """Return which tokens of a batch are image tokens, (B, S) bool."""
        return batch.packed.input_ids == self.model.config.image_token_id

    def language_loss(self, hidden, targets, weights):
        """Sum the weighed cross-entropy at the supervised tokens; logits exist there alone."""
        if not self.with_language:
            return hidden.new_zeros(())
        supervised = weights > 0
        logits = self.model.lm_head(hidden[supervised])
        each = F.cross_entropy(logits.float(), targets[supervised], reduction='none')
        return (each * weights[supervised]).sum()

    def means(self, sums, counts):
        """
        Divide sums by what was counted.

        :param sums: (5,), in the order of PARTS.
        :param counts: (5,), in the order of COUNTED, of all that the step learns from.
        :return: (5,).
        """
        divisors = torch.stack([counts[COUNTED.index(COUNT_OF[part])] for part in PARTS])
        return sums / divisors.clamp(min=1)

    def total(self, means):
        """Return the weighted sum of the parts."""
        return sum(self.weights[part] * mean for part, mean in zip(PARTS, means))
