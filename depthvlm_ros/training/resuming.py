# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a run that goes on is held against: the run that it was begun as."""

from dataclasses import asdict, fields, MISSING
import json
import logging

from depthvlm_ros.training.config import SOURCES

# Fields that must not change when a run goes on, and those that may change without a warning:
# they leave the steps as they are, or are checked by themselves.
FIXED = ('stage', 'thaw_vision', 'optimiser', 'model')
FREE = ('steps', 'batch_size', 'global_batch', 'gradient_checkpointing', 'saved_dtype')
HINTING = ('naming_weight', 'gaze_weight')      # with both at 0 there are no layers of hints

# Of the sources' fields, as JSON has them.
DEFAULTS = json.loads(json.dumps({
    item.name: item.default for kind in SOURCES.values() for item in fields(kind)
    if item.default is not MISSING}))

log = logging.getLogger(__name__)


def description(training, mixture):
    """Return as JSON what a run is: its configuration, and what its sources hold."""
    content = [source.identity for source in mixture.sources]
    return json.dumps({**asdict(training), 'content': content}, sort_keys=True)


def check_same_run(had, has):
    """
    Hold a run that goes on against what it was begun as; warn of what differs.

    :param had: its description when it was saved; has: now.
    :raises ValueError: another stage, optimiser or model, or hints that it did not have.
    """
    had, has = json.loads(had), json.loads(has)
    if len(had['sources']) == len(has['sources']):  # a field that is new stood at its default
        has['sources'] = [
            {name: value for name, value in now.items()
             if name in before or value != DEFAULTS.get(name)}
            for before, now in zip(had['sources'], has['sources'])]
    # What a state of before does not tell cannot differ.
    differing = {name: f'{name} was {had.get(name)!r} and is {value!r}'
                 for name, value in has.items() if name in had and had[name] != value}
    fixed = [words for name, words in differing.items() if name in FIXED]
    if fixed:
        raise ValueError(f'this is another run than the one begun there: {"; ".join(fixed)}; '
                         'wanted the same, or another --out')
    if any(has[name] for name in HINTING) and not any(had.get(name, True) for name in HINTING):
        hints = '; '.join(words for name, words in differing.items() if name in HINTING)
        raise ValueError(f'{hints}: the state there has no hints to go on with; wanted 0, or '
                         'another --out, which may --start from the checkpoint there')
    changed = [words for name, words in differing.items() if name not in FREE]
    if changed:
        log.warning('goes on with other settings than it was begun with: %s', '; '.join(changed))


def gone_on_with(saved, now):
    """
    Return what a run takes over from its state; warn where it is no longer the run that it was.

    :param saved: state.PROGRESS as it was saved.
    :param now: the same of a run that begins.
    :return: dict: 'step' and 'skipped' of the state.
    :raises ValueError: a step of another number of samples: the run would not go on where it was.
    """
    check_same_run(saved['run'], now['run'])
    had, has = saved['samples_per_step'], now['samples_per_step']
    if had != has:
        raise ValueError(f'a step has {has} samples, and had {had} before the run was stopped at '
                         f'step {saved["step"]}; wanted as many: global_batch {had}')
    if saved['steps'] != now['steps']:
        log.warning('begun for %d steps and now goes on for %d: from step %d on the learning rate '
                    'and, with several sources, the order of samples are not those of the run '
                    'that was begun', saved['steps'], now['steps'], saved['step'])
    return {name: saved[name] for name in ('step', 'skipped')}
