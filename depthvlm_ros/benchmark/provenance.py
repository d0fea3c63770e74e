# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Where figures came about, and the line of JSON that a benchmark ends with."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
import platform
import subprocess

import depthvlm_ros

SOURCE = Path(__file__).resolve().parents[2]
CPU_INFO = Path('/proc/cpuinfo')


def provenance(device, dtype=None):
    """
    Return where and with what a result came about: commit, versions, hardware.

    :param device: torch.device or its name; its 'gpu' is None unless it is one.
    :param dtype: torch.dtype that the model computed in, None to leave it out.
    :return: dict; 'commit' is None where this package does not lie in a checkout of its own, and
        'changed' tells whether files that git tracks there differ from it.
    """
    import torch
    import transformers
    gpu = torch.cuda.get_device_name(device) if torch.device(device).type == 'cuda' else None
    computed = {} if dtype is None else {'dtype': str(dtype).removeprefix('torch.')}
    return {**commit_of(SOURCE), 'version': depthvlm_ros.__version__, 'device': str(device),
            **computed, 'gpu': gpu, 'cpu': cpu_name(), 'cores': os.cpu_count(),
            'python': platform.python_version(), 'torch': torch.__version__,
            'transformers': transformers.__version__}


def commit_of(folder):
    """Return a checkout's 'commit' and whether it is 'changed', both None of anything else."""
    top, commit = _git(folder, 'rev-parse', '--show-toplevel'), _git(folder, 'rev-parse', 'HEAD')
    if not top or not commit or Path(top).resolve() != Path(folder).resolve():
        return {'commit': None, 'changed': None}
    changed = _git(folder, 'status', '--porcelain', '--untracked-files=no')
    return {'commit': commit, 'changed': bool(changed)}


def _git(folder, *words):
    """Return what git says, '' where it fails or is not there."""
    try:
        return subprocess.run(['git', '-C', str(folder), *words], capture_output=True, text=True,
                              check=False).stdout.strip()
    except OSError:
        return ''


def cpu_name():
    """Return the processor's model as Linux names it, or its architecture."""
    try:
        lines = CPU_INFO.read_text(encoding='utf-8').splitlines()
    except OSError:
        lines = []
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return next(iter(names), '') or platform.processor() or platform.machine()


def json_line(result):
    """Return a result as one line of JSON, null for each number that is not finite."""
    return json.dumps(_finite(result), allow_nan=False)


def _finite(value):
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
