# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with a checkpoint, each with one error that names it."""

import json
import shutil
import socket

from depthvlm_ros.model import checkpoint, CheckpointError, Predictor
from depthvlm_ros.model.checkpoint import locate, stored_shapes
import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file
import torch

WEIGHTS, INDEX = 'model.safetensors', 'model.safetensors.index.json'


@pytest.fixture
def folder(tiny_checkpoint, tmp_path):
    """Return a copy of the tiny checkpoint to break."""
    return shutil.copytree(tiny_checkpoint, tmp_path / 'checkpoint')


def load(folder):
    return Predictor.from_pretrained(folder, device='cpu')


def change_weights(folder, change):
    state = load_file(folder / WEIGHTS)
    change(state)
    save_file(state, folder / WEIGHTS, metadata={'format': 'pt'})


def change_config(folder, **fields):
    path = folder / 'config.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def weights_of(predictor):
    return predictor.model.state_dict()


def test_the_tiny_checkpoint_is_in_the_released_layout(folder):
    names = {path.name for path in folder.iterdir()}
    assert {'config.json', WEIGHTS, 'tokenizer.json', 'tokenizer_config.json',
            'chat_template.jinja'} <= names
    assert json.loads((folder / 'config.json').read_text())['model_type'] == 'qwen3_vl'
    stored = load_file(folder / WEIGHTS)
    loaded = weights_of(load(folder))
    for key, value in stored.items():
        assert torch.equal(loaded[key], value.float()), key


def test_several_shards(folder):
    whole = weights_of(load(folder))
    state = load_file(folder / WEIGHTS)
    keys = sorted(state)
    shards = {'model-00001-of-00002.safetensors': keys[::2],
              'model-00002-of-00002.safetensors': keys[1::2]}
    for name, some in shards.items():
        save_file({k: state[k] for k in some}, folder / name, metadata={'format': 'pt'})
    (folder / WEIGHTS).unlink()
    (folder / INDEX).write_text(json.dumps(
        {'metadata': {}, 'weight_map': {k: n for n, some in shards.items() for k in some}}))
    for key, value in weights_of(load(folder)).items():
        assert torch.equal(value, whole[key]), key
    (folder / 'model-00002-of-00002.safetensors').unlink()
    with pytest.raises(CheckpointError, match='model-00002-of-00002.safetensors is missing'):
        load(folder)


def test_the_file_that_is_loaded_is_the_one_that_is_checked(folder):
    state = load_file(folder / WEIGHTS)
    save_file(state, folder / 'model-00001-of-00001.safetensors', metadata={'format': 'pt'})
    (folder / INDEX).write_text(json.dumps(
        {'metadata': {}, 'weight_map': dict.fromkeys(state, 'model-00001-of-00001.safetensors')}))
    change_weights(folder, lambda s: s.pop('depth_head.norm.weight'))
    with pytest.raises(CheckpointError, match='lacks depth_head.norm.weight'):
        load(folder)


def test_an_output_layer_that_is_not_the_embedding_is_told(folder, caplog):
    key = 'model.language_model.embed_tokens.weight'
    change_weights(folder, lambda s: s.update({'lm_head.weight': s[key] + 1}))
    model = load(folder).model
    assert not torch.equal(model.lm_head.weight, model.get_input_embeddings().weight)
    assert 'lm_head.weight is stored and differs from the embedding' in caplog.text


def test_tied_output_layer_stored_or_not(folder):
    key = 'model.language_model.embed_tokens.weight'
    assert 'lm_head.weight' not in stored_shapes(folder)
    change_weights(folder, lambda s: s.update({'lm_head.weight': s[key].clone()}))
    model = load(folder).model
    assert model.lm_head.weight is model.model.language_model.embed_tokens.weight


def test_untied_output_layer_must_be_stored(folder):
    change_config(folder, tie_word_embeddings=False)
    with pytest.raises(CheckpointError, match='lacks lm_head.weight'):
        load(folder)
    key = 'model.language_model.embed_tokens.weight'
    change_weights(folder, lambda s: s.update({'lm_head.weight': s[key] + 1}))
    model = load(folder).model
    assert not torch.equal(model.lm_head.weight, model.model.language_model.embed_tokens.weight)


