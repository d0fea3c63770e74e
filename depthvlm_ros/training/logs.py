# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a run tells of itself: a progress bar with the time left, CSV, and TensorBoard's files."""

import csv
import logging
from pathlib import Path
import time

from tqdm import tqdm

LOG = 'log.csv'
COLUMNS = ('step', 'seconds', 'samples', 'learning_rate', 'total', 'depth', 'log_l1', 'language',
           'naming', 'gaze', 'gradient_norm', 'skipped')
SHOWN = ('depth', 'language', 'skipped')
MOST_TOLD = 20  # records skipped that are named in words

log = logging.getLogger(__name__)


def open_tensorboard(folder, first):
    """
    Return TensorBoard's writer, or None where TensorBoard is not installed.

    :param first: step from which on earlier entries, of a run that was killed, do not count.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        log.info('TensorBoard is not installed; the log is log.csv alone '
                 '(pip install tensorboard)')
        return None
    return SummaryWriter(folder, purge_step=first or None)


def is_whole(row):
    """Tell whether a row of the log was written to its end and nothing else."""
    return tuple(row) == COLUMNS and None not in row.values() and row['step'].isdecimal()


class RunLog:
    """
    The log of the main process.

    :param out: the run's folder; log.csv and tensorboard/ lie there.
    :param first: step that the run goes on with; later rows, of a run that was killed, go.
    :param steps: in all.
    :param active: false on processes that tell nothing.
    """

    def __init__(self, out, first, steps, active=True):
        self.active = active
        self.told = 0
        if not active:
            return
        self.path = Path(out) / LOG
        self.began = time.time()
        self.bar = tqdm(initial=first, total=steps, unit='step', mininterval=2)
        self.tensorboard = open_tensorboard(Path(out) / 'tensorboard', first)
        rows = self._rows_before(first)
        self.file = open(self.path, 'w', newline='')  # noqa: SIM115, closed in close()
        self.writer = csv.DictWriter(self.file, COLUMNS)
        self.writer.writeheader()
        self.writer.writerows(rows)
        self.file.flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def advance(self):
        """Count a step."""
        if self.active:
            self.bar.update()

    def write(self, values):
        """
        Log a step.

        :param values: dict of COLUMNS but seconds.
        """
        if not self.active:
            return
        row = {'seconds': round(time.time() - self.began, 1), **values}
        self.writer.writerow({k: f'{v:.6g}' if isinstance(v, float) else v
                              for k, v in row.items()})
        self.file.flush()
        self.bar.set_postfix({name: f'{row[name]:.4g}' for name in SHOWN})
        if self.tensorboard is not None:
            for name, value in row.items():
                if name != 'step':
                    self.tensorboard.add_scalar(name, value, row['step'])

    def skip(self, texts):
        """Name records that were skipped; on every process, each its own."""
        for text in texts:
            self.told += 1
            if self.told <= MOST_TOLD:
                log.warning('skipped: %s', text)
            if self.told == MOST_TOLD:
                log.warning('further records that are skipped are only counted')

    def close(self):
        """Finish bar and files."""
        if self.active:
            self.bar.close()
            self.file.close()
            if self.tensorboard is not None:
                self.tensorboard.close()

    def _rows_before(self, first):
        if not first or not self.path.is_file():
            return []
        with open(self.path, newline='') as file:
            lines = (line.replace('\0', '') for line in file)   # as after a power cut
            rows = csv.DictReader(lines)
            if tuple(rows.fieldnames or ()) == COLUMNS:
                return [row for row in rows if is_whole(row) and int(row['step']) < first]
        self.path.rename(self.path.with_name('log-before.csv'))  # of a version that logged else
        return []
