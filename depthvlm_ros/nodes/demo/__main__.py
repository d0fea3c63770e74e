# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Run the demonstration: `python -m depthvlm_ros.nodes.demo --out demo_output`.

A camera node and the depth node run as two processes; this one watches, measures and asks, and
leaves depth.png, cloud.ply and summary.json. It ends by itself.
"""

from __future__ import annotations

import argparse
from pathlib import Path
import signal
import sys

from depthvlm_ros.nodes.demo.node_process import stay_on_this_machine
from depthvlm_ros.options import up_to


def parsed(args: list[str] | None) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        prog='python -m depthvlm_ros.nodes.demo',
        description='Watch a camera and the depth node at work, and ask about what is seen.')
    parser.add_argument('--out', type=Path, default=Path('demo_output'), metavar='FOLDER',
                        help='where the picture, the cloud and the figures go (%(default)s)')
    parser.add_argument('--image', metavar='PATH',
                        help='a photo, a folder of photos or a video instead of synthetic rooms')
    camera = parser.add_mutually_exclusive_group()
    camera.add_argument('--fx', type=float, default=0.0, metavar='PX',
                        help="focal length of the photo's camera in px of the photo")
    camera.add_argument('--info', default='', metavar='YAML',
                        help="ROS calibration file of the photo's camera")
    parser.add_argument('--seconds', type=up_to(3600), default=10.0,
                        help='how long to measure (%(default)s)')
    parser.add_argument('--model', default='nano',
                        help="'nano', a folder, or a hub id (%(default)s)")
    parser.add_argument('--device', default='auto', help='where the model runs (%(default)s)')
    parser.add_argument('--seed', type=int, default=7, help='which synthetic room (%(default)s)')
    options = parser.parse_args(args)
    if not options.image and (options.fx or options.info):
        parser.error('--fx and --info describe the camera of --image, which is missing')
    return options


def main(args: list[str] | None = None) -> int:
    """Run the demo and return the exit code: 0, 1 where it failed, 2 where asked wrongly."""
    options = parsed(args)
    stay_on_this_machine(options.out / 'logs')
    # Clean up as after Ctrl-C, which a script's background job would be deaf to.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    from depthvlm_ros.nodes.demo.performance import DemoError, perform  # after the environment
    try:
        perform(options)
    except DemoError as error:
        print(f'demo: {error}', file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print('demo: interrupted', file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
