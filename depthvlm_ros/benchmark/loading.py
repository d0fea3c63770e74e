# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How the model to be judged is loaded: options that the benchmarks of accuracy share."""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass

from depthvlm_ros.options import at_least


@dataclass(frozen=True)
class Loading:
    """
    How a DepthVLM is loaded, as Predictor.from_pretrained takes it.

    :param dtype: what it computes in.
    :param quantise: 'int8' or 'int4' weights, '' for those of dtype.
    :param max_image_tokens: most image tokens, 0 for no bound but the checkpoint's.
    """

    dtype: str = 'auto'
    quantise: str = ''
    max_image_tokens: int = 0

    @classmethod
    def of(cls, options: argparse.Namespace) -> Loading:
        """Return what a command line that has `add_loading` says."""
        return cls(options.dtype, options.quantise, options.max_image_tokens)

    def as_dict(self) -> dict:
        """Return the fields by name."""
        return asdict(self)

    def changed(self) -> list[str]:
        """Return the command line's names of those that are not as they are by default."""
        plain = type(self)().as_dict()
        return ['--' + name.replace('_', '-') for name, value in self.as_dict().items()
                if value != plain[name]]


PLAIN = Loading()


def add_loading(parser: argparse.ArgumentParser) -> None:
    """Add the options: --dtype, --quantise and --max-image-tokens, as the node's parameters."""
    parser.add_argument('--dtype', default='auto',
                        help='float32, bfloat16 or float16; auto: bfloat16 on a GPU, else float32')
    parser.add_argument('--quantise', default='', metavar='KIND',
                        help='int8 or int4: weights of so many bits, through torchao')
    parser.add_argument('--max-image-tokens', type=at_least(0), default=0, metavar='N',
                        help='most image tokens; 0: as many as the checkpoint allows')
