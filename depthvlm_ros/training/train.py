# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Train the embedded model: `python -m depthvlm_ros.training.train --config nano --out FOLDER`.

One loop over rooms made on the fly. A run that was stopped goes on where its last state was
saved; the folder ends as a checkpoint in the released layout.
"""

import argparse
import csv
import math
from pathlib import Path
import time

from depthvlm_ros.model import DepthVLM, DepthVLMConfig
from depthvlm_ros.model.checkpoint import load_tokenizer
from depthvlm_ros.model.prompt import Prompt
from depthvlm_ros.training.config import TrainingConfig
from depthvlm_ros.training.losses import log_l1, silog
from depthvlm_ros.training.packing import IGNORED
from depthvlm_ros.training.rooms import NAMED_COLOURS, NAMED_KINDS, RoomBatches
from depthvlm_ros.training.tokenizer import room_texts, train_tokenizer
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader
from tqdm import tqdm

STATE = 'training_state.pt'
TYPICAL_DEPTH_M = 3.0  # where an untrained head begins


class Naming(torch.nn.Module):
    """Name what each image token shows: a help in training, no part of the model."""

    def __init__(self, hidden):
        super().__init__()
        self.colour = torch.nn.Linear(hidden, len(NAMED_COLOURS))
        self.kind = torch.nn.Linear(hidden, len(NAMED_KINDS))

    def loss(self, hidden, colours, kinds):
        """Return the cross-entropy of both names at hidden states (N, hidden)."""
        hidden = hidden.float()
        return (F.cross_entropy(self.colour(hidden), colours.flatten())
                + F.cross_entropy(self.kind(hidden), kinds.flatten()))


def build(training, rooms=400, begun=None):
    """
    Build an untrained model and its tokenizer.

    :param rooms: from the talk about how many rooms the tokenizer learns its words.
    :param begun: folder of a run that goes on, whose tokenizer is kept.
    :return: (model, tokenizer, prompt).
    """
    torch.manual_seed(training.seed)
    tokenizer = (load_tokenizer(begun) if begun
                 else train_tokenizer(room_texts(rooms), training.vocab_size))
    prompt = Prompt.of(tokenizer)
    fields = dict(training.model)
    fields['text_config'] = {**fields['text_config'], 'vocab_size': training.vocab_size}
    tokens = {f'{name}_token_id': tokenizer.convert_tokens_to_ids(f'<|{token}|>')
              for name, token in (('image', 'image_pad'), ('video', 'video_pad'),
                                  ('vision_start', 'vision_start'), ('vision_end', 'vision_end'))}
    model = DepthVLM(DepthVLMConfig(**fields, **tokens))
    for module in model.depth_head.modules():
        if hasattr(module, 'reset_parameters'):
            module.reset_parameters()
    with torch.no_grad():
        model.depth_head.scratch.output_conv2[2].bias.fill_(TYPICAL_DEPTH_M)
    return model, tokenizer, prompt


def losses(model, naming, batch, training, device):
    """
    Run one batch.

    :param batch: rooms.Batch.
    :return: dict of scalars: 'total', 'depth' (SILog), 'language', 'naming'.
    """
    packed = batch.packed
    ids = packed.input_ids.to(device)
    grid = batch.grid_thw
    with torch.autocast(device.type, torch.bfloat16):
        out = model(ids, attention_mask=packed.mask.to(device), position_ids=packed.positions.to(
            device), pixel_values=batch.pixel_values.to(device), image_grid_thw=grid.to(device),
            logits_to_keep=0)
        supervised = packed.targets != IGNORED
        logits = model.lm_head(out.hidden[supervised.to(device)])
    language = F.cross_entropy(logits.float(), packed.targets[supervised].to(device))
    truth = batch.depth_m.to(device)
    depth = torch.stack([silog(p, t) for p, t in zip(out.depth_pred, truth)]).mean()
    absolute = torch.stack([log_l1(p, t) for p, t in zip(out.depth_pred, truth)]).mean()
    seen = out.hidden[ids == model.config.image_token_id]
    named = naming.loss(seen, batch.colours.to(device), batch.kinds.to(device))
    total = (language + training.depth_weight * (depth + training.log_l1_weight * absolute)
             + training.naming_weight * named)
    return {'total': total, 'depth': depth.detach(), 'language': language.detach(),
            'naming': named.detach()}


def rate_at(step, training):
    """Return the share of the peak learning rate at a step: up, level, down to zero."""
    up = (step + 1) / max(1, training.warm_up)
    left = (training.steps - step) / max(1.0, training.decay * training.steps)
    return min(1.0, up, left)


def optimiser_of(modules, training):
    """Build AdamW: weight decay on matrices alone."""
    parameters = [p for m in modules for p in m.parameters() if p.requires_grad]
    groups = [{'params': [p for p in parameters if p.ndim >= 2],
               'weight_decay': training.weight_decay},
              {'params': [p for p in parameters if p.ndim < 2], 'weight_decay': 0.0}]
    return torch.optim.AdamW(groups, lr=training.learning_rate, betas=(0.9, 0.98))


def save_checkpoint(model, tokenizer, folder):
    """Write the released layout, in float16: rounding costs nothing measurable, and halves it."""
    half = {k: v.to(torch.float16) for k, v in model.state_dict().items()
            if not (k == 'lm_head.weight' and model.config.tie_word_embeddings)}
    model.config.save_pretrained(folder)
    model.save_pretrained(folder, state_dict=half)
    tokenizer.save_pretrained(folder)


def run(training, out, workers=1, device='cpu', save_every=500, stop_at=None):
    """
    Train to the configured step, resuming from `out` where a state is saved there.

    :param out: folder of logs, state and checkpoint.
    :param workers: processes that render.
    :param stop_at: end this session at that step, saved, to be resumed.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    device = torch.device(device)
    state = out / STATE
    model, tokenizer, prompt = build(training, begun=out if state.is_file() else None)
    naming = Naming(model.config.text_config.hidden_size).to(device)
    model.to(device).train()
    if device.type == 'cpu':  # with a block mask in bfloat16, a fifth faster a step there
        model.model.language_model.set_attn_implementation('eager')
    optimiser = optimiser_of((model, naming), training)
    first = load_state(state, model, naming, optimiser, device)
    end = min(training.steps, stop_at or training.steps)
    batches = RoomBatches(training, model.config, tokenizer, prompt,
                          prefix_positions(model.config))
    loader = DataLoader(batches, batch_size=None, sampler=range(first, end), num_workers=workers,
                        prefetch_factor=4 if workers else None)
    with open(out / 'log.csv', 'a', newline='') as log:
        writer = csv.writer(log)
        bar = tqdm(loader, initial=first, total=training.steps, unit='step', mininterval=5)
        began = time.time()
        for step, batch in enumerate(bar, start=first):
            for group in optimiser.param_groups:
                group['lr'] = training.learning_rate * rate_at(step, training)
            parts = losses(model, naming, batch, training, device)
            optimiser.zero_grad(set_to_none=True)
            parts['total'].backward()
            norm = torch.nn.utils.clip_grad_norm_(
                [*model.parameters(), *naming.parameters()], training.clip)
            if not math.isfinite(norm):
                raise FloatingPointError(f"step {step}: the gradient's norm is {norm}")
            optimiser.step()
            if step % 20 == 0:
                values = {k: round(v.item(), 4) for k, v in parts.items()}
                writer.writerow([step, round(time.time() - began, 1), *values.values()])
                log.flush()
                bar.set_postfix(values)
            if (step + 1) % save_every == 0 or step + 1 == end:
                save_state(state, step + 1, model, naming, optimiser)
                save_checkpoint(model, tokenizer, out)


