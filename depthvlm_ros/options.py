# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
What the command lines ask of their numbers, as types for argparse.

argparse turns a refusal into a line that names the option and an exit code of 2.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable


def at_least(least: int) -> Callable[[str], int]:
    """
    Return an argparse type that takes whole numbers from `least` on.

    :raises argparse.ArgumentTypeError: by the type, for a smaller number.
    """
    def whole(text: str) -> int:
        number = int(text)
        if number < least:
            raise argparse.ArgumentTypeError(f'{text!r}, wanted >= {least}')
        return number
    whole.__name__ = 'int'      # argparse names the type where int() refuses the text
    return whole


def up_to(most: float) -> Callable[[str], float]:
    """
    Return an argparse type that takes numbers above 0 and up to `most`.

    :raises argparse.ArgumentTypeError: by the type, for another number, NaN among them.
    """
    def positive(text: str) -> float:
        number = float(text)
        if not 0 < number <= most:
            raise argparse.ArgumentTypeError(f'{text!r}, wanted more than 0, at most {most:g}')
        return number
    positive.__name__ = 'float'
    return positive
