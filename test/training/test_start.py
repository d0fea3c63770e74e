# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0

from dataclasses import replace
import json
import shutil

from depthvlm_ros.model import CheckpointError
from depthvlm_ros.training.config import TrainingConfig
from depthvlm_ros.training.start import begin, TYPICAL_DEPTH_M
from depthvlm_ros.training.state import save_checkpoint
import pytest
from safetensors.torch import load_file, save_file
import torch


@pytest.fixture
def copy(plain_qwen, tmp_path):
    return shutil.copytree(plain_qwen, tmp_path / 'copy')


def test_a_plain_qwen3_vl_keeps_its_weights_and_gets_a_fresh_head(staged, plain_qwen):
    model, tokenizer, _ = begin(staged[0])
    stored = load_file(plain_qwen / 'model.safetensors')
    assert not any(key.startswith('depth_head') for key in stored)
    own = model.state_dict()
    assert {k for k in own if k not in stored and k != 'lm_head.weight'} == {
        k for k in own if k.startswith('depth_head.')}
    for key, value in stored.items():
        assert torch.equal(own[key], value), key
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert model.depth_head.scratch.output_conv2[2].bias.item() == TYPICAL_DEPTH_M
    assert model.config.canonical_fx == 64.0 and model.config.depth_head_features == 8
    assert tokenizer.eos_token == '<|im_end|>'
    again, _, _ = begin(staged[0])
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in own.items())


def test_without_changes_the_released_chain_and_head_are_meant(staged):
    model, _, _ = begin(replace(staged[0], model={}))
    assert model.config.canonical_fx == 1000.0 and model.config.intermediate_multiple == 28
    assert model.depth_head.projects[3].out_channels == 1024


def test_a_depthvlm_is_loaded_with_its_head(staged, tiny_checkpoint):
    model, _, _ = begin(replace(staged[0], start=str(tiny_checkpoint), model={}))
    stored = load_file(tiny_checkpoint / 'model.safetensors')
    for key, value in stored.items():
        assert torch.equal(model.state_dict()[key], value.float()), key
    assert model.config.canonical_fx == 64.0
    assert next(model.parameters()).dtype == torch.float32


def test_an_output_layer_that_is_not_the_embedding_is_kept(staged, copy, tmp_path):
    change_weights(copy, lambda w: w.update({
        'lm_head.weight': 1.5 * w['model.language_model.embed_tokens.weight']}))
    model, tokenizer, _ = begin(replace(staged[0], start=str(copy)))
    save_checkpoint(model, tokenizer, tmp_path / 'saved', torch.float32)
    again, _, _ = begin(replace(staged[0], start=str(tmp_path / 'saved'), model={}))
    stored = load_file(copy / 'model.safetensors')['lm_head.weight'].float()
    for loaded in (model, again):
        assert torch.equal(loaded.lm_head.weight, stored)


def change_weights(folder, change):
    path = folder / 'model.safetensors'
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={'format': 'pt'})


@pytest.mark.parametrize(('change', 'said'), [
    (lambda w: w.pop('model.visual.pos_embed.weight'), 'lacks model.visual.pos_embed.weight'),
    (lambda w: w.update(extra=torch.zeros(1)), 'keys that the model does not know: extra'),
    (lambda w: w.update({'model.visual.pos_embed.weight': torch.zeros(4, 32)}),
     r'pos_embed.weight is \[4, 32\], config.json asks for \[64, 32\]')])
def test_a_start_is_loaded_strictly(staged, copy, change, said):
    change_weights(copy, change)
    with pytest.raises(CheckpointError, match=said):
        begin(replace(staged[0], start=str(copy)))


def test_another_model_is_refused(staged, copy):
    config = json.loads((copy / 'config.json').read_text())
    (copy / 'config.json').write_text(json.dumps({**config, 'model_type': 'qwen2_vl'}))
    with pytest.raises(CheckpointError, match="model_type is 'qwen2_vl', wanted 'qwen3_vl'"):
        begin(replace(staged[0], start=str(copy)))


def test_an_unknown_field_of_the_model_is_refused(staged):
    with pytest.raises(ValueError, match="the field 'canonical_f', wanted one of DepthVLMConfig"):
        begin(replace(staged[0], model={'canonical_f': 3}))
    with pytest.raises(ValueError, match=r"the fields \['bogus'\] in text_config, wanted some of"):
        begin(replace(staged[0], model={'text_config': {'bogus': 1}}))
    with pytest.raises(ValueError, match='model has text_config 5, wanted fields'):
        begin(replace(staged[0], model={'text_config': 5}))
    with pytest.raises(ValueError, match="model is {'canonical_fx': 'abc'}: "):
        begin(replace(staged[0], model={'canonical_fx': 'abc'}))


def test_an_unknown_field_of_a_model_from_scratch_is_refused(tiny_training):
    for fields, said in (({'canonical_fxx': 3}, "the field 'canonical_fxx'"),
                         ({'text_config': {**tiny_training.model['text_config'], 'hiden': 1}},
                          r"the fields \['hiden'\] in text_config")):
        with pytest.raises(ValueError, match=said):
            begin(replace(tiny_training, model={**tiny_training.model, **fields}))


def test_a_start_that_is_not_there_is_named(staged):
    with pytest.raises(CheckpointError, match='/no/such/folder'):
        begin(replace(staged[0], start='/no/such/folder'))


def test_no_beginning_is_refused():
    with pytest.raises(ValueError, match='start is empty and model has no text_config'):
        begin(TrainingConfig())
