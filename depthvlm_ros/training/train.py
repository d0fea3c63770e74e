# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Train a DepthVLM: `python -m depthvlm_ros.training.train --config nano --out FOLDER`.

On one machine or many: `accelerate launch -m depthvlm_ros.training.train ...`. A run that was
stopped goes on where its last state was saved; the folder ends as a checkpoint in the released
layout.
"""

import argparse
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
import logging
import math
import os
from pathlib import Path
import resource
import sys

import cv2
from depthvlm_ros.model.vision_pass import embed_patches
from depthvlm_ros.options import at_least
from depthvlm_ros.training import attention
from depthvlm_ros.training.config import AnnotatedSource, TrainingConfig
from depthvlm_ros.training.learner import Learner, PARTS
from depthvlm_ros.training.logs import RunLog
from depthvlm_ros.training.mixture import (
    accumulations,
    epoch_size,
    Mixture,
    open_sources,
    step_batches,
)
from depthvlm_ros.training.precision import precision_on
from depthvlm_ros.training.resuming import description, gone_on_with
from depthvlm_ros.training.samples import COUNTED, Encoder
from depthvlm_ros.training.settling import settle
from depthvlm_ros.training.stages import freeze, optimisers_of, rate_at
from depthvlm_ros.training.start import begin
from depthvlm_ros.training.state import (
    check_free,
    claim,
    discard_unfinished,
    gather_weights,
    latest_state,
    load_progress,
    load_state,
    save_checkpoint,
    save_state,
)
from depthvlm_ros.training.stopping import begin_reader, end_readers_at_exit, Stopping
from depthvlm_ros.training.vision import encode
from safetensors import SafetensorError
import torch
from torch.distributed.checkpoint import CheckpointException
from torch.utils.data import DataLoader
import yaml

LOG_EVERY = 20  # steps
# On a CPU a product is compiled for the shape of its operands, of which rooms have thousands.
PRODUCTS_KEPT = '20000'
PATIENCE_S = 7200.0     # of a process for the others, as while one writes a large checkpoint
SKIPPED = COUNTED.index('skipped')
SAMPLES_AHEAD = 32     # that each reader holds, in shared memory, or one batch if that is more


def open_accelerator(device):
    """
    Return accelerate's Accelerator.

    :param device: 'auto' or 'cpu'.
    :raises ValueError: accelerate is not installed.
    """
    try:
        from accelerate import Accelerator, InitProcessGroupKwargs
    except ImportError as e:
        raise ValueError('training needs accelerate, which is not installed: '
                         'pip install -r requirements-training.txt') from e
    # Without a GPU, processes that were not told so would each train alone.
    accelerator = Accelerator(
        cpu=device == 'cpu' or not torch.accelerator.is_available(),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(seconds=PATIENCE_S))])
    # `accelerate launch` may bring settings of its own; both are this configuration's to say. With
    # bf16 FSDP would sum gradients in it, and autocast the parts that are float32 on purpose.
    if accelerator.mixed_precision != 'no':
        raise ValueError(f'accelerate was told mixed_precision {accelerator.mixed_precision!r}, '
                         "wanted 'no': the configuration's precision says it")
    accelerator.gradient_accumulation_steps = 1
    return accelerator


def open_data(training, root, encoder, processes):
    """
    Open the sources of a run.

    :param root: folder that the sources' paths are relative to.
    :param processes: how many share out a step.
    :return: (mixture, steps): the samples by position, and how many steps the run takes.
    """
    sources = open_sources(root, encoder, training)
    shares = [source.share for source in training.sources]
    per_step = accumulations(training, processes) * training.batch_size * processes
    steps = training.steps or math.ceil(epoch_size(sources, shares) / per_step)
    return Mixture(sources, shares, steps * per_step, training.seed), steps


def train_step(accelerator, learner, optimisers, batches, clip):
    """
    Make one optimiser step.

    Losses are means over all that the step learns from, over every process and accumulation, so
    that the step does not depend on how its samples are shared out.

    :param optimisers: list of them.
    :param batches: this process's batches of the step, on any device. They come to its own one
        by one: a step of the paper's has gigabytes of pixels.
    :param clip: norm to which the gradients are clipped.
    :return: (means (5,) in the order of PARTS, counts (5,) in that of COUNTED, gradient norm).
    :raises FloatingPointError: a gradient or a loss that is not finite.
    """
    bare = accelerator.unwrap_model(learner)
    # Gradients that wait for the last batch to be summed are whole ones, on every process.
    sharded = accelerator.distributed_type == 'FSDP'
    counts = torch.stack([batch.counts for batch in batches]).sum(0)
    counts = accelerator.reduce(counts.to(accelerator.device), 'sum')
    sums = 0.0
    for number, batch in enumerate(batches, start=1):
        now = sharded or number == len(batches)
        with nullcontext() if now else accelerator.no_sync(learner):
            part = learner(batch.to(accelerator.device))
            # Processes' gradients are averaged, and wanted is their sum.
            accelerator.backward(
                bare.total(bare.means(part, counts)) * accelerator.num_processes)
        sums = sums + part.detach()
    norm = accelerator.clip_grad_norm_(learner.parameters(), clip)
    norm = norm.full_tensor() if hasattr(norm, 'full_tensor') else norm
    if not math.isfinite(norm):
        raise FloatingPointError(f'the gradient norm is {norm}, wanted a finite one: lower '
                                 'learning_rate, or take precision float32; the last saved state '
                                 'is kept')
    means = bare.means(accelerator.reduce(sums, 'sum'), counts)
    if not means.isfinite().all():      # as of a label that is NaN: its gradient may be 0
        parts = ', '.join(f'{part} {mean:.4g}' for part, mean in zip(PARTS, means.tolist()))
        raise FloatingPointError(f'the losses are {parts}, wanted finite ones; the last saved '
                                 'state is kept')
    for optimiser in optimisers:
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    return means, counts, float(norm)


@dataclass
class Run:
    """A run under way: all that its steps need and that is saved of it."""

    out: Path                   # folder of log, state and checkpoint
    training: TrainingConfig
    accelerator: object         # accelerate's Accelerator
    tokenizer: object           # transformers' tokenizer, saved beside the weights
    learner: torch.nn.Module    # as accelerate prepared it
    optimisers: list            # likewise
    progress: dict              # of state.PROGRESS, kept true with every step

    def take_steps(self, batches, end, save_every):
        """
        Take steps up to `end`, or to the one under way when a signal comes; saved at the end.

        :param batches: iterator of this process's batches, from the next step's on.
        :param save_every: steps between states.
        :return: 0, or the exit code of a run that a signal ended.
        """
        steps = self.progress['steps']
        per_step = accumulations(self.training, self.accelerator.num_processes)
        log = RunLog(self.out, self.progress['step'], steps, self.accelerator.is_main_process)
        with log, Stopping() as stopping:
            for step in range(self.progress['step'], end):
                some = [next(batches) for _ in range(per_step)]
                self.take_step(step, some, log, step % LOG_EVERY == 0 or step + 1 == end)
                told = stopping.wanted(self.accelerator)
                if (step + 1) % save_every == 0 or step + 1 == end or told:
                    self.save()
                if told:
                    return stopping.exit_code
        return 0

    def take_step(self, step, batches, log, logged):
        """
        Take one step and count it.

        :param step: its number, from 0.
        :param batches: list of this process's batches of the step.
        :param logged: whether the log has a row of it.
        """
        rate = rate_at(step, self.progress['steps'], self.training)
        for group in (group for optimiser in self.optimisers for group in optimiser.param_groups):
            group['lr'] = rate
        log.skip(text for batch in batches for text in batch.skipped)
        means, counts, norm = train_step(self.accelerator, self.learner, self.optimisers, batches,
                                         self.training.clip)
        self.progress['step'] = step + 1
        self.progress['skipped'] += int(counts[SKIPPED])
        log.advance()
        if logged:
            total = self.accelerator.unwrap_model(self.learner).total(means)
            log.write({'step': step, 'samples': (step + 1) * self.progress['samples_per_step'],
                       'learning_rate': rate, 'total': float(total), 'gradient_norm': norm,
                       'skipped': self.progress['skipped'], **dict(zip(PARTS, means.tolist()))})

    def save(self):
        """
        Save the checkpoint and, once it is there, the state, which needs its tokenizer.

        :raises OSError: they cannot be written, as on a full disk; what was saved before stays.
        """
        weights = gather_weights(self.learner)
        try:
            if self.accelerator.is_main_process:
                model = self.accelerator.unwrap_model(self.learner).model
                save_checkpoint(model, self.tokenizer, self.out,
                                getattr(torch, self.training.saved_dtype), weights)
            save_state(self.out, self.progress, self.learner, self.optimisers, self.accelerator)
        except (OSError, SafetensorError, CheckpointException) as error:
            if self.accelerator.is_main_process:
                discard_unfinished(self.out)
            if isinstance(error, OSError):
                raise
            last = str(error).strip().splitlines()[-1]
            raise OSError(f'{self.out}: step {self.progress["step"]} could not be saved ({last}); '
                          'what was saved before is kept') from error


def run(training, out, data='.', workers=1, device='auto', save_every=500, stop_at=None):
    """
    Train to the last step, going on where a state is saved in `out`.

    SIGINT or SIGTERM end it after the step under way, saved.

    :param out: folder of log, state and checkpoint.
    :param data: folder that the sources' paths are relative to.
    :param workers: processes that read and render, for each process that trains.
    :param device: 'auto' or 'cpu'.
    :param save_every: steps between states.
    :param stop_at: end at that step, saved, to be gone on with.
    :return: 0, or the exit code of a run that a signal ended.
    :raises ValueError: what does not go together, or another run than the one begun in `out`.
    :raises OSError: files that cannot be read or written.
    :raises FloatingPointError: a gradient or a loss that is not finite.
    """
    if not str(out):
        raise ValueError('out is empty, wanted a folder')
    out = Path(out)
    accelerator = open_accelerator(device)
    training = replace(training, precision=precision_on(accelerator.device, training.precision))
    out.mkdir(parents=True, exist_ok=True)
    with claim(out) if accelerator.is_main_process else nullcontext():
        ended = train(training, out, data, workers, accelerator, save_every, stop_at)
    accelerator.end_training()
    return ended


def train(training, out, data, workers, accelerator, save_every, stop_at):
    """Do what `run` does, in a folder that is claimed."""
    begun = latest_state(out)
    if not begun:
        check_free(out)
    model, tokenizer, prompt = begin(training, out if begun else None)
    encoder = Encoder(model.config, tokenizer, prompt, training.weigh_digits)
    mixture, steps = open_data(training, data, encoder, accelerator.num_processes)
    learner = prepare_learner(model, training, accelerator)
    if training.start and not begun and learner.hints is not None:
        shown = range(min(training.hint_images, len(mixture)))
        settle(learner.to(accelerator.device), (
            encoder.collate([mixture[i] for i in shown[first:first + training.batch_size]])
            for first in shown[::training.batch_size]))
    learner, *optimisers = accelerator.prepare(learner, *optimisers_of(learner, training))
    logger = logging.getLogger(__name__)
    if (accelerator.is_main_process and training.stage == 2 and training.language_weight
            and all(isinstance(source, AnnotatedSource) for source in training.sources)):
        logger.warning('every source is of depth annotations, whose one reply the model may then '
                       'give to any question: add a source of kind chats to keep its language')
    progress = {'step': 0, 'skipped': 0, 'steps': steps,
                'samples_per_step': len(mixture) // steps, 'run': description(training, mixture)}
    if begun:
        progress |= gone_on_with(load_progress(begun), progress)
        load_state(begun, learner, optimisers)
    positions = range(progress['step'], min(steps, stop_at or steps))
    if not positions:
        logger.info('%s is at step %d of %d already, and step %d was wanted: there is nothing to '
                    'do', out, progress['step'], steps, positions.stop)
    loader = open_loader(mixture, encoder, training, accelerator, positions, workers)
    under_way = Run(out, training, accelerator, tokenizer, learner, optimisers, progress)
    ended = under_way.take_steps(iter(loader), positions.stop, save_every)
    if ended:
        logger.warning('ended by a signal after step %d of %d, saved; the same command goes on',
                       progress['step'], steps)
    return ended


def prepare_learner(model, training, accelerator):
    """
    Freeze what the stage does not train, and set the model up for training.

    :raises ValueError: Muon, which needs whole matrices, and weights that will be sharded.
    """
    if training.optimiser == 'muon' and accelerator.distributed_type == 'FSDP':
        raise ValueError("optimiser is 'muon' and FSDP shards the weights, wanted 'adamw'")
    freeze(model, training.stage, training.thaw_vision)
    model.config.depth_loss_weight = training.depth_weight
    visual = model.model.visual
    visual.patch_embed.forward = partial(embed_patches, visual.patch_embed)
    if training.gradient_checkpointing:
        model.gradient_checkpointing_enable({'use_reentrant': False})
        # transformers has the embeddings require gradients too, which only reentrant checkpoints
        # need: stage 1 would go back through all of the frozen language model, for nothing.
        model.disable_input_require_grads()
    # The gaze is watched there; and on a CPU it is faster.
    if accelerator.device.type == 'cpu':
        model.set_attn_implementation(attention.NAME)
        # It goes past the blocks' own forward, where checkpoints and shards are hooked in.
        if not training.gradient_checkpointing and accelerator.distributed_type != 'FSDP':
            visual.forward = partial(encode, visual)
    elif training.gaze_weight > 0:
        model.model.language_model.set_attn_implementation(attention.NAME)
    return Learner(model, training).train()


def open_loader(mixture, encoder, training, accelerator, steps, workers):
    """Return the loader of this process's batches."""
    positions = step_batches(steps, training, accelerator.process_index,
                             accelerator.num_processes)
    end_readers_at_exit()
    if workers:     # before they are made: a forked one would wait for the threads of a pool
        cv2.setNumThreads(1)
    # Every tensor that a reader hands over is an open file until it is used.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    ahead = max(1, SAMPLES_AHEAD // training.batch_size)
    return DataLoader(mixture, batch_sampler=positions, num_workers=workers,
                      collate_fn=encoder.collate, worker_init_fn=begin_reader,
                      prefetch_factor=ahead if workers else None,
                      pin_memory=False)