def prefix_positions(config):
    """Return a function that gives multimodal positions without the model's weights."""
    with torch.device('meta'):
        shell = DepthVLM(config)
    return lambda ids, grid: shell.positions(ids, image_grid_thw=grid)


def save_state(path, step, model, naming, optimiser):
    """Save all that the next step depends on, whole or not at all."""
    new = path.with_suffix('.new')
    torch.save({'step': step, 'model': model.state_dict(), 'naming': naming.state_dict(),
                'optimiser': optimiser.state_dict()}, new)
    new.replace(path)


def load_state(path, model, naming, optimiser, device):
    """Load a saved state where there is one; returns the step to go on with."""
    if not path.is_file():
        return 0
    state = torch.load(path, map_location=device, weights_only=True)
    model.load_state_dict(state['model'])
    naming.load_state_dict(state['naming'])
    optimiser.load_state_dict(state['optimiser'])
    return state['step']


def main(args=None):
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--config', default='nano', help='a name in the tree, or a YAML file')
    parser.add_argument('--out', required=True, help='folder for logs, state and checkpoint')
    parser.add_argument('--steps', type=int, help='optimiser steps in all, instead of the config')
    parser.add_argument('--workers', type=int, default=1, help='processes that render')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--save-every', type=int, default=500, help='steps')
    parser.add_argument('--stop-at', type=int, help='stop at this step, to be resumed')
    options = parser.parse_args(args)
    training = TrainingConfig.load(options.config)
    if options.steps:
        training = TrainingConfig(**{**vars(training), 'steps': options.steps})
    run(training, options.out, options.workers, options.device, options.save_every,
        options.stop_at)


if __name__ == '__main__':
    main()
