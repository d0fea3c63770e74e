# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
A room through many cameras: always the same room, in metres.

A synthetic room is ray-cast through each camera's own lens (its rays come from OpenCV's
undistortPoints, which the node does not use) and goes the node's way: message, rectification,
cloud. It is compared with the plain pinhole camera of the rectified intrinsics at the same place.

Tolerance: with the room's exact depth in place of the model's, 99 % of the points lie within
1 cm + 1 % of their depth of what the plain camera sees within one pixel, and half of them within
3 mm; what is farther off was interpolated across the edge of a thing. With nano's depth, which
sees the remapped image, half of the points agree within 1 % and 90 % within 5 %.

Binning goes by image_geometry: pixel 0 of the binned image is pixel 0 of the sensor. A sensor
that averages super-pixels lies (n - 1) / 2n px of the binned image beside that.
"""

from array import array
from dataclasses import replace

import cv2
from depthvlm_ros.geometry import organised_points
from depthvlm_ros.model import Predictor
from depthvlm_ros.nodes.conversions import calibration_from_info
from depthvlm_ros.nodes.looking import look_together, Source
from depthvlm_ros.synthetic import Scene
from depthvlm_ros.synthetic.pose import Pose
from depthvlm_ros.synthetic.rays import Rays
from depthvlm_ros.synthetic.scene import _Canvas
from depthvlm_ros.synthetic.sensor import Sensor
import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, Image, RegionOfInterest

pytestmark = pytest.mark.ros

SIZE = (240, 320)
K = (200.0, 0.0, 159.5, 0.0, 200.0, 119.5, 0.0, 0.0, 1.0)
P = (190.0, 0.0, 159.5, 0.0, 0.0, 190.0, 119.5, 0.0, 0.0, 0.0, 1.0, 0.0)
ODD_K = (210.0, 0.0, 171.0, 0.0, 180.0, 108.0, 0.0, 0.0, 1.0)
ODD_P = (195.0, 0.0, 150.0, 0.0, 0.0, 215.0, 131.0, 0.0, 0.0, 0.0, 1.0, 0.0)
PLUMB_BOB = (-0.28, 0.09, 0.001, -0.0008, -0.01)
RATIONAL = (0.5, -0.2, 0.0005, 0.0002, 0.01, 0.75, -0.15, 0.002)
EQUIDISTANT = (-0.02, 0.004, -0.001, 0.0002)
TILT = cv2.Rodrigues(np.array([0.03, -0.05, 0.04]))[0]
SENSOR_K = (400.0, 0.0, 330.0, 0.0, 410.0, 235.0, 0.0, 0.0, 1.0)
SENSOR_P = (390.0, 0.0, 325.0, 0.0, 0.0, 395.0, 238.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SENSOR = {'width': 640, 'height': 480, 'k': SENSOR_K, 'p': SENSOR_P}
CAMERAS = {
    'plain': {},
    'fx is not fy, centre off': {'k': ODD_K},
    'P is not K': {'k': ODD_K, 'p': ODD_P},
    'plumb_bob': {'d': PLUMB_BOB, 'p': P},
    'plumb_bob without P': {'d': PLUMB_BOB},
    'plumb_bob, odd': {'d': PLUMB_BOB, 'k': ODD_K, 'p': ODD_P},
    'plumb_bob, rotated': {'d': PLUMB_BOB, 'p': P, 'r': tuple(TILT.ravel())},
    'rational_polynomial': {'d': RATIONAL, 'distortion_model': 'rational_polynomial', 'p': P},
    'equidistant': {'d': EQUIDISTANT, 'distortion_model': 'equidistant', 'k': (150.0, *K[1:]),
                    'p': P},
    'equidistant, rotated': {'d': EQUIDISTANT, 'distortion_model': 'equidistant', 'p': ODD_P,
                             'r': tuple(TILT.ravel())},
    'roi': {**SENSOR, 'd': (), 'p': (), 'roi': (200, 90, 320, 240)},
    'binning': {**SENSOR, 'd': (), 'p': (), 'binning_x': 2, 'binning_y': 2},
    'distorted roi': {**SENSOR, 'd': PLUMB_BOB, 'roi': (200, 90, 320, 240)},
    'distorted, binned roi': {**SENSOR, 'd': PLUMB_BOB, 'roi': (40, 60, 560, 400),
                              'binning_x': 2, 'binning_y': 2},
}


class LensRays(Rays):
    """
    Rays that lie in no grid.

    :param intrinsics: a pinhole camera of the same size, for the footprints of pixels.
    :param xy: (H, W, 2) the rays, scaled to 1 along the optical axis.
    """

    def __init__(self, intrinsics, xy):
        super().__init__(intrinsics)
        self.x, self.y = np.moveaxis(xy.astype(np.float32), -1, 0)

    shape = property(lambda self: self.x.shape)
    whole = property(lambda self: (slice(0, self.x.shape[0]), slice(0, self.x.shape[1])))

    def band(self, rows):
        return LensRays(self.intrinsics, np.stack([self.x[rows], self.y[rows]], axis=-1))

    def affine(self, row, window=None):
        x, y = (self.x, self.y) if window is None else (self.x[window], self.y[window])
        return np.float32(row[0]) * x + np.float32(row[1]) * y + np.float32(row[2])

    def corners(self):
        return np.array([[x, y, 1.0] for x in (self.x.min(), self.x.max())
                         for y in (self.y.min(), self.y.max())])

    def window(self, points_optical_m):
        return self.whole if points_optical_m[:, 2].max() > 0.02 else None


def info_of(camera):
    """Return a camera's CameraInfo."""
    numbers = {'width': SIZE[1], 'height': SIZE[0], 'distortion_model': 'plumb_bob', 'd': (),
               'k': K, 'r': tuple(np.eye(3).ravel()), **camera}
    roi = numbers.pop('roi', (0, 0, 0, 0))
    numbers['p'] = numbers.get('p') or (0.0,) * 12
    info = CameraInfo(**{name: list(value) if isinstance(value, tuple) else value
                         for name, value in numbers.items()})
    info.roi = RegionOfInterest(**dict(zip(('x_offset', 'y_offset', 'width', 'height'), roi)))
    return info


