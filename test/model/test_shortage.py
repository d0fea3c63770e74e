# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
from depthvlm_ros.model.shortage import is_out_of_memory
import pytest
import torch


@pytest.mark.parametrize('error', [
    MemoryError(), torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB'),
    RuntimeError('CUDA error: out of memory'),
    RuntimeError('CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`'),
    RuntimeError('cuDNN error: CUDNN_STATUS_ALLOC_FAILED'),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")])
def test_every_way_of_saying_so_is_understood(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize('error', [
    RuntimeError('CUDA error: an illegal memory access was encountered'),
    ValueError('out of memory')])
def test_other_failures_are_none(error):
    assert not is_out_of_memory(error)
