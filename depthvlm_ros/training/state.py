# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
All that the next step depends on, saved whole or not at all, and the checkpoint beside it.

The state is torch's distributed checkpoint: every process writes its part, and a run may go on
with another number of processes. What the data needs is the step's number alone, and nothing in
a step is drawn by lot.
"""

from contextlib import suppress
import fcntl
import json
from pathlib import Path
import re
import shutil
import warnings

from depthvlm_ros.model.checkpoint import TIED_KEY
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
    StateDictOptions,
)

PREFIX = 'state-'
NEW_CHECKPOINT = 'checkpoint.new'
STATE = re.compile(f'{PREFIX}[0-9]+')
LEFT = re.compile(f'{PREFIX}[0-9]+([.]new)?')      # those that a run leaves behind
METADATA = '.metadata'      # of dcp, which writes it last
CLAIM = '.claimed'          # locked while a run writes into the folder
# The step to go on with, records skipped so far, and what the run was begun with: how many steps,
# how many samples each, and the rest of it as JSON (see resuming.description).
PROGRESS = ('step', 'skipped', 'steps', 'samples_per_step', 'run')


def latest_state(out):
    """Return the newest complete state in a folder, or None."""
    states = [p for p in Path(out).glob(f'{PREFIX}*') if STATE.fullmatch(p.name)
              and (p / METADATA).is_file()]
    return max(states, key=lambda p: int(p.name[len(PREFIX):]), default=None)


def claim(out):
    """
    Claim a folder for this process, so that no second run writes into it.

    :param out: the run's folder.
    :return: an open file; the folder is free again when it is closed, or the process has ended.
    :raises ValueError: another process has claimed it.
    """
    file = open(Path(out) / CLAIM, 'a')  # noqa: SIM115, closed by the caller
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:     # as POSIX has it, either
        file.close()
        raise ValueError(f'{out}: another run that has not ended writes there; wanted another '
                         '--out, or that run ended') from error
    except OSError:     # a file system that knows no locks
        pass
    return file


def check_free(out):
    """
    Check that a folder holds no checkpoint that a run begun there would overwrite.

    :param out: a folder without a complete state.
    :raises ValueError: one with a checkpoint, or with a state that lacks parts.
    """
    for path in sorted(Path(out).glob(f'{PREFIX}*')):
        if STATE.fullmatch(path.name):
            raise damaged(path)
    if (Path(out) / 'config.json').exists():
        raise ValueError(f'{out} holds a checkpoint and no state of a run to go on with, and '
                         'would be overwritten; wanted another --out, which may --start from it')


def save_state(out, progress, learner, optimisers, accelerator):
    """
    Save a state, and remove the one before.

    :param out: the run's folder.
    :param progress: dict of PROGRESS.
    :param learner: as accelerate prepared it.
    :param optimisers: list, as accelerate prepared them.
    """
    out = Path(out)
    whole = out / f"{PREFIX}{progress['step']:07d}"
    new = whole.with_name(whole.name + '.new')
    model_state, optimiser_state = get_state_dict(learner, bare(optimisers))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # that a single process saves alone
        dcp.save({'model': model_state, 'optimiser': optimiser_state,
                  'progress': progress}, checkpoint_id=new)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        if whole.exists():
            shutil.rmtree(whole)
        new.rename(whole)
        for other in out.glob(f'{PREFIX}*'):
            if other != whole and LEFT.fullmatch(other.name):
                shutil.rmtree(other)
    accelerator.wait_for_everyone()


def discard_unfinished(out):
    """Remove what a save that failed has left, which may fill a disk."""
    shutil.rmtree(Path(out) / NEW_CHECKPOINT, ignore_errors=True)
    for unfinished in Path(out).glob(f'{PREFIX}*.new'):
        if LEFT.fullmatch(unfinished.name):
            shutil.rmtree(unfinished, ignore_errors=True)


def load_progress(path):
    """
    Return a state's dict of PROGRESS.

    :raises ValueError: it is damaged, or of a version that kept less.
    """
    state = {'progress': dict.fromkeys(PROGRESS, 0)}
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            dcp.load(state, checkpoint_id=path)
        except dcp.CheckpointException as error:
            raise damaged(path) from error
    return state['progress']


def damaged(path):
    """Return the error that says what to do with a state that cannot be read."""
    return ValueError(f'{path} is damaged, or of another model or version; wanted another --out, '
                      f'which may --start from the checkpoint in {Path(path).parent}')


def load_state(path, learner, optimisers):
    """
    Load a state's weights and what the optimisers keep.

    :raises ValueError: it is of another model, or damaged.
    """
    rates = [{name: value for name, value in group.items() if name != 'params'}
             for optimiser in bare(optimisers) for group in optimiser.param_groups]
    model_state, optimiser_state = get_state_dict(learner, bare(optimisers))
    state = {'model': model_state, 'optimiser': optimiser_state}
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            dcp.load(state, checkpoint_id=path)
        except dcp.CheckpointException as error:
            raise damaged(path) from error
    set_state_dict(learner, bare(optimisers), model_state_dict=state['model'],
                   optim_state_dict=state['optimiser'])
    # What the config says of the optimisers holds, not what it said when the state was saved.
    for group, values in zip((group for optimiser in bare(optimisers)
                              for group in optimiser.param_groups), rates):
        group |= values


def bare(optimisers):
    """Return torch's own optimisers out of accelerate's."""
    return [optimiser.optimizer for optimiser in optimisers]


def gather_weights(learner):
    """Return all of the model's weights, on the CPU of the main process; a collective call."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state = get_model_state_dict(learner, options=options)
    return {k.removeprefix('model.'): v for k, v in state.items() if k.startswith('model.')}


def save_checkpoint(model, tokenizer, folder, dtype=torch.float16, weights=None):
    """
    Write the released layout: config.json, safetensors and tokenizer, file by file whole.

    :param model: DepthVLM.
    :param folder: made where it is missing.
    :param dtype: of the weights in the file.
    :param weights: the model's state dict; its own where left out.
    :raises OSError: a file cannot be written; safetensors has an error of its own, too.
    """
    folder = Path(folder)
    new = folder / NEW_CHECKPOINT
    if new.exists():
        shutil.rmtree(new)
    new.mkdir(parents=True)
    weights = model.state_dict() if weights is None else weights
    weights = {k: v.to(dtype) for k, v in weights.items()
               if not (k == TIED_KEY and model.config.tie_word_embeddings)}
    model.save_pretrained(new, state_dict=weights)
    tell_dtype(new / 'config.json', dtype)
    try:
        tokenizer.save_pretrained(new)
    except Exception as error:      # the tokenizers library raises a bare one, as on a full disk
        raise OSError(f'{new}: the tokenizer cannot be written ({error})') from error
    mode = (new / 'config.json').stat().st_mode
    for file in new.iterdir():
        with suppress(OSError):     # of a file system that knows no modes
            file.chmod(mode)        # safetensors lets its owner alone read
        file.replace(folder / file.name)
    new.rmdir()


def tell_dtype(path, dtype):
    """Write into a config.json what the weights beside it are; transformers tells the model's."""
    config = json.loads(path.read_text())
    for part in (config, config['text_config'], config['vision_config']):
        part['dtype'] = str(dtype).removeprefix('torch.')
    path.write_text(json.dumps(config, indent=2) + '\n')
