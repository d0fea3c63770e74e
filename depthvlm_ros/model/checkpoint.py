# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Finding, checking and loading a checkpoint in the released layout.

A folder with config.json, model.safetensors (or shards and their index), and a tokenizer. Only
safetensors are read, never pickles, and no code comes from a checkpoint.
"""

from contextlib import contextmanager
import json
import logging
from pathlib import Path

from depthvlm_ros.model.config import DepthVLMConfig
from depthvlm_ros.model.depthvlm import DepthVLM
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from safetensors import safe_open, SafetensorError
import torch
from transformers import AutoTokenizer

EMBEDDED = Path(__file__).resolve().parent.parent / 'checkpoints'
EMBEDDED_NAMES = {config.parent.name for config in EMBEDDED.glob('*/config.json')}
FILES = ['*.json', '*.safetensors', '*.jinja', '*.txt']
SINGLE, INDEX = 'model.safetensors', 'model.safetensors.index.json'
TIED_KEY = 'lm_head.weight'
SHOWN = 3  # keys named in an error
ASK_S = 10.0    # for the hub to say that it has a model
FLOATS = {'F64', 'F32', 'F16', 'BF16'}      # safetensors' names

log = logging.getLogger(__name__)


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the text names it and what is wrong with it."""


def locate(name, revision=None):
    """
    Find a checkpoint's folder, fetching it from the hub where it is not here.

    What is whole in the hub's cache is taken from there, and the hub not asked: a robot may have
    no network. A branch that has moved since is fetched by `hf download`.

    :param name: 'nano' (embedded), a folder, or a hub id such as 'JonnyYu828/DepthVLM-4B'.
    :param revision: branch, tag or commit of a hub id.
    :raises CheckpointError: nothing there by that name.
    """
    name = str(name)
    folder = local_folder(name, revision)
    if folder is not None:
        return folder
    if not is_hub_id(name):
        raise CheckpointError(f"model '{name}': no such folder; wanted 'nano', a folder with "
                              "config.json and model.safetensors, or a hub id 'owner/name'")
    try:
        # The download itself would wait without an end for a hub that says nothing.
        HfApi().model_info(name, revision=revision or None, timeout=ASK_S)
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=FILES))
    except Exception as e:  # the hub's client raises whatever its network library does
        at = f' at revision {revision}' if revision else ''
        raise CheckpointError(
            f"model '{name}'{at}: neither a folder here nor to be had from the hub "
            f'({type(e).__name__}: {str(e).partition(chr(10))[0]}); check the name and the '
            'network, or give a folder') from e


def is_hub_id(name):
    """Tell whether a text may be a hub id, owner/name, and no path."""
    return name.count('/') == 1 and not name.startswith(('/', '.', '~'))


