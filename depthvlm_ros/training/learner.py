# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The model with its losses, as one module: all that a step computes is in its forward."""

from depthvlm_ros.training.losses import log_l1, silog
from depthvlm_ros.training.packing import IGNORED
from depthvlm_ros.training.rooms import NAMED_COLOURS, NAMED_KINDS
from depthvlm_ros.training.samples import COUNTED
import torch
import torch.nn.functional as F

PARTS = ('depth', 'log_l1', 'language', 'naming')
COUNT_OF = {'depth': 'images', 'log_l1': 'images', 'language': 'tokens', 'naming': 'named'}


class Naming(torch.nn.Module):
    """Name what each image token shows: a help in training, no part of the model."""

    def __init__(self, hidden):
        super().__init__()
        self.colour = torch.nn.Linear(hidden, len(NAMED_COLOURS))
        self.kind = torch.nn.Linear(hidden, len(NAMED_KINDS))

    def loss(self, hidden, names):
        """
        Return the summed cross-entropy of both names.

        :param hidden: (N, hidden) states at the image tokens.
        :param names: (2, N) int64, colours and kinds, IGNORED where not known.
        """
        return sum(F.cross_entropy(layer(hidden.float()), named, ignore_index=IGNORED,
                                   reduction='sum')
                   for layer, named in zip((self.colour, self.kind), names))


class Learner(torch.nn.Module):
    """
    A DepthVLM and what it is taught by.

    :param model: DepthVLM.
    :param training: TrainingConfig.
    """

    def __init__(self, model, training):
        super().__init__()
        self.model = model
        named = training.naming_weight > 0
        self.naming = Naming(model.config.text_config.hidden_size) if named else None
        self.with_language = training.with_language
        self.bf16 = training.precision == 'bf16'
        self.weights = {'depth': training.depth_weight, 'language': 1.0,
                        'log_l1': training.depth_weight * training.log_l1_weight,
                        'naming': training.naming_weight}

    def forward(self, batch):
        """
        Run a batch.

        :param batch: samples.Batch, on the model's device.
        :return: (4,) float32, in the order of PARTS: sums over the images with depth (SILog and
            log L1), over the supervised tokens, and over the named tokens; sums, so that batches
            of any make-up add up to what their samples give together.
        """
        packed = batch.packed
        with torch.autocast(batch.pixel_values.device.type, torch.bfloat16, enabled=self.bf16):
            out = self.model(
                packed.input_ids, attention_mask=packed.mask, position_ids=packed.positions,
                pixel_values=batch.pixel_values, image_grid_thw=batch.grid_thw, logits_to_keep=0)
            language = self.language_loss(out.hidden, packed.targets)
        naming = out.hidden.new_zeros(())
        if self.naming is not None:
            seen = out.hidden[packed.input_ids == self.model.config.image_token_id]
            naming = self.naming.loss(seen, batch.names)
        depth = absolute = sum(metres.sum() for metres in out.depth_pred) * 0.0
        for metres, truth_m in zip(out.depth_pred, batch.depth_m):
            if truth_m is not None:
                depth = depth + silog(metres, truth_m)
                absolute = absolute + log_l1(metres, truth_m)
        return torch.stack([part.float() for part in (depth, absolute, language, naming)])

    def language_loss(self, hidden, targets):
        """Return the summed cross-entropy at the supervised tokens; logits exist there alone."""
        if not self.with_language:
            return hidden.new_zeros(())
        supervised = targets != IGNORED
        logits = self.model.lm_head(hidden[supervised])
        return F.cross_entropy(logits.float(), targets[supervised], reduction='sum')

    def means(self, sums, counts):
        """
        Divide sums by what was counted.

        :param sums: (4,), in the order of PARTS.
        :param counts: (4,), in the order of COUNTED, of all that the step learns from.
        :return: (4,).
        """
        divisors = torch.stack([counts[COUNTED.index(COUNT_OF[part])] for part in PARTS])
        return sums / divisors.clamp(min=1)

    def total(self, means):
        """Return the weighted sum of the parts."""
        return sum(self.weights[part] * mean for part, mean in zip(PARTS, means))
