# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Make a checkpoint deeper, or its vision tower wider, to train it on.

`python -m depthvlm_ros.training.grow --start nano --out FOLDER --vision-after 0 2 4 --text 1`:
new blocks of the vision tower behind the ones named, new layers behind the language model's last.
Their last matrices are zero, so that each begins as the identity beside its shortcut and what is
computed stays the same. `--twice-as-wide` doubles the vision tower's width (after Net2Net, arXiv
1511.05641), which changes it a little, by noise that tells the copies apart.
"""

import argparse
import json
from pathlib import Path
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

# Of the copies of a channel, as shares of what stands there.
WRITTEN_NOISE, READ_NOISE = 0.2, 0.2


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


def widen(model, intermediate_size, seed=0):
    """
    Build a model whose vision tower is twice as wide and computes nearly the same.

    Every channel stands twice, its copies with opposite noise where they are written, and each
    is read by half: their sum is what the channel was, their difference is room for what is to
    be learnt. Heads become twice as wide; their new parts, and new hidden units, are written but
    not read yet.

    :param model: DepthVLM.
    :param intermediate_size: new width of the blocks' MLPs, at least the old one.
    :param seed: of the noise and of the new weights.
    :return: DepthVLM, float32.
    :raises ValueError: a narrower MLP.
    """
    fields = json.loads(json.dumps(model.config.to_dict()))
    vision = fields['vision_config']
    if intermediate_size < vision['intermediate_size']:
        raise ValueError(f'the MLP is to be {intermediate_size} wide, wanted at least the '
                         f"{vision['intermediate_size']} that it is")
    old, heads = vision['hidden_size'], vision['num_heads']
    vision['hidden_size'], vision['intermediate_size'] = 2 * old, intermediate_size
    torch.manual_seed(seed)
    wide = DepthVLM(DepthVLMConfig.from_dict(fields))
    weights = wide.state_dict()
    twice = _Twice(old, old // heads)
    for key, value in model.state_dict().items():
        name = key.removeprefix('model.visual.')
        if name != key:
            value = twice.of(name, value.float(), weights[key])
        weights[key].copy_(value)
    wide.load_state_dict(weights)
    return wide


class _Twice:
    """
    The vision tower's weights at twice its width.

    :param hidden: the old width.
    :param head: the old width of a head.
    """

    def __init__(self, hidden, head):
        self.hidden = hidden
        # A head's rotary angles are rows' and columns' in turn, both twice; at twice its width
        # every second angle is an old one.
        angle = torch.arange(head // 4) * 2
        half = torch.cat([angle, head // 2 + angle])
        self.in_head = torch.cat([half, head + half])
        self.head = head

    def of(self, name, value, fresh):
        """
        Return a weight at twice the width.

        :param name: its name within the tower.
        :param value: the old weight.
        :param fresh: a random one of the new shape.
        """
        if 'norm' in name:
            return value.view(-1, self.hidden).repeat(1, 2).flatten()
        if name == 'pos_embed.weight':
            return self.written(value.T).T
        if name.startswith('patch_embed') or name.endswith('mlp.linear_fc2.bias'):
            return self.written(value)
        if 'merger' in name or 'mlp' in name:
            return self.mlp(name, value, fresh)
        if 'qkv' in name:
            return self.qkv(value, fresh)
        if name.endswith('attn.proj.weight'):
            return self.written(self.spread(value, torch.zeros(len(value), 2 * self.hidden), 1))
        if name.endswith('attn.proj.bias'):
            return self.written(value)
        raise ValueError(f'{name} is not known, wanted a weight of the vision tower')

    def mlp(self, name, value, fresh):
        """Return a weight of an MLP, whose old hidden units come first."""
        first, bias = 'fc1' in name, name.endswith('bias')
        if bias:
            return torch.cat([value, torch.zeros(len(fresh) - len(value))])
        if first:
            return torch.cat([self.read(value), fresh[len(value):] * value.std() / fresh.std()])
        value = torch.cat([value, torch.zeros(len(value), fresh.shape[1] - value.shape[1])], 1)
        return value if len(value) == len(fresh) else self.written(value)

    def qkv(self, value, fresh):
        """Return queries, keys and values: queries of the new parts are zero."""
        fresh = fresh.clone()
        if value.ndim == 2:
            value = self.read(value)
            fresh *= value.std() / fresh.std()
        query, key, val = value.chunk(3)
        parts = fresh.zero_().chunk(3) if value.ndim == 1 else fresh.chunk(3)
        # The products are divided by the root of a head's width.
        return torch.cat([self.spread(query * 2 ** 0.5, torch.zeros_like(parts[0]), 0),
                          self.spread(key, parts[1], 0), self.spread(val, parts[2], 0)])

    def spread(self, value, fresh, dim):
        """Put heads of the old width into those of the new one."""
        value, fresh = value.unflatten(dim, (-1, self.head)), fresh.unflatten(
            dim, (-1, 2 * self.head))
        return fresh.index_copy(dim + 1, self.in_head, value).flatten(dim, dim + 1)

    def written(self, value):
        """Return what writes channels, (hidden, ...), at twice the width."""
        noise = WRITTEN_NOISE * value.std() * torch.randn_like(value)
        return torch.cat([value + noise, value - noise])

    def read(self, value):
        """Return what reads channels, (..., n * hidden), at twice the width."""
        value = value.unflatten(-1, (-1, self.hidden)) / 2
        noise = READ_NOISE * value.std() * torch.randn_like(value)
        return torch.cat([value + noise, value - noise], -1).flatten(-2)


def main(args=None):
    """Parse the command line, grow, save."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0].strip())
    parser.add_argument('--start', required=True, help="'nano', a folder or a hub id")
    parser.add_argument('--out', required=True, help='folder of the grown checkpoint')
    parser.add_argument('--vision-after', type=int, nargs='*', default=[], metavar='BLOCK',
                        help='vision blocks behind each of which a new one is put')
    parser.add_argument('--text', type=int, default=0, help='new layers of the language model')
    parser.add_argument('--twice-as-wide', type=int, metavar='MLP', default=0,
                        help='double the vision tower, and give its MLPs this width')
    options = parser.parse_args(args)
    if (Path(options.out) / 'config.json').exists():
        parser.error(f'--out {options.out} holds a checkpoint, which would be overwritten; wanted '
                     'another folder')
    try:
        model, tokenizer, _ = load_start(TrainingConfig(start=options.start))
        grown = grow(model, options.vision_after, options.text)
        if options.twice_as_wide:
            grown = widen(grown, options.twice_as_wide)
        save_checkpoint(grown, tokenizer, options.out, torch.float32)
    except (CheckpointError, ValueError, OSError) as e:
        parser.error(str(e))
    print(f'{sum(p.numel() for p in grown.parameters()):,} parameters in {options.out}')


if __name__ == '__main__':
    main()
