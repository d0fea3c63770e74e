# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A file of JSON lines, read where it is needed: a record costs 16 bytes."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np

PART = 1 << 20      # bytes of a file's begin and of its end that tell it from others


class JsonLines:
    """
    The records of a file, by number.

    :param path: a file with one JSON value a line; blank lines do not count.
    :raises ValueError: no such file, or no record in it.
    """

    def __init__(self, path):
        self.path = Path(path)
        if not self.path.is_file():
            raise ValueError(f'{self.path}: no such file, wanted JSON lines')
        starts, lines, at = [], [], 0
        with open(self.path, 'rb') as file:
            for number, line in enumerate(file):
                if line.strip():
                    starts.append(at)
                    lines.append(number)
                at += len(line)
        if not starts:
            raise ValueError(f'{self.path}: is empty, wanted at least one record')
        self._starts = np.array(starts, np.int64)
        self._lines = np.array(lines, np.int64)
        if self._is_one_list():
            raise ValueError(f'{self.path}: is one JSON list, wanted JSON lines, such as '
                             f'`jq -c ".[]" {self.path.name}` makes of it')

    def __len__(self):
        return len(self._starts)

    def __getitem__(self, index):
        """
        Read a record.

        :raises ValueError: a line that is not JSON.
        """
        with open(self.path, 'rb') as file:
            file.seek(self._starts[index])
            line = file.readline()
        try:
            return json.loads(line)
        except (ValueError, RecursionError) as e:
            raise ValueError(f'{self.path.name} line {self.line(index) + 1}: not JSON '
                             f'({e or type(e).__name__})') from e

    def _is_one_list(self):
        """Tell whether the file is not lines of objects but one list of them."""
        with open(self.path, 'rb') as file:
            if not file.read(1 << 12).lstrip(b'\xef\xbb\xbf \t\r\n').startswith(b'['):
                return False
        try:
            return any(isinstance(one, dict) for one in self[0]) and len(self) == 1
        except ValueError:      # its first line is no JSON by itself
            return True

    @property
    def identity(self):
        """Return what tells the file's content from most others': its size, begin and end."""
        with open(self.path, 'rb') as file:
            content = hashlib.sha256(file.read(PART))
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - PART))
            content.update(file.read(PART))
        return f'{len(self)} records in {size} bytes, {content.hexdigest()[:12]}'

    def line(self, index):
        """Return the number, from 0, of a record's line in the file."""
        return int(self._lines[index])
