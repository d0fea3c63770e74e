# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The door of an environment whose ROS 2 comes from wheels.

`pip install --no-build-isolation .` runs CMakeLists.txt against that environment and packs what it
installs, file by file, into a wheel. With a ROS 2 install, colcon runs CMakeLists.txt itself and
this file has no part.
"""

import os
from pathlib import Path
import re
import shutil
import subprocess
import sys

from setuptools import Distribution, setup
from setuptools.command.build import build

SOURCE = Path(__file__).resolve().parent
NAME, VERSION = (
    re.search(rf'<{tag}>(.+?)</{tag}>', (SOURCE / 'package.xml').read_text()).group(1)
    for tag in ('name', 'version'))


class CMakeBuild(build):
    """Configure, build and install into a staging folder, then sort by where a wheel has it."""

    def run(self):
        build_folder = Path(self.build_temp).resolve()
        staging = build_folder / 'staging'
        shutil.rmtree(staging, ignore_errors=True)
        prefix = Path(sys.prefix)
        subprocess.run([sys.executable, SOURCE / 'standalone/mend_wheels.py'], check=True)
        # Only this environment's ROS: one from a sourced shell would be another build of it.
        environment = {**os.environ, 'AMENT_PREFIX_PATH': str(prefix),
                       'CMAKE_PREFIX_PATH': str(prefix), 'DESTDIR': str(staging),
                       'PATH': f'{prefix / "bin"}:{os.environ["PATH"]}'}
        for command in (
                ['cmake', '-S', SOURCE, '-B', build_folder / 'cmake', '-DBUILD_TESTING=OFF',
                 f'-DCMAKE_INSTALL_PREFIX={prefix}', f'-DPython3_EXECUTABLE={sys.executable}'],
                ['cmake', '--build', build_folder / 'cmake', '--parallel'],
                ['cmake', '--install', build_folder / 'cmake']):
            command[0] = shutil.which(command[0], path=environment['PATH']) or command[0]
            subprocess.run(command, check=True, env=environment)
        self.sort_into_wheel(staging / prefix.relative_to('/'))

    def sort_into_wheel(self, installed):
        """Copy the Python package to build_lib; give all else to the wheel as data files."""
        site = next(installed.glob(f'lib/python*/site-packages/{NAME}')).parent
        shutil.copytree(site, self.build_lib, dirs_exist_ok=True,
                        ignore=shutil.ignore_patterns('*.egg-info', '__pycache__'))
        data_files = {}
        for path in sorted(installed.rglob('*')):
            if path.is_file() and site not in path.parents:
                folder = str(path.parent.relative_to(installed))
                data_files.setdefault(folder, []).append(os.path.relpath(path, SOURCE))
        self.distribution.data_files = list(data_files.items())


class CompiledDistribution(Distribution):
    """A distribution whose wheel is of one platform and one Python."""

    def has_ext_modules(self):
        return True


setup(
    name=NAME,
    version=VERSION,
    description='Metric depth, point clouds and answers to spatial questions for ROS 2 (DepthVLM)',
    license='Apache-2.0',
    python_requires='>=3.10',
    install_requires=[line for name in ('requirements.txt', 'requirements-python.txt')
                      for line in (SOURCE / name).read_text().splitlines()
                      if not line.startswith('#')],
    packages=[],
    distclass=CompiledDistribution,
    cmdclass={'build': CMakeBuild},
)
