# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Weights of 8 or 4 bits for smaller devices, through torchao (`pip install torchao`).

Weight-only: the linear layers of the vision tower and of the language model keep whole numbers
and a scale, and are multiplied in the model's own dtype. Embeddings, output layer, norms,
convolutions and the depth head stay as they are.
"""

from __future__ import annotations

import torch
from torch import nn

KINDS = ('int8', 'int4')
PARTS = ('model.visual.', 'model.language_model.')
GROUP = 64      # weights that share a scale in int4
# torchao fills the rows and columns of int4 weights on a GPU up to multiples of these.
PADDED_IN, PADDED_OUT = 1024, 8
INSTALL = 'pip install torchao'


class QuantisationError(ValueError):
    """Weights that cannot be quantised; the text says why and what to do."""


def check_kind(kind):
    """
    Hold a kind of weights against those that there are.

    :raises ValueError: another kind.
    """
    if kind not in KINDS:
        raise ValueError(f'quantise is {kind!r}, wanted one of {", ".join(KINDS)}')


def is_quantised(module, name, kind):
    """
    Tell whether a module's weights become whole numbers.

    :param name: its full name in a DepthVLM.
    :param kind: 'int8' or 'int4'; int4 leaves out rows that groups of 64 do not fill.
    """
    return (isinstance(module, nn.Linear) and name.startswith(PARTS)
            and (kind == 'int8' or module.in_features % GROUP == 0))


def quantise(model, kind, device=None):
    """
    Turn a DepthVLM's linear weights into whole numbers, in place.

    int8: symmetric, a scale for every row. int4: a scale for every 64 weights of a row; packed two
    to a byte on a GPU (bfloat16 wanted), while on a CPU each takes a byte, which shows the
    accuracy and saves no more than int8. To be done before the first look: a predictor keeps what
    it has worked out of the weights.

    :param model: DepthVLM in evaluation mode.
    :param kind: 'int8' or 'int4'.
    :param device: where the model goes, layer by layer as each is quantised, so that a GPU never
        holds the whole weights; left out: it stays where it is.
    :return: the model.
    :raises ValueError: another kind.
    :raises QuantisationError: torchao is missing or too old, or int4 on a GPU in another dtype
        than bfloat16.
    """
    check_kind(kind)
    device = torch.device(device or model.device)
    if kind == 'int4' and device.type == 'cuda' and model.dtype != torch.bfloat16:
        raise QuantisationError(f'int4 weights on a GPU go with bfloat16, the model is '
                                f'{model.dtype}; load it with that dtype, or take int8')
    quantize_, settings = torchao_for(kind, device.type)
    quantize_(model, settings, device=device,
              filter_fn=lambda module, name: is_quantised(module, name, kind))
    return model


def torchao_for(kind, device_type):
    """
    Return torchao's function that quantises, and its settings for a kind of weights.

    :param device_type: 'cuda' or 'cpu'.
    :raises QuantisationError: torchao is missing, or too old for these settings.
    """
    try:
        from torchao import quantization
        if kind == 'int8':
            settings = quantization.Int8WeightOnlyConfig(set_inductor_config=False)
        elif device_type == 'cuda':
            settings = quantization.Int4WeightOnlyConfig(
                group_size=GROUP, int4_packing_format='tile_packed_to_4d',
                set_inductor_config=False)
        else:
            settings = quantization.IntxWeightOnlyConfig(
                weight_dtype=torch.int4, granularity=quantization.PerGroup(GROUP))
    except (ImportError, AttributeError, TypeError) as e:
        raise QuantisationError(f'{kind} weights need torchao of an age with torch '
                                f'{torch.__version__} ({e}): {INSTALL}') from e
    return quantization.quantize_, settings


def stored_bytes(model):
    """Return the bytes of a model's weights as they are, tied ones once."""
    return sum(tensor_bytes(weight) for weight in model.parameters())


def tensor_bytes(tensor):
    """Return the bytes of a tensor, of its parts where torchao keeps several."""
    if hasattr(tensor, '__tensor_flatten__'):
        names, _ = tensor.__tensor_flatten__()
        return sum(tensor_bytes(getattr(tensor, name)) for name in names)
    return tensor.numel() * tensor.element_size()


def padded(length, multiple):
    """Return a length rounded up."""
    return -(-length // multiple) * multiple


def packed_bytes(model, kind=''):
    """
    Return the bytes that a model's weights take once quantised and packed, as on a GPU.

    :param model: DepthVLM, not quantised, on any device, the meta device too.
    :param kind: 'int8', 'int4' or '' for the weights as they are.
    """
    total = stored_bytes(model)
    if not kind:
        return total
    check_kind(kind)
    for name, module in model.named_modules():
        if is_quantised(module, name, kind):
            weight = module.weight
            scale = weight.element_size()
            total -= tensor_bytes(weight)
            if kind == 'int8':
                total += weight.numel() + scale * module.out_features
            else:       # a scale and a zero point for every group
                packed = (padded(module.in_features, PADDED_IN)
                          * padded(module.out_features, PADDED_OUT))
                total += packed // 2 + 2 * scale * (packed // GROUP)
    return total
