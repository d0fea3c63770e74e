# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The node `camera`: images with their calibration, from rooms, photos or a video.

It stands in for a driver where there is no camera. From synthetic rooms it also publishes the
true depth and the camera's pose, with the stamps of the images.
"""

from __future__ import annotations

import math
import sys

from depthvlm_ros.camera import Calibration
from depthvlm_ros.nodes.calibration_sources import CameraNumbers
from depthvlm_ros.nodes.filling import image_message
from depthvlm_ros.nodes.image_sources import CameraFrame, ImageSource, open_source, SYNTHETIC
from depthvlm_ros.nodes.parameters import warn_of_unknown
from depthvlm_ros.nodes.poses import pose_message
from geometry_msgs.msg import PoseStamped
import numpy as np
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
import rclpy
from rclpy.duration import Duration
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.task import Future
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

WORLD_FRAME = 'world'
FIRST_SUBSCRIBER_S = 5.0    # how long a finite sequence waits for one
LAST_FRAME_S = 2.0          # how long the last frames of one may take to arrive
QUEUE_DEPTH = 5

# name: (default, description, range of the value or None)
PARAMETERS = {
    'source': (SYNTHETIC, "What to show: 'synthetic', or the path of a photo, of a folder of "
               'photos (in the order of their names) or of a video', None),
    'seed': (7, 'Which synthetic room', (0, 2 ** 31 - 1)),
    'split': ('held_out', "Which synthetic rooms: 'held_out', or those that models train on, "
              "'train'", None),
    'moving': (True, 'The camera walks through the synthetic room', None),
    'width': (0, 'Width of the published images in px; 0: 640 for rooms, else the '
              "calibration's or the file's own", (0, 16384)),
    'height': (0, 'Height of the published images in px; 0: 480 for rooms, else the '
               "calibration's or the file's own", (0, 16384)),
    'fx': (0.0, 'Focal length along u in px of the image file; 0: 60 degrees across for rooms, '
           'the EXIF of a photo where it has one', (0.0, 1e6)),
    'fy': (0.0, 'Focal length along v in px of the image file; 0: fx', (0.0, 1e6)),
    'cx': (-1.0, 'Principal point along u in px of the image file; negative: the centre',
           (-1.0, 1e6)),
    'cy': (-1.0, 'Principal point along v in px of the image file; negative: the centre',
           (-1.0, 1e6)),
    'calibration_file': ('', 'ROS calibration YAML of the camera, for images of their own size; '
                         "'': none", None),
    'rate': (0.0, "Frames a second; 0: a video's own, 10 for everything else", (0.0, 1000.0)),
    'loop': (True, 'Begin again after the last photo or frame of a video; false: end', None),
    'frames': (0, 'How many frames to publish before ending; 0: without end', (0, 2 ** 31 - 1)),
    'frame_id': ('camera_optical_frame', 'Frame of the images: x right, y down, z forward', None),
}


class CameraNode(Node):
    """
    Publishes `image` and `camera_info`; from rooms also `ground_truth/depth` and `.../pose`.

    :param kwargs: what rclpy's Node takes.
    :raises ValueError: parameters that no camera can be made of, naming what is wrong.
    """

    def __init__(self, **kwargs):
        super().__init__('camera', **kwargs)
        values = declare_parameters(self)
        warn_of_unknown(self)
        self._source = source_from(values)
        self._rate_hz = values['rate'] or self._source.rate_hz
        self._frame_id = values['frame_id']
        self._left = values['frames'] or math.inf
        self._endless = not values['frames'] and values['loop']
        self._frames = self._source.frames(self._rate_hz, values['loop'])
        self._info = camera_info(self._source.calibration)
        self._image_publisher = self._publisher(Image, 'image')
        self._info_publisher = self._publisher(CameraInfo, 'camera_info')
        self._truth_publishers = []
        if values['source'] == SYNTHETIC:
            self._truth_publishers = [self._publisher(Image, 'ground_truth/depth'),
                                      self._publisher(PoseStamped, 'ground_truth/pose')]
        self._born = self.get_clock().now()
        self.ended = Future()
        self._timer = self.create_timer(1.0 / self._rate_hz, self._tick)
        self.get_logger().info(f'{self._source.words}: {self._info.width} x {self._info.height} '
                               f'px, {self._rate_hz:g} Hz')

    def _publisher(self, kind: type, topic: str):
        return self.create_publisher(
            kind, topic, QoSProfile(depth=QUEUE_DEPTH),     # rclpy writes overrides into it
            qos_overriding_options=QoSOverridingOptions.with_default_policies())

    def _tick(self):
        """Publish the next frame; the reason of an end goes to `ended`, '' for a good one."""
        if self.ended.done() or self._waits_for_a_subscriber():
            return
        try:
            frame = next(self._frames, None) if self._left else None
        except ValueError as error:
            self._end(str(error))
            return
        if frame is None:
            self._end('')
            return
        self.publish(frame)
        self._left -= 1
        if not self._left:
            self._end('')

    def _end(self, reason: str):
        self._timer.cancel()
        self.ended.set_result(reason)

    def _waits_for_a_subscriber(self) -> bool:
        """Hold a finite sequence back, so that its first frames are not lost to discovery."""
        if self._endless or self._image_publisher.get_subscription_count():
            self._endless = True
            return False
        age_s = (self.get_clock().now() - self._born).nanoseconds * 1e-9
        return age_s < FIRST_SUBSCRIBER_S

    def publish(self, frame: CameraFrame):
        """Publish a frame's messages, all with one stamp: the time at which it was ready."""
        header = Header(stamp=self.get_clock().now().to_msg(), frame_id=self._frame_id)
        self._info.header = header
        self._info_publisher.publish(self._info)
        self._image_publisher.publish(image_message(frame.rgb, 'rgb8', header))
        if not self._truth_publishers:
            return
        depth_publisher, pose_publisher = self._truth_publishers
        depth_publisher.publish(image_message(frame.depth_m, '32FC1', header))
        pose_publisher.publish(PoseStamped(
            header=Header(stamp=header.stamp, frame_id=WORLD_FRAME),
            pose=pose_message(frame.t_world_optical)))

    def wait_for_arrival(self):
        """Give the frames that were just published a bounded time to arrive."""
        for publisher in (self._image_publisher, self._info_publisher, *self._truth_publishers):
            publisher.wait_for_all_acked(Duration(seconds=LAST_FRAME_S))


