# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a training run is: one frozen record, read from a YAML file."""

from dataclasses import dataclass, field, fields
from pathlib import Path

import yaml

CONFIGS = Path(__file__).resolve().parent / 'configs'


@dataclass(frozen=True)
class TrainingConfig:
    """
    A run on synthetic rooms, from scratch.

    :param model: DepthVLMConfig's fields.
    :param vocab_size: of the tokenizer that is learnt from the rooms' questions.
    :param steps: optimiser steps in all.
    :param batch_size: images a step, all of one camera.
    :param questions: most questions asked about an image in a step.
    :param kinds: how often each kind of question is drawn, relative; a kind left out never is.
    :param learning_rate: peak.
    :param warm_up: steps of linear rise.
    :param decay: share of the steps, the last ones, in which the rate falls to zero.
    :param weight_decay: of matrices.
    :param clip: norm to which gradients are clipped.
    :param log_l1_weight: of the log L1 depth loss beside SILog.
    :param depth_weight: of the depth loss beside the language loss.
    :param naming_weight: of naming the object in each image token, a help for pointing that is
        no part of the model.
    :param native_px: narrowest and widest camera image rendered.
    :param seed: of weights and rooms.
    :raises ValueError: a value outside its range.
    """

    model: dict
    vocab_size: int = 640
    steps: int = 6000
    batch_size: int = 8
    questions: int = 6
    kinds: dict = field(default_factory=dict)
    learning_rate: float = 2e-3
    warm_up: int = 200
    decay: float = 0.3
    weight_decay: float = 0.05
    clip: float = 1.0
    log_l1_weight: float = 0.3
    depth_weight: float = 1.0
    naming_weight: float = 0.2
    native_px: tuple[int, int] = (240, 400)
    seed: int = 42

    def __post_init__(self):
        for name in ('vocab_size', 'steps', 'batch_size', 'questions'):
            if getattr(self, name) < 1:
                raise ValueError(f'{name} is {getattr(self, name)}, wanted >= 1')
        for name in ('learning_rate', 'clip'):
            if not getattr(self, name) > 0:
                raise ValueError(f'{name} is {getattr(self, name)}, wanted > 0')
        if not 0 <= self.decay <= 1:
            raise ValueError(f'decay is {self.decay}, wanted a share in [0, 1]')

    @classmethod
    def load(cls, name):
        """
        Read a configuration: a YAML file, or the name of one in the tree ('nano').

        :raises ValueError: no such file, or a key that is not known.
        """
        path = Path(name) if str(name).endswith('.yaml') else CONFIGS / f'{name}.yaml'
        if not path.is_file():
            known = sorted(p.stem for p in CONFIGS.glob('*.yaml'))
            raise ValueError(f"config '{name}': no such file, wanted a .yaml or one of {known}")
        values = yaml.safe_load(path.read_text())
        unknown = values.keys() - {f.name for f in fields(cls)}
        if unknown:
            raise ValueError(f'{path}: does not know {sorted(unknown)}')
        if 'native_px' in values:
            values['native_px'] = tuple(values['native_px'])
        return cls(**values)
