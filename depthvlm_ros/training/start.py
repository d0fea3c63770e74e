# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Where a run begins: a model from scratch, a plain Qwen3-VL with a fresh head, or a DepthVLM."""

import json

from depthvlm_ros.model import DepthVLM, DepthVLMConfig
from depthvlm_ros.model.checkpoint import (
    check_keys,
    CheckpointError,
    load_tokenizer,
    locate,
    match_keys,
    read_config,
    stored_shapes,
    take_stored_output,
)
from depthvlm_ros.model.prompt import Prompt
from depthvlm_ros.training.tokenizer import room_texts, train_tokenizer
from huggingface_hub.errors import StrictDataclassError
import torch

HEAD = 'depth_head.'
TYPICAL_DEPTH_M = 3.0  # where an untrained head begins


def begin(training, begun=None):
    """
    Build the model that a run begins with.

    :param training: TrainingConfig.
    :param begun: folder of a run that goes on, whose tokenizer is kept.
    :return: (model, tokenizer, prompt); float32 weights.
    :raises ValueError: a configuration that tells no beginning.
    :raises CheckpointError: a start that cannot be used.
    """
    if training.start:
        return load_start(training)
    if 'text_config' not in training.model:
        raise ValueError('start is empty and model has no text_config, wanted a checkpoint to '
                         'begin from (--start FOLDER) or the fields of a model from scratch')
    return build(training, begun)


def build(training, begun=None):
    """
    Build an untrained model and its tokenizer.

    :param begun: folder of a run that goes on, whose tokenizer is kept.
    :return: (model, tokenizer, prompt).
    :raises ValueError: a field of the model that is not known, or a value out of range.
    """
    torch.manual_seed(training.seed)
    tokenizer = (load_tokenizer(begun) if begun else
                 train_tokenizer(room_texts(training.vocab_rooms), training.vocab_size))
    prompt = Prompt.of(tokenizer)
    fields = dict(training.model)
    check_fields(DepthVLMConfig().to_dict(), fields)
    fields['text_config'] = {**fields['text_config'], 'vocab_size': training.vocab_size}
    tokens = {f'{name}_token_id': tokenizer.convert_tokens_to_ids(f'<|{token}|>')
              for name, token in (('image', 'image_pad'), ('video', 'video_pad'),
                                  ('vision_start', 'vision_start'), ('vision_end', 'vision_end'))}
    try:
        config = DepthVLMConfig(**fields, **tokens)
    except (TypeError, StrictDataclassError) as e:
        raise ValueError(f'model is {training.model}: {e}') from e
    model = DepthVLM(config)
    reset_head(model.depth_head)
    return model, tokenizer, prompt


def reset_head(head):
    """Initialise a depth head: torch's own ways, and a typical depth to begin from."""
    for module in head.modules():
        if hasattr(module, 'reset_parameters'):
            module.reset_parameters()
    last = [m for m in head.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))][-1]
    with torch.no_grad():
        last.bias.fill_(TYPICAL_DEPTH_M)


def load_start(training):
    """
    Load a checkpoint to begin from.

    A checkpoint with a depth head is loaded strictly, and its config stands, but for the depth
    loss's weight, which the training's depth_weight replaces in the end; one without is a
    plain Qwen3-VL, whose other weights are loaded strictly and whose head begins fresh.

    :return: (model, tokenizer, prompt).
    :raises CheckpointError: one that cannot be used; the text says why.
    """
    folder = locate(training.start)
    config = changed_config(folder, training.model)
    tokenizer = load_tokenizer(folder)
    try:
        prompt = Prompt.of(tokenizer, config.image_token_id)
    except ValueError as e:
        raise CheckpointError(f'{folder}: {e}') from e
    plain = not any(key.startswith(HEAD) for key in stored_shapes(folder))
    if plain:
        check_plain_keys(folder, config)
    else:
        check_keys(folder, config)
    torch.manual_seed(training.seed)
    model = DepthVLM.from_pretrained(folder, config=config, dtype=torch.float32,
                                     local_files_only=True, use_safetensors=True)
    take_stored_output(model, folder)
    if plain:
        reset_head(model.depth_head)
    return model, tokenizer, prompt


def changed_config(folder, changes):
    """
    Read a checkpoint's configuration, and change fields of it.

    :param changes: DepthVLMConfig's fields; those of text_config and vision_config one by one.
    :raises CheckpointError: a config.json that cannot be used.
    :raises ValueError: a field that is not known, or a value out of range.
    """
    config = read_config(folder)
    fields = json.loads(json.dumps(config.to_dict()))
    check_fields(fields, changes)
    for key, value in changes.items():
        fields[key] = {**fields[key], **value} if isinstance(value, dict) else value
    try:
        return DepthVLMConfig.from_dict(fields)
    except (TypeError, ValueError, StrictDataclassError) as e:
        raise ValueError(f'model is {changes}: {e}') from e


def check_fields(known, given):
    """
    Hold the fields of a model against those that there are.

    :param known: a configuration's dict.
    :raises ValueError: others, or no fields where a part's are wanted.
    """
    for key, value in given.items():
        if key not in known:
            raise ValueError(f'model has the field {key!r}, wanted one of DepthVLMConfig')
        if isinstance(known[key], dict) != isinstance(value, dict):
            raise ValueError(f'model has {key} {value!r}, wanted '
                             + ('fields' if isinstance(known[key], dict) else 'no fields'))
        if isinstance(value, dict):
            unknown = sorted(value.keys() - known[key].keys())
            if unknown:
                raise ValueError(f'model has the fields {unknown} in {key}, wanted some of '
                                 f'{sorted(known[key])}')


def check_plain_keys(folder, config):
    """
    Hold a plain Qwen3-VL's keys and shapes against what the model needs beside its head.

    :raises CheckpointError: missing or unexpected keys, or a wrong shape.
    """
    with torch.device('meta'):
        wanted = {k: tuple(v.shape) for k, v in DepthVLM(config).state_dict().items()
                  if not k.startswith(HEAD)}
    match_keys(folder, stored_shapes(folder), wanted, config.tie_word_embeddings)
