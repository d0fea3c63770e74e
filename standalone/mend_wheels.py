# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Mend the CMake exports of the ROS 2 message wheels in the environment that runs this.

They name two include folders of the machine they were built on (Python's and NumPy's, below
/opt/python), and CMake refuses to generate while an imported target names a folder that is not
there. Nothing needs those two here, so they are taken out. Running it again changes nothing.
"""

from pathlib import Path
import re
import sys

BUILD_MACHINE_FOLDER = re.compile(r'/opt/python/cp[^;"]*;?')
INCLUDE_LINE = re.compile(r'^\s*INTERFACE_INCLUDE_DIRECTORIES ".*"$', re.MULTILINE)


def mend(text):
    """Return a CMake export file's text without the build machine's include folders."""
    return INCLUDE_LINE.sub(lambda line: BUILD_MACHINE_FOLDER.sub('', line.group()), text)


def main():
    """Mend every export file of this environment, in place."""
    for path in Path(sys.prefix).glob('share/*/cmake/*Export.cmake'):
        text = path.read_text()
        if (mended := mend(text)) != text:
            path.write_text(mended)


if __name__ == '__main__':
    main()