def local_folder(name, revision=None):
    """
    Return a checkpoint's folder without fetching anything, or None where it is not here.

    :param name: as locate's.
    :param revision: of a hub id; empty: its default.
    """
    if name in EMBEDDED_NAMES:
        return EMBEDDED / name
    try:
        folder = Path(name).expanduser()
        if name and folder.is_dir():
            return folder
    except (OSError, RuntimeError, ValueError):     # a name that no file can have, or ~nobody
        return None
    if not is_hub_id(name):
        return None
    try:
        folder = Path(snapshot_download(name, revision=revision or None, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    return folder if is_whole(folder) else None


def is_whole(folder):
    """Tell whether all files that a checkpoint needs are in a folder, whatever is in them."""
    try:
        shard_files(folder)
    except CheckpointError:
        return False
    return (folder / 'config.json').is_file() and (
        (folder / 'tokenizer.json').is_file() or (folder / 'vocab.json').is_file())


def read_config(folder):
    """
    Read and check config.json.

    :return: DepthVLMConfig.
    :raises CheckpointError: missing, unreadable, another model, or values out of range.
    """
    path = Path(folder) / 'config.json'
    try:
        fields = json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError as e:
        raise CheckpointError(f'{folder}: has no config.json, wanted a checkpoint folder') from e
    except (ValueError, OSError) as e:
        raise CheckpointError(f'{path}: not readable as JSON ({e})') from e
    if not isinstance(fields, dict) or fields.get('model_type') != 'qwen3_vl':
        kind = fields.get('model_type') if isinstance(fields, dict) else type(fields).__name__
        raise CheckpointError(f"{path}: model_type is {kind!r}, wanted 'qwen3_vl'")
    try:
        return DepthVLMConfig.from_dict(fields)
    except Exception as e:  # transformers' checks raise many kinds
        raise CheckpointError(f'{path}: {e}') from e


def shard_files(folder):
    """
    List the safetensors files of a checkpoint.

    :raises CheckpointError: none, an index that names a missing file, or pickles only.
    """
    folder = Path(folder)
    if (folder / SINGLE).is_file():      # which transformers prefers to an index too
        return [folder / SINGLE]
    if (folder / INDEX).is_file():
        try:
            names = sorted(set(json.loads((folder / INDEX).read_text())['weight_map'].values()))
            if not all(isinstance(name, str) for name in names):
                raise TypeError(names)
        except (ValueError, KeyError, AttributeError, TypeError) as e:
            raise CheckpointError(f'{folder / INDEX}: not a shard index ({e!r})') from e
        for name in names:
            if Path(name).name != name or not name.endswith('.safetensors'):
                raise CheckpointError(f'{folder / INDEX}: names {name!r}, '
                                      'wanted safetensors files beside it')
            if not (folder / name).is_file():
                raise CheckpointError(f'{folder}: {name} is missing, its index names it')
        return [folder / name for name in names]
    if any(folder.glob('*.bin')) or any(folder.glob('*.pt')):
        raise CheckpointError(f'{folder}: has pickled weights only, wanted {SINGLE} '
                              '(pickles can run code and are not read)')
    raise CheckpointError(f'{folder}: has neither {SINGLE} nor {INDEX}')


def stored_shapes(folder):
    """
    Read every stored key and its shape from the files' headers.

    :raises CheckpointError: an unreadable or truncated file, a key stored twice, or numbers that
        are not floating.
    """
    shapes = {}
    for path in shard_files(folder):
        try:
            with safe_open(path, framework='pt') as file:
                for key in file.keys():  # noqa: SIM118, a handle, not a dict
                    if key in shapes:
                        raise CheckpointError(f'{path}: {key} is stored in another file too')
                    stored = file.get_slice(key)
                    if stored.get_dtype() not in FLOATS:
                        raise CheckpointError(f'{path}: {key} is stored as {stored.get_dtype()}, '
                                              f'wanted one of {sorted(FLOATS)}')
                    shapes[key] = tuple(stored.get_shape())
        except (SafetensorError, OSError) as e:
            size = path.stat().st_size if path.exists() else 0
            raise CheckpointError(f'{path}: unreadable or truncated ({size} bytes): {e}') from e
    return shapes


def named(keys):
    """Name the first few of some keys for an error."""
    keys = sorted(keys)
    more = f' and {len(keys) - SHOWN} more' if len(keys) > SHOWN else ''
    return ', '.join(keys[:SHOWN]) + more


@contextmanager
def model_of_config(folder):
    """Turn what building a model raises into an error that names its config.json."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as e:  # torch and transformers raise many kinds
        raise CheckpointError(f'{folder}: no model can be built as config.json describes it '
                              f'({type(e).__name__}: {e})') from e


def check_keys(folder, config):
    """
    Hold the stored keys and shapes against what the configuration asks for.

    :raises CheckpointError: no depth head; missing or unexpected keys; a wrong shape.
    """
    with torch.device('meta'), model_of_config(folder):
        wanted = {k: tuple(v.shape) for k, v in DepthVLM(config).state_dict().items()}
    stored = stored_shapes(folder)
    if not any(key.startswith('depth_head.') for key in stored):
        raise CheckpointError(
            f'{folder}: has no depth_head keys: this is a plain Qwen3-VL, wanted a DepthVLM '
            'checkpoint (a plain one is only a start for training)')
    match_keys(folder, stored, wanted, config.tie_word_embeddings)


def match_keys(folder, stored, wanted, tied):
    """
    Hold stored keys and shapes against wanted ones.

    :param stored: key -> shape.
    :param wanted: key -> shape.
    :param tied: the output layer is the embedding, and may be stored or not.
    :raises CheckpointError: missing or unexpected keys; a wrong shape.
    """
    missing = wanted.keys() - stored.keys() - ({TIED_KEY} if tied else set())
    if missing:
        raise CheckpointError(f'{folder}: lacks {named(missing)}')
    unexpected = stored.keys() - wanted.keys()
    if unexpected:
        raise CheckpointError(f'{folder}: has keys that the model does not know: '
                              f'{named(unexpected)}')
    for key, shape in stored.items():
        if shape != wanted[key]:
            raise CheckpointError(f'{folder}: {key} is {list(shape)}, config.json asks for '
                                  f'{list(wanted[key])}')


def load_tokenizer(folder):
    """
    Load a checkpoint's tokenizer.

    :raises CheckpointError: none there, or not readable.
    """
    try:
        return AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False)
    except Exception as e:  # the tokenizers library raises Exception itself
        raise CheckpointError(f'{folder}: no readable tokenizer ({str(e).partition(chr(10))[0]}), '
                              'wanted tokenizer.json and tokenizer_config.json') from e


def load_model(folder, config, device, dtype):
    """
    Load checked weights, strictly.

    :param device: torch.device.
    :param dtype: torch.dtype.
    :return: DepthVLM in evaluation mode.
    :raises CheckpointError: see check_keys.
    """
    check_keys(folder, config)
    with model_of_config(folder):
        model = DepthVLM.from_pretrained(
            folder, config=config, dtype=dtype, local_files_only=True, use_safetensors=True)
    take_stored_output(model, folder)
    return model.to(device).eval()


def take_stored_output(model, folder):
    """
    Let the configuration say so where an output layer was loaded that is not the embedding.

    transformers takes the stored one, although config.json says that they are tied; saved as
    tied, the model would have another.

    :param folder: named in the warning.
    """
    embedding = model.get_input_embeddings().weight
    if model.config.tie_word_embeddings and model.lm_head.weight is not embedding:
        log.warning('%s: %s is stored and differs from the embedding, though config.json says '
                    'that they are tied: the stored one is used', folder, TIED_KEY)
        for config in (model.config, model.config.text_config):
            config.tie_word_embeddings = False
