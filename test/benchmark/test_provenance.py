# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0

import json
import subprocess

from depthvlm_ros.benchmark import provenance as module
from depthvlm_ros.benchmark.provenance import commit_of, json_line, provenance
import numpy as np
import torch


def git(folder, *words):
    subprocess.run(['git', '-C', str(folder), '-c', 'user.name=a', '-c', 'user.email=a@b', *words],
                   check=True, capture_output=True)


def test_figures_say_where_they_come_from():
    told = provenance('cpu', torch.bfloat16)
    assert told['device'] == 'cpu' and told['gpu'] is None and told['dtype'] == 'bfloat16'
    assert told['torch'] == torch.__version__ and told['cores'] >= 1
    assert 'dtype' not in provenance('cpu')


def test_the_processor_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(module, 'CPU_INFO', tmp_path / 'cpuinfo')
    assert module.cpu_name()
    (tmp_path / 'cpuinfo').write_text('processor : 0\nmodel name\t: Some CPU @ 2 GHz\n')
    assert module.cpu_name() == 'Some CPU @ 2 GHz'


def test_without_git_there_is_no_commit(monkeypatch):
    monkeypatch.setenv('PATH', '')
    assert provenance('cpu')['commit'] is None


def test_a_commit_is_that_of_the_checkout_itself(tmp_path):
    assert commit_of(tmp_path) == {'commit': None, 'changed': None}
    git(tmp_path, 'init', '-q')
    (tmp_path / 'inside').mkdir()
    (tmp_path / 'inside' / 'file').write_text('a')
    git(tmp_path, 'add', '.')
    git(tmp_path, 'commit', '-q', '-m', 'a')
    found = commit_of(tmp_path)
    assert len(found['commit']) == 40 and found['changed'] is False
    assert commit_of(tmp_path / 'inside')['commit'] is None     # of the repository around it
    (tmp_path / 'inside' / 'file').write_text('b')
    assert commit_of(tmp_path) == {**found, 'changed': True}


def test_the_line_is_strict_json():
    line = json_line({'a': [float('nan'), 1.5], 'b': {'c': np.float64('inf')},
                      'd': (1, 'x', None)})
    assert json.loads(line, parse_constant=lambda name: 1 / 0) == {
        'a': [None, 1.5], 'b': {'c': None}, 'd': [1, 'x', None]}
