# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A run computes in what its device multiplies quickly, and says where it was told otherwise."""

from dataclasses import replace
import os
import subprocess
import sys

from depthvlm_ros.training.precision import precision_on
from depthvlm_ros.training.stages import Float32Muon
from depthvlm_ros.training.train import prepare_learner, run
import pytest
import torch

pytest.importorskip('accelerate', reason='training needs requirements-training.txt')

CPU = torch.device('cpu')
with_muon = pytest.mark.skipif(not hasattr(torch.optim, 'Muon'),
                               reason='this torch has no Muon, which came with 2.9')


@pytest.fixture
def capability(monkeypatch):
    """Return a function that says which instructions torch uses."""
    def use(name, **features):
        monkeypatch.setattr(torch.backends.cpu, 'get_cpu_capability', lambda: name)
        monkeypatch.setattr(torch.cpu, 'get_capabilities', lambda: features, raising=False)
    return use


@pytest.mark.parametrize('name,features,precision', [
    ('AVX2', {'avx512_bf16': False}, 'float32'), ('DEFAULT', {}, 'float32'),
    ('AVX2', {'avx512_bf16': True}, 'float32'),     # ATEN_CPU_CAPABILITY
    ('AVX512', {'avx512_bf16': True}, 'bf16'), ('AVX512', {'avx512_bf16': False}, 'float32'),
    ('SVE256', {'bf16': True}, 'bf16')])
def test_auto_is_what_the_processor_multiplies(capability, name, features, precision, caplog):
    capability(name, **features)
    assert precision_on(CPU, 'auto') == precision
    assert not caplog.text


def test_a_torch_that_cannot_tell_is_believed_of_avx512(capability, monkeypatch):
    capability('AVX512')
    monkeypatch.delattr(torch.cpu, 'get_capabilities')
    assert precision_on(CPU, 'auto') == 'bf16'


@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() not in ('AVX2', 'AVX512'),
                    reason='no x86 processor')
def test_auto_asks_torch_itself():
    text = ("import torch; from depthvlm_ros.training.precision import precision_on; "
            "print(precision_on(torch.device('cpu'), 'auto'))")
    found = subprocess.run([sys.executable, '-c', text], capture_output=True, text=True,
                           timeout=300, check=True,
                           env={**os.environ, 'ATEN_CPU_CAPABILITY': 'avx2'})
    assert found.stdout.strip() == 'float32'


def test_bf16_is_kept_where_it_is_asked_for_with_a_warning(capability, caplog):
    capability('AVX2')
    assert precision_on(CPU, 'bf16') == 'bf16'
    assert "precision is 'bf16'" in caplog.text and "wanted 'auto' or 'float32'" in caplog.text
    assert precision_on(CPU, 'float32') == 'float32'


def test_a_run_resolves_its_precision(capability, tiny_training, tmp_path, monkeypatch):
    seen = []

    def watched(model, training, accelerator):
        seen.append(training.precision)
        return prepare_learner(model, training, accelerator)

    monkeypatch.setattr('depthvlm_ros.training.train.prepare_learner', watched)
    capability('AVX2')
    run(replace(tiny_training, precision='auto', steps=1), tmp_path, workers=0, device='cpu')
    assert seen == ['float32']


@with_muon
def test_muon_in_float32_is_the_formula_to_float32():
    """The first step against the formula (Jordan et al. 2024, as in torch) in float64."""
    torch.manual_seed(5)
    start, gradient = torch.randn(48, 32), torch.randn(48, 32)
    parameter = torch.nn.Parameter(start.clone())
    parameter.grad = gradient.clone()
    Float32Muon([parameter], lr=0.01, weight_decay=0.1, momentum=0.95,
                adjust_lr_fn='match_rms_adamw').step()
    x = gradient.double()
    x = x / x.norm()
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    wanted = start.double() * (1 - 0.01 * 0.1) - 0.01 * 0.2 * 48 ** 0.5 * x
    torch.testing.assert_close(parameter.detach().double(), wanted, rtol=0, atol=1e-6)
    assert torch.equal(parameter.grad, gradient)
    assert torch.ones(1).bfloat16().dtype == torch.bfloat16  # as before, outside a step