def declare_parameters(node: Node) -> dict:
    """Declare every parameter, typed and described, and return their values by name."""
    values = {}
    for name, (default, description, bounds) in PARAMETERS.items():
        descriptor = ParameterDescriptor(description=description, read_only=True)
        if isinstance(default, float) and bounds:
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=bounds[0], to_value=bounds[1])]
        elif bounds:
            descriptor.integer_range = [
                IntegerRange(from_value=bounds[0], to_value=bounds[1], step=1)]
        values[name] = node.declare_parameter(name, default, descriptor).value
    return values


def source_from(values: dict) -> ImageSource:
    """
    Open the source that the parameters mean.

    :param values: the parameters by name.
    :raises ValueError: what is wrong with them.
    """
    numbers = CameraNumbers(
        **{name: values[name] for name in ('fx', 'fy', 'cx', 'cy', 'calibration_file')})
    return open_source(values['source'], numbers, size=(values['height'], values['width']),
                       seed=values['seed'], split=values['split'], moving=values['moving'])


def camera_info(calibration: Calibration) -> CameraInfo:
    """Return a calibration as a CameraInfo without header."""
    return CameraInfo(
        width=calibration.width, height=calibration.height,
        distortion_model=calibration.distortion_model,
        **{name: [float(number) for number in np.ravel(getattr(calibration, name))]
           for name in 'dkrp'})


def run(args: list[str] | None = None) -> str:
    """Run the node until it ends or is interrupted, and return the reason of a failure or ''."""
    node = None
    try:
        rclpy.init(args=args)
        node = CameraNode()
        rclpy.spin_until_future_complete(node, node.ended)
        node.wait_for_arrival()
        return node.ended.result() if node.ended.done() else ''
    except (KeyboardInterrupt, ExternalShutdownException):
        return ''
    except (ValueError, ParameterException) as error:
        return str(error)
    except RuntimeError as error:   # RCLError among them
        if node is None:        # ROS arguments, a domain or a folder for logs that cannot be used
            return ' '.join(str(error).split())
        if rclpy.ok() or not isinstance(error, rclpy_implementation.RCLError):
            raise
        return ''   # interrupted in the middle of publishing
    finally:
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()


def main(args: list[str] | None = None):
    """Run the node; exit with code 1 and one line of reason where it cannot go on."""
    reason = run(args)
    if reason:
        sys.exit(f'camera: {reason}')


if __name__ == '__main__':
    main()
