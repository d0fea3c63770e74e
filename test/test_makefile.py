# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What make hands on to the programs that it runs."""

import os
from pathlib import Path
import shlex
import shutil
import subprocess

import pytest

SOURCE = Path(__file__).parents[1]


@pytest.mark.skipif(shutil.which('make') is None, reason='needs make')
def test_a_photo_and_its_calibration_may_be_called_anything():
    names = {'IMAGE': "Mum's photo.jpg", 'INFO': 'camera 1 (new).yaml', 'OUT': 'a;b "c"'}
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith(('MAKE', 'MFLAGS'))}
    run = subprocess.run(
        ['make', '--dry-run', 'demo', *(f'{name}={value}' for name, value in names.items())],
        cwd=SOURCE, env=environment, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    command = shlex.split(run.stdout.replace('\\\n', ' ').splitlines()[-1])
    options = dict(zip(command, command[1:], strict=False))
    assert [options[f'--{name.lower()}'] for name in names] == list(names.values())