def lens_rays(info):
    """Return the rays of an info's raw image, from its definition; (H, W, 2)."""
    roi, bins = info.roi, (max(info.binning_x, 1), max(info.binning_y, 1))
    height = (roi.height or info.height) // bins[1]
    width = (roi.width or info.width) // bins[0]
    v, u = np.mgrid[:height, :width].astype(float)
    pixels = np.stack([u * bins[0] + roi.x_offset, v * bins[1] + roi.y_offset], axis=-1)
    matrix, d = np.array(info.k).reshape(3, 3), np.array(info.d or [0.0] * 4)
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 200, 1e-12)
    flat = pixels.reshape(-1, 1, 2)
    if info.distortion_model == 'equidistant':
        rays = cv2.fisheye.undistortPoints(flat, matrix, d, criteria=criteria)
    else:
        rays = cv2.undistortPointsIter(flat, matrix, d, np.eye(3), np.eye(3), criteria)
    return rays.reshape(height, width, 2)


@pytest.fixture(scope='module')
def room():
    """Return a room whose camera adds no noise."""
    scene = Scene.random(7)
    return replace(scene, sensor=Sensor(scene.sensor.gains, 0.0, 0.1, 0.0))


def through_lens(room, info):
    """Return what the raw camera sees: rgb, and depth along the rectified camera's axis."""
    calibration = calibration_from_info(info)
    xy = lens_rays(info)
    canvas = _Canvas.of_room(room, LensRays(calibration.intrinsics, xy), room.pose)
    for index, solid in enumerate(room.solids):
        canvas.add(index, solid, room.light)
    rgb = room.sensor.develop(canvas.radiance, b'')
    points = np.concatenate([xy, np.ones_like(xy[..., :1])], axis=-1) * canvas.depth_m[..., None]
    rotation = np.array(info.r).reshape(3, 3) if any(info.p) else np.eye(3)
    return rgb, (points @ rotation[2]).astype(np.float32)


