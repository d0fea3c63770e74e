# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
What one frame costs the node, step by step: `python -m depthvlm_ros.nodes.frame_profile`.

One image goes many times the way that depth_node takes it, from the bytes that DDS delivers to
the bytes that DDS is given; each step is timed by itself. It prints the median of every step, and
of all that is not the model, and ends with a line of JSON. Nothing is sent to anybody.
"""

from __future__ import annotations

import argparse
from contextlib import contextmanager
import json
import sys
import time

from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.geometry import valid_range
from depthvlm_ros.nodes.memory import settle_malloc
from depthvlm_ros.options import at_least
import numpy as np

MODEL = 'model'
# A lens as wide cameras have it, so that there is something to rectify.
DISTORTION = [-0.12, 0.03, 0.0005, -0.0003, 0.0]


class Clock:
    """Collects how long each step took, in s."""

    def __init__(self):
        self.spent_s: dict[str, list[float]] = {}

    @contextmanager
    def step(self, name: str):
        """Time what is done within."""
        began_s = time.perf_counter()
        yield
        self.spent_s.setdefault(name, []).append(time.perf_counter() - began_s)

    def medians_ms(self) -> dict[str, float]:
        """Return each step's median, in the order in which they were first made."""
        return {name: 1e3 * float(np.median(spent)) for name, spent in self.spent_s.items()}


def profile(predictor, intrinsics: Intrinsics, repeats: int, stride: int = 1) -> dict[str, float]:
    """
    Take frames through all steps.

    :param predictor: model.Predictor.
    :param intrinsics: the camera.
    :param repeats: how many frames are timed.
    :param stride: of the cloud, px.
    :return: each step's median, ms.
    """
    from depthvlm_ros.nodes import conversions
    from depthvlm_ros.nodes.clouds import Clouds, TRIALS
    from depthvlm_ros.nodes.filling import image_message
    from rclpy.serialization import deserialize_message, serialize_message
    from sensor_msgs.msg import CameraInfo, Image
    from std_msgs.msg import Header
    header = Header(frame_id='camera_optical_frame')
    rgb = np.random.default_rng(0).integers(
        0, 256, (intrinsics.height, intrinsics.width, 3), dtype=np.uint8)
    info = conversions.info_from_intrinsics(intrinsics, header)
    info.d = DISTORTION
    image_bytes = serialize_message(image_message(rgb, 'rgb8', header))
    info_bytes = serialize_message(info)
    clock, clouds = Clock(), Clouds.of(predictor.device)
    for number in range(repeats + TRIALS):
        if number == TRIALS:
            clock = Clock()     # the first frames warm up: maps, tables, pages
        with clock.step('deserialise the image'):
            message = deserialize_message(image_bytes, Image)
        with clock.step('deserialise and read camera_info'):
            calibration = conversions.calibration_from_info(
                deserialize_message(info_bytes, CameraInfo))
        with clock.step('convert to RGB'):
            picture = conversions.rgb_from_image(message)
        with clock.step('rectify'):
            maps = calibration.rectification()
            picture = maps.apply(picture)
        with clock.step(MODEL):     # with the upload of the image and the download of the depth
            seen = predictor.look(picture, calibration.intrinsics)
        with clock.step('range and mask'):
            depth_m = valid_range(seen.depth_m, 0.0, 0.0)
            depth_m[~maps.valid] = np.nan
        with clock.step('make the depth image'):
            depth = conversions.depth_image(depth_m, '32FC1', header)
        with clock.step('make the cloud'):
            cloud = clouds.message(depth_m, picture, calibration.intrinsics, header, stride)
        with clock.step('make the picture'):
            colours = conversions.colour_picture(depth_m, header)
        for name, made in (('depth image', depth), ('cloud', cloud), ('picture', colours)):
            with clock.step(f'serialise the {name}'):
                serialize_message(made)
    return clock.medians_ms()


def main(args: list[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[1])
    parser.add_argument('--model', default='nano', help="'nano', a folder or a hub id")
    parser.add_argument('--device', default='auto')
    parser.add_argument('--size', type=at_least(1), nargs=2, default=[640, 480],
                        metavar=('W', 'H'))
    parser.add_argument('--fx', type=float, default=525.0, metavar='PX')
    parser.add_argument('--stride', type=at_least(1), default=1, help='of the cloud, px')
    parser.add_argument('--repeats', type=at_least(1), default=50)
    options = parser.parse_args(args)
    settle_malloc()     # as the node does
    from depthvlm_ros.benchmark.provenance import provenance
    from depthvlm_ros.model import CheckpointError, Predictor
    try:
        predictor = Predictor.from_pretrained(options.model, device=options.device)
        camera = Intrinsics.centred(*options.size, options.fx)
    except (CheckpointError, ValueError) as error:
        sys.stderr.write(f'{error}\n')
        return 1
    steps_ms = profile(predictor, camera, options.repeats, options.stride)
    rest_ms = sum(ms for name, ms in steps_ms.items() if name != MODEL)
    for name, ms in (*steps_ms.items(), ('all but the model', rest_ms)):
        print(f'{name:34s} {ms:8.2f} ms')
    print(json.dumps({'model': options.model, 'size': options.size, 'stride': options.stride,
                      'steps_ms': steps_ms, 'rest_ms': rest_ms,
                      **provenance(predictor.device)}))
    return 0


if __name__ == '__main__':
    sys.exit(main())