def test_a_plain_vision_language_model_is_refused(folder):
    def behead(state):
        for key in [k for k in state if k.startswith('depth_head.')]:
            del state[key]
    change_weights(folder, behead)
    with pytest.raises(CheckpointError, match='no depth_head keys: this is a plain Qwen3-VL'):
        load(folder)


@pytest.mark.parametrize('change, message', [
    (lambda s: s.pop('depth_head.norm.weight'), 'lacks depth_head.norm.weight'),
    (lambda s: s.update(surplus=torch.zeros(1)), 'keys that the model does not know: surplus'),
    (lambda s: s.update({'depth_head.norm.weight': torch.zeros(31)}),
     r'depth_head.norm.weight is \[31\], config.json asks for \[32\]')])
def test_keys_that_do_not_fit(folder, change, message):
    change_weights(folder, change)
    with pytest.raises(CheckpointError, match=message):
        load(folder)


def test_a_truncated_file(folder):
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[:len(whole) // 2])
    with pytest.raises(CheckpointError, match=r'model.safetensors: unreadable or truncated \(\d+'):
        load(folder)


def test_pickles_are_not_read(folder):
    torch.save(load_file(folder / WEIGHTS), folder / 'pytorch_model.bin')
    (folder / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match='pickled weights only, wanted model.safetensors'):
        load(folder)


def test_an_index_may_only_name_its_neighbours(folder):
    (folder / WEIGHTS).unlink()
    (folder / INDEX).write_text(json.dumps({'weight_map': {'a': '../model.safetensors'}}))
    with pytest.raises(CheckpointError, match="names '../model.safetensors'"):
        load(folder)


@pytest.mark.parametrize('text, message', [
    ('{', 'not readable as JSON'), ('[]', "model_type is 'list'"),
    ('{"model_type": "llama"}', "model_type is 'llama', wanted 'qwen3_vl'")])
def test_a_bad_config(folder, text, message):
    (folder / 'config.json').write_text(text)
    with pytest.raises(CheckpointError, match=message):
        load(folder)


def test_another_image_token_than_the_tokenizers(folder):
    change_config(folder, image_token_id=7)
    with pytest.raises(CheckpointError, match=r'image token is \d+, config.json says 7; wanted'):
        load(folder)


def test_a_config_out_of_range(folder):
    change_config(folder, canonical_fx=-1.0)
    with pytest.raises(CheckpointError, match=r'canonical_fx is -1.0, wanted a focal length > 0'):
        load(folder)


@pytest.mark.parametrize(('part', 'fields'), [
    ('text_config', {'hidden_size': 'x'}), ('text_config', {'num_key_value_heads': 0}),
    ('text_config', {'hidden_act': 'nope'}), ('vision_config', {'num_heads': 0}),
    ('text_config', {'hidden_size': -32}),
    ('vision_config', {'deepstack_visual_indexes': [0, 1, 9]}),
    (None, {'depth_head_features': '8'}), (None, {'canonical_fx': 'abc'}),
    (None, {'depth_loss_weight': True}), (None, {'canonical_fx': float('inf')}),
    (None, {'intermediate_multiple': 28.5}), (None, {'vision_config': 5}),
    (None, {'quantization_config': {'quant_method': 'bitsandbytes', 'load_in_4bit': True}})])
def test_a_config_of_which_no_model_can_be_built(folder, part, fields):
    config = json.loads((folder / 'config.json').read_text())
    (config[part] if part else config).update(fields)
    (folder / 'config.json').write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match='checkpoint'):
        load(folder)


def test_code_in_a_checkpoint_is_not_run(folder):
    change_config(folder, auto_map={'AutoModel': 'evil.Model', 'AutoConfig': 'evil.Config'})
    (folder / 'evil.py').write_text('raise SystemExit("ran")')
    assert load(folder).model is not None


@pytest.mark.parametrize('missing', ['config.json', WEIGHTS, 'tokenizer.json'])
def test_a_missing_file_is_named(folder, missing):
    (folder / missing).unlink()
    with pytest.raises(CheckpointError, match=missing.split('.')[0]):
        load(folder)


@pytest.mark.parametrize('name', ['/no/such/folder', './nowhere', 'nothing', 'a/b/c'])
def test_a_name_that_is_nothing(name):
    with pytest.raises(CheckpointError, match=f"model '{name}': no such folder; wanted 'nano'"):
        locate(name)


