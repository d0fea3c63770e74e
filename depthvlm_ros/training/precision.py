# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a device multiplies quickly: bfloat16 where it has the instructions, float32 elsewhere."""

import logging

import torch
from torch.overrides import TorchFunctionMode

# On these torch goes through bfloat16 products number by number.
WITHOUT_BF16 = ('DEFAULT', 'AVX2')


def multiplies_bf16(device):
    """
    Tell whether a device has instructions for bfloat16 products.

    On a CPU it goes by the instructions that torch itself uses there (ATEN_CPU_CAPABILITY counts):
    many desktop and laptop processors end at AVX2, and AVX-512 had none for bfloat16 at first, nor
    has it in some virtual machines (a torch without `torch.cpu.get_capabilities` cannot tell).

    :param device: torch.device.
    """
    if device.type == 'cuda':
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == 'cpu':
        if torch.backends.cpu.get_cpu_capability() in WITHOUT_BF16:
            return False
        tell = getattr(torch.cpu, 'get_capabilities', dict)
        return tell().get('avx512_bf16', True)      # no such key: no x86
    return True


def precision_on(device, asked):
    """
    Return the precision that a run computes in; warn of one that this device is slow in.

    :param device: torch.device.
    :param asked: 'auto', 'bf16' or 'float32'.
    :return: 'bf16' or 'float32'.
    """
    quick = multiplies_bf16(device)
    if asked == 'bf16' and not quick:
        logging.getLogger(__name__).warning(
            "precision is 'bf16', and this device (%s) has no instructions for its products: a "
            "step can take many times as long as in 'float32'; wanted 'auto' or 'float32'", device)
    if asked == 'auto':
        return 'bf16' if quick else 'float32'
    return asked


class Float32(TorchFunctionMode):
    """While it is on, `Tensor.bfloat16()` gives a copy in float32."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.Tensor.bfloat16:
            return args[0].to(torch.float32, copy=True)
        return func(*args, **(kwargs or {}))
