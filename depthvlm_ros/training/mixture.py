# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Which sample comes when.

Every position of a run has its sample, by the seed alone: a run resumes exactly, and the number
of processes does not change what a step learns from.
"""

import math

from depthvlm_ros.benchmark.annotations import RecordError
from depthvlm_ros.training.annotated import Annotated
from depthvlm_ros.training.chats import Chats
from depthvlm_ros.training.config import AnnotatedSource, ChatSource, RoomSource
from depthvlm_ros.training.rooms import Rooms
import numpy as np
from torch.utils.data import Dataset

MOST_SKIPPED = 100  # records in a row; more is no accident


def open_sources(root, encoder, training):
    """Open the config's sources, in their order; sources of rooms show different ones."""
    rooms = [isinstance(source, RoomSource) for source in training.sources]
    return [open_source(source, root, encoder, training, sum(rooms[:k]))
            for k, source in enumerate(training.sources)]


def open_source(source, root, encoder, training, number=0):
    """
    Open one of the config's sources.

    :param root: folder that its paths are relative to.
    :param number: of a source of rooms among those of the run.
    """
    if isinstance(source, AnnotatedSource):
        return Annotated(source, root, encoder, training.with_language)
    if isinstance(source, ChatSource):
        return Chats(source, root, encoder)
    return Rooms(source, encoder, training.seed, training.global_batch or training.batch_size,
                 training.with_language,
                 training.naming_weight > 0 or training.gaze_weight > 0, number)


def epoch_size(sources, shares):
    """
    Count the samples of an epoch: every record of the sources without a share, once.

    :param sources: opened sources.
    :param shares: for each its share of all samples, or None.
    :raises ValueError: shares that leave nothing to the others, or no source to be counted.
    """
    whole = [len(s) for s, share in zip(sources, shares)
             if share is None and hasattr(s, '__len__')]
    taken = sum(share or 0 for share in shares)
    if not whole:
        raise ValueError('every source has a share or no end, so that an epoch has no length: '
                         'wanted steps')
    if taken >= 1:
        raise ValueError(f'the shares of the sources add up to {taken}, wanted less than 1: '
                         'the sources without a share need the rest')
    return math.ceil(sum(whole) / (1 - taken))


def split_shares(sources, shares):
    """
    Return each source's share of the samples; those that have none part the rest by length.

    :raises ValueError: shares that do not add up, or rooms without a share beside others.
    """
    rest = 1 - sum(share or 0 for share in shares)
    open_ended = [share is None and not hasattr(s, '__len__')
                  for s, share in zip(sources, shares)]
    if any(open_ended):
        if shares.count(None) > 1:
            raise ValueError('rooms stand beside another source without a share, '
                             'wanted a share: they have no end')
        if rest <= 1e-9:
            raise ValueError(f'the shares of the sources add up to {1 - rest:g}, wanted less than '
                             '1 beside rooms without one')
        return [rest if share is None else share for share in shares]
    lengths = [0 if share is not None else len(s) for s, share in zip(sources, shares)]
    if (rest > 1e-9) != (sum(lengths) > 0) or rest < -1e-9:
        wanted = 'less than 1 beside sources without one' if None in shares else '1'
        raise ValueError(f'the shares of the sources add up to {1 - rest:g}, wanted {wanted}')
    return [share if share is not None else rest * n / sum(lengths)
            for share, n in zip(shares, lengths)]


class Mixture(Dataset):
    """
    The samples of a run, by position.

    :param sources: opened sources.
    :param shares: for each its share of all samples, or None.
    :param total: how many samples the run takes.
    :param seed: of the run.
    """

    def __init__(self, sources, shares, total, seed):
        self.sources = sources
        self.seed = seed
        shares = split_shares(sources, list(shares))
        ends = np.floor(np.round(np.cumsum(shares) * total, 6) + 0.5).astype(np.int64)
        ends[-1] = total
        which = np.repeat(np.arange(len(sources), dtype=np.int16), np.diff(ends, prepend=0))
        self._which = np.random.default_rng([seed, 0]).permutation(which)
        self._order = np.empty(total, np.int64)  # how many of its source came before
        for k in range(len(sources)):
            mine = self._which == k
            self._order[mine] = np.arange(mine.sum())
        self._shuffled = {}  # source: (turn, order of its records in that turn)

    def __len__(self):
        return len(self._which)

    def __getitem__(self, position):
        """
        Draw the sample of a position; a record that cannot be used gives way to the next.

        :return: (Sample, texts of the records skipped).
        :raises ValueError: nothing but records that cannot be used.
        """
        k = int(self._which[position])
        order = int(self._order[position])
        source = self.sources[k]
        skipped = []
        for attempt in range(MOST_SKIPPED):
            try:
                return source.sample(self._index(k, order + attempt)), skipped
            except RecordError as e:
                skipped.append(f'{e.reason}: {e}')
        raise ValueError(f'{MOST_SKIPPED} records in a row cannot be used; the last: '
                         f'{skipped[-1]}')

    def _index(self, k, order):
        if not hasattr(self.sources[k], '__len__'):
            return order
        turn, at = divmod(order, len(self.sources[k]))
        if self._shuffled.get(k, (None,))[0] != turn:
            rng = np.random.default_rng([self.seed, 3, k, turn])
            self._shuffled[k] = turn, rng.permutation(len(self.sources[k]))
        return int(self._shuffled[k][1][at])


def step_batches(steps, training, rank, processes):
    """
    Yield the positions of every batch that one process takes, accumulation after accumulation.

    :param steps: range of step numbers.
    :param rank: of the process.
    :param processes: how many there are.
    """
    size, per_step = training.batch_size, accumulations(training, processes)
    for step in steps:
        for n in range(per_step):
            first = (step * per_step * processes + n * processes + rank) * size
            yield list(range(first, first + size))


def accumulations(training, processes):
    """
    Return how many batches a process takes a step.

    :raises ValueError: a global batch that the processes cannot share out evenly.
    """
    at_once = training.batch_size * processes
    whole = training.global_batch or at_once
    if whole % at_once:
        raise ValueError(f'global_batch is {whole}, wanted a multiple of batch_size x processes = '
                         f'{training.batch_size} x {processes}')
    return whole // at_once
