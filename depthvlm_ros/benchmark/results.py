# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
What a benchmark run keeps of every image or question, and what it says of all.

One JSON line each, written as soon as it is judged, behind a first line with the settings; so a
run that was stopped goes on where it was.
"""

from __future__ import annotations

from collections import Counter
from glob import escape
import hashlib
import json
from pathlib import Path

import numpy as np

BEGUN = b'{"settings": '     # how a file of results begins


OUTCOME = ('figures', 'skipped', 'why')     # what an entry has beside its key


def key_of(record):
    """Return what tells a record's image from all others of a run."""
    return {'dataset': record.dataset.name, 'source': record.source, 'line': record.line,
            'image': record.image}


class Results:
    """
    The results of a run, and the file that keeps them.

    An item is known by its key, a dict of words and numbers that no other item of the run has.
    With several processes each writes a file of its own beside the others' and reads them all.

    :param path: JSON lines file; None keeps the results in memory alone.
    :param settings: dict of what must be the same to go on: model, protocol, reader.
    :param rank: number of this process.
    :param resume: go on with what is there; otherwise a file with results is refused.
    :raises ValueError: results of other settings, or results where none may be.
    """

    def __init__(self, path, settings, rank=0, resume=True):
        self.settings = settings
        self.path = None if path is None else Path(path)
        self.own = self.path if rank == 0 or path is None else rank_path(self.path, rank)
        self.found = {}
        if self.path is not None:
            self.read_all(resume)
            self.begin()

    def files(self):
        """Return the files of all processes that there are."""
        own = [self.path] if self.path.is_file() else []
        return own + sorted(self.path.parent.glob(f'{escape(self.path.name)}.rank*'))

    def read_all(self, resume=True):
        """Read what all processes have written."""
        for path in self.files():
            lines = whole_lines(path)
            if len(lines) > 1 and not resume:
                raise ValueError(f'{path}: holds results already; wanted another --out, or none '
                                 'there, or --resume')
            if not all(isinstance(line, dict) for line in lines):
                raise ValueError(f'{path}: holds lines that are no results, wanted another --out')
            if lines and lines[0].get('settings') != self.settings:
                raise ValueError(f'{path}: holds results of {lines[0].get("settings")}, this run '
                                 f'is {self.settings}; wanted the same or another --out')
            for entry in lines[1:]:
                self.keep(entry)

    def begin(self):
        """Open the own file: cut off a half-written last line, or write the settings."""
        self.own.parent.mkdir(parents=True, exist_ok=True)
        content = self.own.read_bytes() if self.own.is_file() else b''
        if content and b'\n' not in content and not BEGUN.startswith(content[:len(BEGUN)]):
            raise ValueError(f'{self.own}: holds something else than results, wanted another '
                             '--out')
        with open(self.own, 'r+b' if content else 'wb') as file:
            file.truncate(content.rfind(b'\n') + 1)
        if b'\n' not in content:
            self.write({'settings': self.settings})

    def write(self, entry):
        """Append a line, at once."""
        with open(self.own, 'a', encoding='utf-8') as file:
            file.write(json.dumps(entry) + '\n')

    def keep(self, entry):
        """Remember an entry; a later one about an item replaces it, but no skip its figures."""
        place = place_of({name: value for name, value in entry.items() if name not in OUTCOME})
        if 'figures' in entry or 'figures' not in self.found.get(place, ()):
            self.found[place] = entry

    def add(self, key, figures=None, error=None):
        """
        Add one item.

        :param key: dict that tells it from all others.
        :param figures: dict of figures, or else
        :param error: RecordError that says why there are none.
        """
        outcome = ({'figures': figures} if error is None
                   else {'skipped': error.reason, 'why': str(error)})
        self.keep({**key, **outcome})
        if self.own is not None:
            self.write({**key, **outcome})

    def is_done(self, key):
        """Return whether an item has its figures; one that was skipped is tried again."""
        return 'figures' in self.found.get(place_of(key), ())

    def of(self, keys):
        """Return the entries of some items, of those that have one."""
        return [self.found[place] for place in map(place_of, keys) if place in self.found]


def sha256_of(path):
    """Return what tells a file's content from all others'."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def place_of(key):
    """Return a key as something that a dict can be asked for."""
    return tuple(sorted(key.items()))


def rank_path(path, rank):
    """Return the results file of another process than the first."""
    return path.with_name(f'{path.name}.rank{rank}')


def whole_lines(path):
    """Read the JSON lines of a file, without a last one that was not written to its end."""
    try:
        text = path.read_text(encoding='utf-8')
        lines = text[:text.rfind('\n') + 1].split('\n')
        return [json.loads(line) for line in lines if line.strip()]
    except ValueError as e:
        raise ValueError(f'{path}: holds lines that are no results ({e}), wanted another '
                         '--out') from e


def summarise(entries, names):
    """
    Average figures: over the images of each dataset, then over the datasets.

    :param entries: as Results.of gives them.
    :param names: of the figures to average.
    :return: dict: 'datasets': name -> figures, 'images', 'skipped' (reason -> count) and
        'nothing_compared' (images that scored all the same); 'average': figures as means over
        the datasets that have any.
    """
    datasets = {}
    for dataset in dict.fromkeys(entry['dataset'] for entry in entries):
        own = [entry for entry in entries if entry['dataset'] == dataset]
        judged = [entry['figures'] for entry in own if 'figures' in entry]
        datasets[dataset] = {
            **{name: mean([figures[name] for figures in judged]) for name in names},
            'images': len(judged),
            'skipped': dict(Counter(entry['skipped'] for entry in own if 'skipped' in entry)),
            'nothing_compared': sum(figures['pixels'] == 0 for figures in judged)}
    with_figures = [values for values in datasets.values() if values['images']]
    average = {name: mean([values[name] for values in with_figures]) for name in names}
    return {'datasets': datasets, 'average': average}


def mean(values):
    """Return the mean, None of nothing."""
    return float(np.mean(values)) if values else None


def print_table(summary, names):
    """Print a summary for people."""
    rows = [(name, values) for name, values in summary['datasets'].items()]
    rows.append(('average', {**summary['average'],
                             'images': sum(v['images'] for _, v in rows)}))
    width = max(len(name) for name, _ in rows)
    print(' ' * width, *(f'{name:>8}' for name in (*names, 'images')), ' skipped')
    for row, values in rows:
        figures = ['       -' if values[name] is None else f'{values[name]:8.3f}'
                   for name in names]
        skipped = ', '.join(f'{count} {reason}' for reason, count
                            in values.get('skipped', {}).items())
        if values.get('nothing_compared'):
            skipped += f'  ({values["nothing_compared"]} with nothing to compare scored 0)'
        print(f'{row:{width}}', *figures, f'{values["images"]:8}', f' {skipped}')
