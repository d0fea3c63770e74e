# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Models of the published shapes with random weights: as slow as the real ones, and of no other use.

Text is cut by the embedded tokenizer, whose fixed parts of the conversation are as long as those
of the released one to a few tokens; so nothing has to be fetched.
"""

from __future__ import annotations

import copy

from depthvlm_ros.model import checkpoint, DepthVLM, DepthVLMConfig, Predictor
from depthvlm_ros.model.predictor import resolve_device, resolve_dtype
import torch

TEXT = {
    'num_hidden_layers': 36, 'num_attention_heads': 32, 'num_key_value_heads': 8, 'head_dim': 128,
    'vocab_size': 151936, 'rms_norm_eps': 1e-6, 'max_position_embeddings': 262144,
    'rope_parameters': {'rope_type': 'default', 'rope_theta': 5e6,
                        'mrope_section': [24, 20, 20], 'mrope_interleaved': True}}
VISION = {'num_heads': 16, 'patch_size': 16, 'spatial_merge_size': 2, 'temporal_patch_size': 2,
          'num_position_embeddings': 2304}
PUBLISHED = {
    '4b': {'tie_word_embeddings': True,
           'text_config': {**TEXT, 'hidden_size': 2560, 'intermediate_size': 9728},
           'vision_config': {**VISION, 'depth': 24, 'hidden_size': 1024,
                             'intermediate_size': 4096, 'out_hidden_size': 2560,
                             'deepstack_visual_indexes': [5, 11, 17]}},
    '8b': {'tie_word_embeddings': False,
           'text_config': {**TEXT, 'hidden_size': 4096, 'intermediate_size': 12288},
           'vision_config': {**VISION, 'depth': 27, 'hidden_size': 1152,
                             'intermediate_size': 4304, 'out_hidden_size': 4096,
                             'deepstack_visual_indexes': [8, 16, 24]}},
}
SEED = 0


def published_config(size, **others):
    """
    Return the DepthVLMConfig of the released '4b' or '8b'.

    :param others: fields that are to differ.
    :raises ValueError: another size.
    """
    if size not in PUBLISHED:
        raise ValueError(f'size is {size!r}, wanted one of {", ".join(PUBLISHED)}')
    return DepthVLMConfig(**PUBLISHED[size], **others)


def random_predictor(config, device='auto', dtype='auto', name='random'):
    """
    Build a predictor with random weights of even scale, drawn on its device.

    :param config: DepthVLMConfig; its image token must be the embedded tokenizer's.
    :return: Predictor.
    """
    device = resolve_device(device)
    model = build(config, device, resolve_dtype(dtype, device))
    generator = torch.Generator(device).manual_seed(SEED)
    with torch.no_grad():
        for key, weight in model.named_parameters():
            weight.normal_(generator=generator)
            if weight.ndim > 1:
                weight.mul_(weight[0].numel() ** -0.5)
            else:
                weight.mul_(0.1).add_(1.0 if key.endswith('weight') else 0.0)
    return Predictor(model, checkpoint.load_tokenizer(checkpoint.locate('nano')), name)


def build(config, device, dtype):
    """Build a DepthVLM on a device, as transformers initialises it, whatever dtype config says."""
    config = copy.deepcopy(config)
    for part in (config, config.text_config, config.vision_config):
        part.dtype = dtype      # of weights that were stored; its parts would be built in it
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return DepthVLM(config).eval()
    finally:
        torch.set_default_dtype(default)


def predictor_of(model, device='auto', dtype='auto'):
    """
    Return a predictor of '4b' or '8b' with random weights, or load a checkpoint.

    :param model: '4b', '8b', or what Predictor.from_pretrained takes.
    """
    if model not in PUBLISHED:
        return Predictor.from_pretrained(model, device=device, dtype=dtype)
    image_token = checkpoint.read_config(checkpoint.locate('nano')).image_token_id
    config = published_config(model, image_token_id=image_token)
    return random_predictor(config, device, dtype, f'{model}, random weights')
