# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Training as processes: two of them together, and one that is killed."""

import contextlib
import csv
from dataclasses import asdict
import os
from pathlib import Path
import signal
import socket
import subprocess
import sys
import time

from depthvlm_ros.training.config import TrainingConfig
from depthvlm_ros.training.state import latest_state
from depthvlm_ros.training.train import run
import pytest
from safetensors.torch import load_file
import torch
import yaml

pytest.importorskip('accelerate', reason='training needs requirements-training.txt')

SOURCE = Path(__file__).parents[2]
PATIENCE_S = 600
# Summing a step's gradients in another order moves weights of about 0.1 by this much.
TOLERANCE = 1e-5


def write_config(path, training, **changed):
    fields = {**asdict(training), 'sources': [
        {'kind': 'annotated', 'annotations': 'annotations.jsonl', 'rgb_root': '.',
         'depth_root': '.'},
        {'kind': 'chats', 'file': 'questions.jsonl', 'share': 0.5, 'max_image_tokens': 16}]}
    fields = {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}
    path.write_text(yaml.safe_dump({**fields, **changed}))
    return path


def command(config, out, data, processes=1, *more):
    launch = ['-m', 'depthvlm_ros.training.train']
    if processes > 1:
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            port = free.getsockname()[1]
        launch = ['-m', 'torch.distributed.run', f'--nproc_per_node={processes}',
                  f'--master_port={port}', *launch]
    return [sys.executable, *launch, '--config', config, '--out', out, '--data', data,
            '--device', 'cpu' if torch.accelerator.is_available() else 'auto', *more]


def environment():
    return {**os.environ, 'OMP_NUM_THREADS': '1', 'HF_HUB_OFFLINE': '1', 'PYTHONPATH': str(SOURCE)}


def train(*arguments):
    done = subprocess.run(list(map(str, command(*arguments))), cwd=SOURCE, env=environment(),
                          capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr[-3000:]


def weights(folder):
    return load_file(folder / 'model.safetensors')


def last_row(folder):
    with open(folder / 'log.csv', newline='') as file:
        return list(csv.DictReader(file))[-1]


def test_a_precision_that_accelerate_was_told_is_refused(staged, exported, tmp_path):
    config = write_config(tmp_path / 'x.yaml', staged[1])
    done = subprocess.run(
        list(map(str, command(config, tmp_path / 'out', exported))), cwd=SOURCE,
        env={**environment(), 'ACCELERATE_MIXED_PRECISION': 'bf16'}, capture_output=True,
        text=True, timeout=PATIENCE_S, check=False)
    assert "was told mixed_precision 'bf16', wanted 'no'" in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_two_processes_make_the_step_of_one_and_go_on_exactly(staged, exported, tmp_path):
    config = write_config(tmp_path / 'x.yaml', staged[1], global_batch=4, batch_size=2,
                          learning_rate=1e-3, steps=2)
    alone, together, stopped = tmp_path / 'alone', tmp_path / 'together', tmp_path / 'stopped'
    more = ('--workers', '0')
    run(TrainingConfig.load(config), alone, exported, workers=0, device='cpu')
    train(config, together, exported, 2, *more)
    assert len(list(latest_state(together).glob('*.distcp'))) == 2, 'each trained alone'
    one, two = weights(alone), weights(together)
    for key in one:
        torch.testing.assert_close(two[key], one[key], rtol=0, atol=TOLERANCE)
    for name in ('depth', 'language', 'gradient_norm'):
        assert float(last_row(together)[name]) == pytest.approx(
            float(last_row(alone)[name]), rel=1e-4)
    # Stopped after a step and gone on with, two processes end where they did.
    train(config, stopped, exported, 2, '--stop-at', '1', *more)
    train(config, stopped, exported, 2, *more)
    parts = weights(stopped)
    assert all(torch.equal(parts[key], value) for key, value in two.items())


@pytest.mark.slow
@pytest.mark.parametrize(('processes', 'number'), [(1, signal.SIGTERM), (2, signal.SIGTERM),
                                                   (1, signal.SIGINT)])
def test_a_signal_to_all_processes_loses_no_step(staged, exported, tmp_path, processes, number):
    config = write_config(tmp_path / 'x.yaml', staged[1], batch_size=1, global_batch=2,
                          steps=10**5)
    process = subprocess.Popen(
        list(map(str, command(config, tmp_path / 'out', exported, processes, '--workers', '1',
                              '--save-every', '100000'))),
        cwd=SOURCE, env=environment(), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        until = time.monotonic() + PATIENCE_S
        while not (tmp_path / 'out' / 'log.csv').exists() or len(
                (tmp_path / 'out' / 'log.csv').read_text().splitlines()) < 2:
            assert time.monotonic() < until and process.poll() is None
            time.sleep(0.1)
        os.killpg(process.pid, number)
        _, said = process.communicate(timeout=PATIENCE_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode != 0
    assert 'is killed by signal' not in said
    state = latest_state(tmp_path / 'out')
    assert state is not None, said[-3000:]
    assert int(state.name.partition('-')[2]) >= 1


def test_a_run_that_an_error_ends_leaves_no_process_behind(staged, exported, tmp_path):
    """Its traceback keeps the loader, and so the processes that read, until the very end."""
    config = write_config(tmp_path / 'x.yaml', staged[1], batch_size=1)
    broken = ('from depthvlm_ros.training import train\n'
              'def fail(*_):\n    raise LookupError("what nobody expected")\n'
              'train.train_step = fail\n'
              'train.main()\n')
    arguments = command(config, tmp_path / 'out', exported, 1, '--workers', '4')
    process = subprocess.Popen(
        list(map(str, [sys.executable, '-c', broken, *arguments[3:]])), cwd=SOURCE,
        env=environment(), start_new_session=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True)
    try:
        # Which the readers hold open too.
        _, said = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 1
        assert 'what nobody expected' in said
        assert 'is killed by signal' not in said
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_run_goes_on_exactly(staged, exported, tmp_path):
    config = write_config(tmp_path / 'x.yaml', staged[1], batch_size=1, steps=14)
    whole, killed = tmp_path / 'whole', tmp_path / 'killed'
    more = ('--workers', '1', '--save-every', '2')
    train(config, whole, exported, 1, *more)
    process = subprocess.Popen(list(map(str, command(config, killed, exported, 1, *more))),
                               cwd=SOURCE, env=environment(), start_new_session=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + PATIENCE_S
        while latest_state(killed) is None and process.poll() is None:
            assert time.monotonic() < until, 'no state was saved'
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
    assert latest_state(killed) is not None
    assert last_row(killed)['step'] != '13', 'the run ended before it was killed'
    train(config, killed, exported, 1, *more)
    assert last_row(killed)['step'] == '13'
    one, other = weights(whole), weights(killed)
    assert all(torch.equal(other[key], value) for key, value in one.items())
