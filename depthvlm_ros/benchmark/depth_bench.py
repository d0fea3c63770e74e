# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Metric depth on DepthVLM-Bench: `python -m depthvlm_ros.benchmark.depth_bench --help`.

Prints a table and, last, one line of JSON. With --out every image's figures are kept, and a run
that was stopped goes on. `accelerate launch -m depthvlm_ros.benchmark.depth_bench ...` shares the
images among several GPUs. Docs: docs/benchmark.md.
"""

import argparse
from dataclasses import replace
from datetime import timedelta
import os
from pathlib import Path
import sys
import time

import cv2
from depthvlm_ros.benchmark.annotations import EUCLIDEAN, read_annotations, RecordError
from depthvlm_ros.benchmark.loading import add_loading, Loading
from depthvlm_ros.benchmark.provenance import json_line, provenance
from depthvlm_ros.benchmark.readers import (
    CorrectReader,
    FIGURES,
    PredictorError,
    PROTOCOLS,
    ReleasedReader,
)
from depthvlm_ros.benchmark.results import key_of, print_table, Results, sha256_of, summarise
from depthvlm_ros.options import at_least
from depthvlm_ros.processes import end_with_parent
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

LONGEST_WAIT = timedelta(days=2)  # of one process for another


class Samples(torch.utils.data.Dataset):
    """
    Records as samples; a record that cannot be used gives the RecordError that says why.

    :param jobs: list of (record, rgb_root, depth_root).
    :param reader: CorrectReader or ReleasedReader.
    """

    def __init__(self, jobs, reader):
        self.jobs = jobs
        self.reader = reader

    def __len__(self):
        return len(self.jobs)

    def __getitem__(self, index):
        """Read one; returns (record, Sample or RecordError)."""
        record = self.jobs[index][0]
        try:
            return record, self.reader.sample(*self.jobs[index])
        except RecordError as e:
            return record, e


def as_it_is(item):
    """Keep DataLoader from turning arrays into tensors."""
    return item


def begin_reader(_worker):
    """Keep a decoding process to one processor, and have it end with this one."""
    end_with_parent()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def measure(predictor, reader, jobs, results, workers=2, show_progress=True):
    """
    Judge a predictor on records, and add what comes out to the results.

    :param predictor: as in predictors.py.
    :param reader: CorrectReader or ReleasedReader.
    :param jobs: list of (record, rgb_root, depth_root); those with figures already are passed by.
    :param results: Results.
    :param workers: processes that read and decode; 0 for none but this one.
    """
    left = [job for job in jobs if not results.is_done(key_of(job[0]))]
    # Spawned, since a forked process inherits the locks of OpenCV's and torch's threads, held.
    loader = DataLoader(Samples(left, reader), batch_size=None, num_workers=workers,
                        collate_fn=as_it_is, worker_init_fn=begin_reader,
                        multiprocessing_context='spawn' if workers else None)
    bar = tqdm(loader, initial=len(jobs) - len(left), total=len(jobs), unit='image',
               mininterval=1, disable=not show_progress)
    for record, sample in bar:
        try:
            if isinstance(sample, RecordError):
                raise sample
            results.add(key_of(record), reader.judge(sample, predictor))
        except RecordError as e:
            results.add(key_of(record), error=e)
            bar.write(f'skipped ({e.reason}): {e}', file=sys.stderr)


def read_jobs(annotations, rgb_roots, depth_roots, limit=0, euclidean=()):
    """
    Read annotation files.

    :param rgb_roots: one folder for all files, or one a file; depth_roots likewise.
    :param limit: first so many images of each file; 0 for all.
    :param euclidean: names of datasets whose depth is along the ray, whatever they say.
    :return: list of (record, rgb_root, depth_root).
    :raises ValueError: roots that do not match, two files of one name and dataset, or none of a
        dataset named as Euclidean.
    """
    jobs, seen = [], set()
    for path, rgb_root, depth_root in zip(annotations, one_each(rgb_roots, annotations),
                                          one_each(depth_roots, annotations)):
        records = read_annotations(path)[:limit or None]
        files = {(record.dataset.name, record.source) for record in records}
        if seen & files:
            raise ValueError(f'{path}: another file of the same name and dataset was given, '
                             'wanted different names')
        seen |= files
        jobs += [(as_euclidean(record, euclidean), rgb_root, depth_root) for record in records]
    if not jobs:
        raise ValueError(f'{", ".join(map(str, annotations))}: no records, wanted at least one')
    unknown = set(euclidean) - {job[0].dataset.name for job in jobs}
    if unknown:
        raise ValueError(f'--euclidean names {sorted(unknown)}, wanted some of '
                         f'{sorted({job[0].dataset.name for job in jobs})}')
    return jobs


def as_euclidean(record, names):
    """Return the record with Euclidean depth if its dataset is named."""
    if record.dataset.name not in names:
        return record
    return replace(record, depth_type=EUCLIDEAN)


def one_each(roots, files):
    """Return one root a file."""
    if len(roots) not in (1, len(files)):
        raise ValueError(f'{len(roots)} roots for {len(files)} annotation files, wanted one for '
                         'all or one for each')
    return roots * len(files) if len(roots) == 1 else roots


class OneProcess:
    """What a run without accelerate knows of other processes: there are none."""

    process_index = 0
    num_processes = 1
    is_main_process = True
    device = None

    def wait_for_everyone(self):
        """Wait for nobody."""


def processes(device):
    """
    Join the other processes of `accelerate launch`, if this is one.

    :return: accelerate's PartialState, or OneProcess.
    :raises ValueError: several processes without accelerate.
    """
    if int(os.environ.get('WORLD_SIZE', '1')) < 2:
        return OneProcess()
    try:
        from accelerate import PartialState
    except ImportError as e:
        raise ValueError('several processes need accelerate, which is not installed here: '
                         'pip install accelerate, or start one process') from e
    return PartialState(cpu=device == 'cpu', timeout=LONGEST_WAIT)


def parse(args=None):
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--annotations', nargs='+', required=True, metavar='FILE',
                        help='JSONL in the released format; its name tells the dataset')
    parser.add_argument('--rgb-root', nargs='+', required=True, metavar='DIR',
                        help='folder below which the images lie; one for all, or one a file')
    parser.add_argument('--depth-root', nargs='+', metavar='DIR',
                        help='of depth files and masks; that of the images where left out')
    parser.add_argument('--model', default='nano',
                        help="'nano', a DepthVLM's folder or hub id, 'constant', "
                        "'transformers:ID', or 'package.module.Class:SOURCE'")
    parser.add_argument('--protocol', choices=PROTOCOLS, default='sparse')
    parser.add_argument('--as-released', action='store_true',
                        help='read and score as the released evaluation does, to compare with '
                        'the paper; otherwise correctly')
    parser.add_argument('--euclidean', nargs='+', default=[], metavar='DATASET',
                        help='datasets whose depth is along the ray though tagged z_depth')
    parser.add_argument('--limit', type=at_least(0), default=0,
                        help='first so many images of each file')
    parser.add_argument('--workers', type=at_least(0), default=2,
                        help='processes that decode')
    parser.add_argument('--device', default='auto')
    add_loading(parser)
    parser.add_argument('--out', metavar='FILE', help="keep every image's figures here (JSONL)")
    parser.add_argument('--resume', action=argparse.BooleanOptionalAction, default=True,
                        help='go on with the results in --out (the default)')
    return parser.parse_args(args)


def run(options):
    """
    Run the benchmark.

    :return: the summary as a dict; None in all processes but the first.
    :raises ValueError: options that do not fit together.
    """
    # Imported here, since every process that decodes imports this file, and needs no model.
    from depthvlm_ros.benchmark.predictors import digest_of, load_predictor
    from depthvlm_ros.model.predictor import resolve_device
    state = processes(options.device)
    if state.num_processes > 1 and not options.out:
        raise ValueError('several processes share their results through a file, wanted --out')
    if options.as_released and options.euclidean:
        raise ValueError('--euclidean with --as-released: the released reader takes every depth '
                         'as it is stored; wanted one or the other')
    if options.as_released and options.max_image_tokens:
        raise ValueError('--max-image-tokens with --as-released: the released reader takes the '
                         "network's map at the canonical size; wanted one or the other")
    jobs = read_jobs(options.annotations, options.rgb_root,
                     options.depth_root or options.rgb_root, options.limit,
                     options.euclidean)
    reader = (ReleasedReader if options.as_released else CorrectReader)(options.protocol)
    device = resolve_device(options.device if state.device is None else state.device)
    loading = Loading.of(options)
    settings = {'model': options.model, 'weights': digest_of(options.model),
                'protocol': options.protocol, 'reader': reader.name,
                'euclidean': sorted(options.euclidean), 'device_type': device.type,
                'loading': loading.as_dict(),
                'annotations': [sha256_of(path) for path in options.annotations],
                'roots': [str(Path(root).resolve()) for roots in (
                    options.rgb_root, options.depth_root or options.rgb_root) for root in roots]}
    results = Results(options.out, settings, state.process_index, options.resume)
    state.wait_for_everyone()
    predictor = load_predictor(options.model, str(device), loading)
    origin = provenance(device)     # before the work, lest it be lost to a fault here
    began = time.perf_counter()
    measure(predictor, reader, jobs[state.process_index::state.num_processes], results,
            options.workers, state.is_main_process)
    state.wait_for_everyone()
    if not state.is_main_process:
        return None
    if state.num_processes > 1:
        results.read_all()
    names = ('delta1',) if options.as_released else FIGURES
    return {**settings, **summarise(results.of([key_of(job[0]) for job in jobs]), names),
            'seconds': round(time.perf_counter() - began, 1), **origin}


def main(args=None):
    """Parse the command line, measure, print; returns 1 where nothing could be judged."""
    options = parse(args)
    try:
        summary = run(options)
    except (ValueError, OSError, PredictorError) as e:
        print(f'depth_bench: {e}', file=sys.stderr)
        return 2
    if summary is None:
        return 0
    names = list(summary['average'])
    print(f"{summary['model']}, {summary['protocol']}, {summary['reader']}")
    print_table(summary, names)
    line = json_line(summary)
    print(line)
    if options.out:
        Path(f'{options.out}.summary.json').write_text(line + '\n', encoding='utf-8')
    return 0 if any(values['images'] for values in summary['datasets'].values()) else 1


if __name__ == '__main__':
    sys.exit(main())
