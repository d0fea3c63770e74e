# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Lengths in a model's words.

A network that is shown every camera at one focal length cannot know by how much the pixel bounds
and the rounding then missed it: its metres, in words as in depth, are those of the image that it
was shown.
"""

import re

_NUMBER = r'(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)'
_JOINED = r' ?(?:[-–—×x]|to|or|by) ?'   # several numbers before one unit: ranges, sizes
_UNIT = r'(?:[kcm]?m|(?:kilo|centi|milli)?met(?:re|er)s?)\b(?![/^²³])'
_BEGINS = r'(?<![\w.,])(?<!\w-)'        # no place within a number or a name
_LENGTHS = re.compile(
    rf'{_BEGINS}((?<=\bbetween ){_NUMBER} and {_NUMBER}|{_NUMBER}(?:{_JOINED}{_NUMBER}){{0,3}})'
    rf' ?{_UNIT}', re.IGNORECASE)

# At the end of a text: numbers, and after the last one what may become a unit or a joining word.
_DIGITS = r'[.\d][.,\d]*'
# ('and' joins lengths only behind 'between', but what follows it must be seen to know.)
_JOINING = r' ?(?:[-–—×x]|to|and|or|by) ?'
_UNFINISHED = re.compile(
    rf'{_BEGINS}{_DIGITS}(?:{_JOINING}{_DIGITS}){{0,3}}(?:{_JOINING}| ?[^\W\d]*)\Z',
    re.IGNORECASE)


def scaled(text, factor, unfinished=False):
    """
    Multiply the lengths in a text; each keeps its number of decimals.

    :param text: such as 'The red box is 2.31 m away.', '2 to 3 metres' or '150 cm'; numbers
        without a unit of length stay.
    :param unfinished: the text goes on: leave out a number at its end with what may be the
        beginning of its unit, or of a second number before that.
    """
    if factor == 1:
        return text
    if unfinished:
        text = _UNFINISHED.sub('', text)

    def multiplied(found):
        number = found[0].replace(',', '')
        comma = ',' if ',' in found[0] else ''
        return f'{float(number) * factor:{comma}.{len(number.partition(".")[2])}f}'

    return _LENGTHS.sub(lambda found: re.sub(_NUMBER, multiplied, found[1])
                        + found[0][len(found[1]):], text)
