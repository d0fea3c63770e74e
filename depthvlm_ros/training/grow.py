# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Make a checkpoint deeper without changing what it computes, to train it on.

`python -m depthvlm_ros.training.grow --start nano --out FOLDER --vision-after 0 2 4 --text 1`:
new blocks of the vision tower behind the ones named, new layers behind the language model's last.
Their last matrices are zero, so that each begins as the identity beside its shortcut.
"""

import argparse
import json
import re

from depthvlm_ros.model import DepthVLM, DepthVLMConfig
from depthvlm_ros.model.checkpoint import CheckpointError
from depthvlm_ros.training.config import TrainingConfig
from depthvlm_ros.training.start import load_start
from depthvlm_ros.training.state import save_checkpoint
import torch

BLOCK = re.compile(r'(model\.visual\.blocks\.)(\d+)(\..*)')
ENDS = {'model.visual.blocks.': ('attn.proj.weight', 'attn.proj.bias',
                                 'mlp.linear_fc2.weight', 'mlp.linear_fc2.bias'),
        'model.language_model.layers.': ('self_attn.o_proj.weight', 'mlp.down_proj.weight')}


def grow(model, vision_after=(), text_layers=0, seed=0):
    """
    Build a deeper model that computes the same.

    :param model: DepthVLM.
    :param vision_after: numbers of the vision blocks behind each of which a new one is put.
    :param text_layers: how many layers are put behind the language model's last.
    :param seed: of the new weights that are not zero.
    :return: DepthVLM, float32.
    :raises ValueError: a block that is not there or named twice, or fewer than no layers.
    """
    depth = model.config.vision_config.depth
    if sorted(set(vision_after) & set(range(depth))) != sorted(vision_after) or text_layers < 0:
        raise ValueError(f'new vision blocks behind {list(vision_after)} and {text_layers} text '
                         f'layers, wanted different blocks of 0 to {depth - 1} and >= 0 layers')
    moved = [old + sum(after < old for after in vision_after) for old in range(depth)]
    fields = json.loads(json.dumps(model.config.to_dict()))
    vision, text = fields['vision_config'], fields['text_config']
    vision['depth'] = depth + len(vision_after)
    vision['deepstack_visual_indexes'] = [
        moved[old] for old in vision['deepstack_visual_indexes']]
    text['num_hidden_layers'] += text_layers
    for key in ('layer_types', 'mlp_only_layers'):
        text.pop(key, None)     # follow from the number of layers
    torch.manual_seed(seed)
    grown = DepthVLM(DepthVLMConfig.from_dict(fields))
    weights = grown.state_dict()
    for key, value in model.state_dict().items():
        match = BLOCK.fullmatch(key)
        key = f'{match[1]}{moved[int(match[2])]}{match[3]}' if match else key
        weights[key].copy_(value)
    fresh = {'model.visual.blocks.': set(range(vision['depth'])) - set(moved),
             'model.language_model.layers.': range(text['num_hidden_layers'] - text_layers,
                                                   text['num_hidden_layers'])}
    for stack, numbers in fresh.items():
        for number in numbers:
            for end in ENDS[stack]:
                weights[f'{stack}{number}.{end}'].zero_()
    grown.load_state_dict(weights)
    return grown


def main(args=None):
    """Parse the command line, grow, save."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0].strip())
    parser.add_argument('--start', required=True, help="'nano', a folder or a hub id")
    parser.add_argument('--out', required=True, help='folder of the deeper checkpoint')
    parser.add_argument('--vision-after', type=int, nargs='*', default=[], metavar='BLOCK',
                        help='vision blocks behind each of which a new one is put')
    parser.add_argument('--text', type=int, default=0, help='new layers of the language model')
    options = parser.parse_args(args)
    try:
        model, tokenizer, _ = load_start(TrainingConfig(start=options.start))
        grown = grow(model, options.vision_after, options.text)
    except (CheckpointError, ValueError) as e:
        parser.error(str(e))
    save_checkpoint(grown, tokenizer, options.out, torch.float32)
    print(f'{sum(p.numel() for p in grown.parameters()):,} parameters in {options.out}')


if __name__ == '__main__':
    main()