def plainly(room, info):
    """Return what a pinhole camera sees in the place of the rectified one."""
    turned = room.pose.t_world_optical.copy()
    if any(info.p):
        turned[:3, :3] = turned[:3, :3] @ np.array(info.r).reshape(3, 3).T
    return room.render(calibration_from_info(info).intrinsics, Pose(turned))


def distance_to_seen(points, seen):
    """Return how far points are from the nearest of the points that 3 x 3 pixels see."""
    padded = np.pad(seen, ((1, 1), (1, 1), (0, 0)), mode='edge')
    height, width = points.shape[:2]
    return np.min([np.linalg.norm(points - padded[v:v + height, u:u + width], axis=-1)
                   for v in range(3) for u in range(3)], axis=0)


@pytest.mark.parametrize('name', CAMERAS)
def test_the_same_room_through_every_camera(room, name):
    info = info_of(CAMERAS[name])
    calibration = calibration_from_info(info)
    rgb, depth_m = through_lens(room, info)
    assert calibration.size == rgb.shape[:2]
    maps = calibration.rectification()
    assert (maps is None) == (name in ('plain', 'fx is not fy, centre off', 'roi', 'binning'))
    valid = np.ones(calibration.size, bool)
    if maps is not None:
        rgb, depth_m, valid = maps.apply(rgb), maps.apply(depth_m), maps.valid
    assert valid.mean() > 0.6
    # At the border the interpolation meets the black beyond.
    inner = cv2.erode(valid.astype(np.uint8), np.ones((3, 3))).astype(bool)
    plain = plainly(room, info)
    expected = organised_points(plain.depth_m, calibration.intrinsics)
    off_m = distance_to_seen(organised_points(depth_m, calibration.intrinsics), expected)[inner]
    true_m = plain.depth_m[inner]
    assert np.mean(off_m <= 0.01 + 0.01 * true_m) > 0.99
    assert np.mean(off_m <= 0.05 + 0.05 * true_m) > 0.995
    assert np.median(off_m) < 0.003
    assert np.abs(rgb[inner].astype(int) - plain.rgb[inner]).mean() < 3


@pytest.fixture(scope='module')
def nano():
    """Return the embedded model."""
    predictor = Predictor.from_pretrained('nano', device='cpu')
    yield predictor
    predictor.close()


@pytest.mark.slow
@pytest.mark.parametrize('name', ['equidistant', 'distorted, binned roi'])
def test_the_model_gives_the_same_cloud_through_every_lens(room, nano, name):
    info = info_of(CAMERAS[name])
    calibration = calibration_from_info(info)
    rgb, _ = through_lens(room, info)
    message = Image(height=rgb.shape[0], width=rgb.shape[1], encoding='rgb8',
                    step=rgb.shape[1] * 3, data=array('B', rgb.tobytes()))
    (seen,) = look_together([Source(message, calibration, 0.0)], nano, 0.0, 0.0)
    assert seen.intrinsics == calibration.intrinsics
    valid = calibration.rectification().valid
    np.testing.assert_array_equal(np.isfinite(seen.depth_m), valid)
    plain_m = nano.look(plainly(room, info).rgb, calibration.intrinsics).depth_m
    off = np.linalg.norm(
        organised_points(seen.depth_m, seen.intrinsics)
        - organised_points(plain_m, seen.intrinsics), axis=-1)[valid] / plain_m[valid]
    assert np.percentile(off, 50) < 0.01
    assert np.percentile(off, 90) < 0.05