def test_a_hub_id_that_cannot_be_had():
    with pytest.raises(CheckpointError, match=r"'owner/none' at revision v2: neither a folder"):
        locate('owner/none', revision='v2')


@pytest.mark.parametrize('options, message', [
    ({'device': 'toaster'}, "device is 'toaster', wanted 'auto', 'cpu', 'cuda'"),
    ({'device': 'meta'}, "device is 'meta', wanted 'auto', 'cpu', 'cuda'"),
    ({'device': 'cuda:99'}, "device is 'cuda:99', but torch sees"),
    ({'device': 'cpu', 'dtype': 'int3'}, "dtype is 'int3', wanted 'auto' or one of float32")])
def test_devices_and_dtypes_that_are_not_there(folder, options, message):
    with pytest.raises(ValueError, match=message):
        Predictor.from_pretrained(folder, **options)


def test_saved_in_half_precision(tiny_checkpoint):
    with safe_open(tiny_checkpoint / WEIGHTS, framework='pt') as file:
        assert {str(file.get_slice(k).get_dtype()) for k in file.keys()} == {  # noqa: SIM118
            'F16'}


@pytest.mark.parametrize('text', ['[]', 'null', '{"weight_map": {"a": 7, "b": "c"}}'])
def test_an_index_that_is_none(folder, text):
    (folder / WEIGHTS).unlink()
    (folder / INDEX).write_text(text)
    with pytest.raises(CheckpointError, match='not a shard index'):
        load(folder)


def test_weights_that_are_no_floating_numbers(folder):
    change_weights(folder, lambda state: state.update({
        'model.visual.pos_embed.weight': state['model.visual.pos_embed.weight'].to(torch.int8)}))
    with pytest.raises(CheckpointError, match='pos_embed.weight is stored as I8, wanted one of'):
        load(folder)


def test_a_tokenizer_of_an_unknown_kind(folder):
    fields = json.loads((folder / 'tokenizer.json').read_text())
    fields['model']['type'] = 'Nope'
    (folder / 'tokenizer.json').write_text(json.dumps(fields))
    with pytest.raises(CheckpointError, match='no readable tokenizer'):
        load(folder)


def test_a_tokenizer_may_be_set_to_split_special_tokens(folder, tiny_checkpoint):
    fields = json.loads((folder / 'tokenizer_config.json').read_text())
    (folder / 'tokenizer_config.json').write_text(
        json.dumps({**fields, 'split_special_tokens': True}))
    assert load(folder).prompt == load(tiny_checkpoint).prompt


@pytest.mark.parametrize('name', ['', '.', '..'])
def test_a_folder_of_the_package_is_no_model(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    folder = checkpoint.local_folder(name)
    assert folder is None or folder.resolve() in (tmp_path, tmp_path.parent)


@pytest.fixture
def cached(folder, tmp_path, monkeypatch):
    """Put the checkpoint into a cache of the hub, as owner/name; return its folder there."""
    repository = tmp_path / 'hub' / 'models--owner--name'
    snapshot = shutil.copytree(folder, repository / 'snapshots' / ('0' * 40))
    (repository / 'refs').mkdir()
    (repository / 'refs' / 'main').write_text('0' * 40)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path / 'hub'))
    return snapshot


@pytest.fixture
def silent_hub(monkeypatch):
    """Let the hub be a server that takes every request and never answers."""
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', False)
    monkeypatch.setattr(checkpoint, 'ASK_S', 0.5)
    with socket.create_server(('127.0.0.1', 0)) as server:
        monkeypatch.setattr('huggingface_hub.constants.ENDPOINT',
                            f'http://127.0.0.1:{server.getsockname()[1]}')
        yield


@pytest.mark.usefixtures('silent_hub')
def test_what_is_whole_in_the_cache_is_taken_without_the_hub(cached):
    assert locate('owner/name') == cached


@pytest.mark.usefixtures('silent_hub')
@pytest.mark.parametrize('missing', ['config.json', WEIGHTS, 'tokenizer.json'])
def test_a_hub_that_says_nothing_is_given_up(cached, missing):
    (cached / missing).unlink()
    with pytest.raises(CheckpointError, match="'owner/name': neither a folder here nor to be had"):
        locate('owner/name')
