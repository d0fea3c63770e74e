# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Look at an installation before anybody debugs it: `ros2 run depthvlm_ros doctor`.

With a topic of images, or `--camera`, it also listens whether images and camera_info arrive and
fit. Exit codes: 0 the node can work, 1 it cannot.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import chain
import re
import sys

from depthvlm_ros.nodes import installation
from depthvlm_ros.nodes.findings import fail, Finding, Level, warn
from depthvlm_ros.nodes.topics import sibling
from depthvlm_ros.options import up_to

# The node's own defaults; its table of parameters loads ROS, which may be what is broken.
MODEL = 'JonnyYu828/DepthVLM-4B'
TRANSPORTS = 'raw', 'compressed'

_TOPIC = re.compile(r'(?!/compressed\Z)[~/]?[A-Za-z]\w*(?:/[A-Za-z]\w*)*', re.ASCII)


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    options = argparse.ArgumentParser(
        prog='doctor', description='Look at an installation, and say what to do about it.',
        epilog='Or topics are remapped as for the node: --camera --ros-args -r '
        'image:=/cam/image_raw -r camera_info:=/cam/info (image/compressed:=, by '
        '--image-transport)')
    options.add_argument('topic', nargs='?',
                         help='listen to this topic of images, and to camera_info beside it; of '
                         'compressed images it is .../compressed')
    options.add_argument('--model', default=MODEL,
                         help="'nano', a folder or a hub id (%(default)s)")
    options.add_argument('--revision', help='of a hub id')
    options.add_argument('--device', default='auto', help="as the node's parameter (%(default)s)")
    options.add_argument('--camera', action='store_true',
                         help='listen to image and camera_info too')
    options.add_argument('--image-transport', choices=TRANSPORTS, default=TRANSPORTS[0],
                         help='with --camera: listen to image or image/compressed (%(default)s)')
    options.add_argument('--rectified', action='store_true',
                         help="the images are rectified already: as the node's rectify false")
    options.add_argument('--seconds', type=up_to(3600), default=5.0,
                         help='how long to listen (%(default)g)')
    return options


def findings(options: argparse.Namespace, ros_args: list[str]) -> Iterator[Finding]:
    """
    Look at everything, one thing after the other.

    :param options: of the command line.
    :param ros_args: '--ros-args' and what follows it.
    """
    yield from installation.check_python()
    yield from installation.check_packages()
    broken = False
    for finding in chain(installation.check_ros(), installation.check_conversions()):
        broken |= finding.level is Level.FAIL
        yield finding
    yield from installation.check_optional()
    yield from installation.check_device(options.device)
    yield from installation.check_model(options.model, options.revision)
    if options.camera and broken:
        yield fail('the camera was not listened to', 'mend what failed above first')
    elif ros_args and not options.camera:
        yield warn('ROS arguments were given, and no camera was listened to',
                   'they are for --camera, which stands before --ros-args')
    elif options.camera:
        # Not above: it needs what was looked at before.
        from depthvlm_ros.nodes.listening import check_camera
        yield from check_camera(options.image_transport, options.seconds, ros_args,
                                options.rectified)


def parted(given: list[str]) -> tuple[list[str], list[str]]:
    """Part the doctor's own arguments from ROS's, which go from each --ros-args to its --."""
    if '--ros-args' not in given:
        return given, []
    at = given.index('--ros-args')
    end = given.index('--', at) if '--' in given[at:] else len(given)
    own, ros_args = parted(given[end + 1:])
    return given[:at] + own, given[at:end] + ros_args


def listening_to_topic(options: argparse.Namespace) -> list[str]:
    """
    Set the options that listen to the topic which was given.

    :return: the ROS arguments that do so, before which the user's own go; none without a topic.
    """
    if not options.topic:
        return []
    images = options.topic.removesuffix('/compressed')
    options.camera = True
    if images != options.topic:
        options.image_transport = 'compressed'
    return ['--ros-args', '-r', f'image:={images}', '-r',
            f'image/compressed:={images}/compressed', '-r',
            f'camera_info:={sibling(images, "camera_info")}', '--']


def main(args: list[str] | None = None) -> int:
    """Print what is found, line by line; return the exit code."""
    own, ros_args = parted(sys.argv[1:] if args is None else list(args))
    options = parser().parse_args(own)
    if options.topic and not _TOPIC.fullmatch(options.topic):
        parser().error(f'topic is {options.topic!r}, wanted a name such as /camera/image_raw')
    ros_args += listening_to_topic(options)
    counts = dict.fromkeys(Level, 0)
    for finding in findings(options, ros_args):
        counts[finding.level] += 1
        print(finding, flush=True)
    broken = counts[Level.FAIL]
    warnings = counts[Level.WARN]
    print(f'{broken} failed, {warnings} warnings' if broken or warnings else 'all is well')
    return 1 if broken else 0


if __name__ == '__main__':
    sys.exit(main())