def without_trace(error):
    """Return an error's message, without the traceback that DataLoader adds to a worker's."""
    text = str(error)
    if 'Original Traceback' not in text:
        return text
    return text.strip().splitlines()[-1].partition(': ')[2]


def main(args=None):
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--config', default='nano', help='a name in the tree, or a YAML file')
    parser.add_argument('--out', required=True, help='folder for log, state and checkpoint')
    parser.add_argument('--data', default='.', help="folder that the sources' paths start from")
    parser.add_argument('--start', help='folder or hub id to begin from, instead of the config')
    parser.add_argument('--steps', type=at_least(0),
                        help='optimiser steps in all, instead of the config')
    parser.add_argument('--set', action='append', default=[], metavar='FIELD=VALUE',
                        help='any other field of the config, its value in YAML; repeatable')
    parser.add_argument('--workers', type=at_least(0), default=1,
                        help='processes that read and render')
    parser.add_argument('--device', default='auto', choices=('auto', 'cpu'))
    parser.add_argument('--save-every', type=at_least(1), default=500, help='steps')
    parser.add_argument('--stop-at', type=at_least(1),
                        help='stop at this step, to be gone on with')
    options = parser.parse_args(args)
    os.environ.setdefault('ONEDNN_PRIMITIVE_CACHE_CAPACITY', PRODUCTS_KEPT)
    logging.basicConfig(level=logging.INFO, format='%(levelname)s %(message)s')
    changed = {}
    for text in options.set:
        name, equals, value = text.partition('=')
        if not equals:
            parser.error(f'--set {text}: wanted FIELD=VALUE')
        try:
            changed[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            parser.error(f'--set {text}: {error}, wanted FIELD=VALUE in YAML')
    given = {'steps': options.steps, 'start': options.start}
    changed |= {k: v for k, v in given.items() if v is not None}
    try:
        training = TrainingConfig.load(options.config, **changed)
    except ValueError as e:
        parser.error(str(e))
    try:
        ended = run(training, options.out, options.data, options.workers, options.device,
                    options.save_every, options.stop_at)
    except (ValueError, OSError, FloatingPointError, MemoryError) as error:     # one can mend
        logging.getLogger(__name__).debug('where it was found', exc_info=True)
        sys.exit(f'train: {without_trace(error)}')
    if ended:
        sys.exit(ended)


if __name__ == '__main__':
    main()
