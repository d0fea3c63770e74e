# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Lengths in a model's words.

A network that is shown every camera at one focal length cannot know by how much the pixel bounds
and the rounding then missed it: its metres, in words as in depth, are those of the image that it
was shown.
"""

import re

METRES = r'(?<![\w.,-])(\d*\.?\d+) ?m(?:et(?:re|er)s?)?\b(?![/^²³])'
_METRES = re.compile(METRES)
_UNFINISHED = re.compile(r'(?<![\w.,-])\d*\.?\d*\s?$')


def scaled(text, factor, unfinished=False):
    """
    Multiply the metres in a text; each keeps its number of decimals.

    :param text: such as 'The red box is 2.31 m away.'; numbers without a unit stay.
    :param unfinished: the text goes on: leave out a number at its end, whose unit may follow.
    """
    if factor == 1:
        return text
    if unfinished:
        text = _UNFINISHED.sub('', text)
    return _METRES.sub(lambda found: found[0].replace(
        found[1], f'{float(found[1]) * factor:.{len(found[1].partition(".")[2])}f}', 1), text)
