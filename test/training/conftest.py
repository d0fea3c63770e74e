# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A plain Qwen3-VL of three layers, and rooms in files."""

from dataclasses import replace
import json

from depthvlm_ros.training.config import AnnotatedSource, ChatSource
import pytest
import torch


@pytest.fixture(scope='session')
def plain_qwen(tiny_checkpoint, tmp_path_factory):
    """Return a Qwen3-VL without a depth head, as transformers' own class saves it."""
    from transformers import AutoTokenizer, Qwen3VLConfig, Qwen3VLForConditionalGeneration
    folder = tmp_path_factory.mktemp('plain')
    fields = json.loads((tiny_checkpoint / 'config.json').read_text())
    own = ('canonical_fx', 'min_pixels', 'max_pixels', 'intermediate_multiple')
    fields = {k: v for k, v in fields.items() if k not in own and not k.startswith('depth_')}
    torch.manual_seed(7)
    Qwen3VLForConditionalGeneration(Qwen3VLConfig(**fields)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_checkpoint).save_pretrained(folder)
    return folder


@pytest.fixture(scope='session')
def exported(tmp_path_factory):
    """Return a folder of eight small rooms: annotations, images, depth files, questions."""
    from depthvlm_ros.synthetic.export import export
    folder = tmp_path_factory.mktemp('exported')
    export(folder, 8, split='train', width=64, height=48)
    return folder


@pytest.fixture(scope='session')
def staged(tiny_training, plain_qwen):
    """Return the two stages over exported rooms, from a plain Qwen3-VL."""
    model = {k: v for k, v in tiny_training.model.items()
             if k not in ('text_config', 'vision_config')}
    annotated = AnnotatedSource('annotations.jsonl', '.', '.')
    common = replace(tiny_training, start=str(plain_qwen), model=model, thaw_vision=False,
                     sources=(annotated,), naming_weight=0.0, log_l1_weight=0.0, steps=2,
                     batch_size=2, precision='float32', saved_dtype='float32')
    chats = ChatSource('questions.jsonl', '.', share=0.5, max_image_tokens=16)
    return (replace(common, stage=1),
            replace(common, stage=2, sources=(annotated, chats), gradient_checkpointing=True))
