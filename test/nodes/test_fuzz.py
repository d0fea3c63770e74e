# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Messages by lot, whole and broken: through the conversions, and over DDS into a running node.

Each begins whole, then some of its fields are replaced, so that the checks behind the first one
are met too. What is drawn is the same in every run.
"""

from array import array
import resource

from builtin_interfaces.msg import Time
import cv2
from depthvlm_ros.nodes.conversions import (
    calibration_from_info,
    image_size,
    info_from_intrinsics,
    rgb_from_compressed,
    rgb_from_image,
)
from depthvlm_ros.nodes.encodings import ENCODINGS
from depthvlm_ros.nodes.inputs import Inputs
from hypothesis import given, HealthCheck, settings, strategies
import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest
from std_msgs.msg import Header

pytestmark = pytest.mark.ros

bounded = settings(max_examples=2000, deadline=None, derandomize=True, database=None,
                   suppress_health_check=list(HealthCheck))
over_dds = settings(bounded, max_examples=150)

NAMES = strategies.sampled_from([*ENCODINGS, '32FC1', '16UC1', '8UC2', 'jpeg', '', 'RGB8'])
SIZES = strategies.one_of(strategies.integers(1, 40), strategies.sampled_from(
    [0, 1, 2, 3, 255, 256, 16384, 16385, 65536, 2**31 - 1, 2**31, 2**32 - 1]))
SMALL = strategies.integers(1, 24)
NUMBERS = strategies.one_of(
    strategies.floats(), strategies.sampled_from(
        [0.0, -0.0, 1.0, -1.0, 1e-300, 1e300, 1e-6, 1e6, float('nan'), float('inf')]))
STAMPS = strategies.builds(
    Time, sec=strategies.one_of(
        strategies.integers(1, 99), strategies.integers(-2**31, 2**31 - 1)),
    nanosec=strategies.integers(0, 2**32 - 1))
SEEDS = strategies.integers(0, 2**32 - 1)


def some(draw, fields):
    """Return some of the fields, drawn, at times none; {name: value}."""
    names = draw(strategies.lists(strategies.sampled_from(sorted(fields)), max_size=3,
                                  unique=True))
    return {name: draw(fields[name]) for name in names}


def noise(seed, count):
    return np.random.default_rng(seed).integers(0, 256, count, dtype=np.uint8)


@strategies.composite
def images(draw, heights=SMALL, widths=SMALL):
    """Return an Image whose fields fit each other or nearly."""
    encoding = draw(NAMES)
    kind = ENCODINGS.get(encoding, ENCODINGS['rgb8'])
    height, width = draw(heights), draw(widths)
    if draw(strategies.booleans()):
        height, width = height + height % 2, width + width % 2
    step = width * kind.pixel_bytes + draw(strategies.sampled_from([0, 0, 1, 7, 64]))
    data = noise(draw(SEEDS), step * kind.rows(height))
    broken = some(draw, {
        'height': SIZES, 'width': SIZES, 'step': SIZES, 'encoding': strategies.text(max_size=9),
        'length': strategies.integers(-3, 3)})
    length = len(data) + broken.pop('length', 0)
    return Image(**{
        'height': height, 'width': width, 'step': step, 'encoding': encoding,
        'is_bigendian': draw(strategies.sampled_from([0, 0, 1, 255])),
        'data': array('B', np.resize(data, max(length, 0)).tobytes()), **broken})


PICTURES = [cv2.imencode(ending, pixels, options)[1].tobytes() for pixels in (
    noise(1, 20 * 24 * 3).reshape(20, 24, 3), noise(2, 20 * 24).reshape(20, 24),
    np.zeros((9, 11, 3), np.uint8)) for ending, options in (
        ('.png', ()), ('.jpg', ()), ('.jpg', (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)), ('.bmp', ()))]
PICTURES += [cv2.imencode(ending, noise(5, 96 * 128 * 3).reshape(96, 128, 3))[1].tobytes()
             for ending in ('.png', '.jpg')] * 4
PICTURES.append(cv2.imencode('.png', noise(3, 600).view(np.uint16).reshape(15, 20))[1].tobytes())
PICTURES.append(cv2.imencode('.png', noise(4, 15 * 20 * 4).reshape(15, 20, 4))[1].tobytes())


@strategies.composite
def compressed_images(draw):
    """Return a CompressedImage of a picture with some bytes changed, lost or put in."""
    data = bytearray(draw(strategies.one_of(
        strategies.sampled_from(PICTURES), strategies.binary(max_size=40))))
    for _ in range(draw(strategies.integers(0, 3))):
        # Half of the changes hit the header, where the numbers are.
        end = len(data) if draw(strategies.booleans()) else min(len(data), 200)
        at = draw(strategies.integers(0, end))
        change = draw(strategies.sampled_from(['set', 'cut', 'insert', 'lose']))
        if change == 'cut':
            del data[at:]
        elif change == 'lose':
            del data[at:at + 4]
        else:
            some_bytes = draw(strategies.binary(min_size=1, max_size=4))
            data[at:at + len(some_bytes) * (change == 'set')] = some_bytes
    name = draw(strategies.one_of(strategies.text(max_size=9), strategies.sampled_from(
        ['jpeg', 'png', 'bayer_rggb8; png compressed ', '16UC1; compressedDepth png'])))
    return CompressedImage(format=name, data=array('B', bytes(data)))


@strategies.composite
def infos(draw, width=24, height=20):
    """Return a CameraInfo with some numbers replaced."""
    fields = {
        'width': width, 'height': height, 'distortion_model': 'plumb_bob',
        'd': [-0.2, 0.1, 0.001, 0.0, 0.0], 'k': [80.0, 0, 12, 0, 81.0, 10, 0, 0, 1],
        'r': np.eye(3).ravel().tolist(),
        'p': [78.0, 0, 11, 0, 0, 79.0, 9, 0, 0, 0, 1, 0]}
    if draw(strategies.booleans()):
        fields['distortion_model'], count = draw(strategies.sampled_from([
            ('rational_polynomial', 8), ('rational_polynomial', 12), ('rational_polynomial', 14),
            ('equidistant', 4), ('plumb_bob', 4), ('plumb_bob', 5)]))
        fields['d'] = draw(strategies.lists(
            strategies.one_of(NUMBERS, strategies.floats(-1, 1)), min_size=count, max_size=count))
    fields |= some(draw, {
        'width': SIZES, 'height': SIZES, 'distortion_model': strategies.text(max_size=9),
        'd': strategies.lists(NUMBERS, max_size=14), 'binning_x': SIZES, 'binning_y': SIZES,
        'k': strategies.lists(NUMBERS, min_size=9, max_size=9),
        'r': strategies.lists(NUMBERS, min_size=9, max_size=9),
        'p': strategies.lists(NUMBERS, min_size=12, max_size=12)})
    for name in draw(strategies.lists(strategies.sampled_from('dkrp'), max_size=2)):
        if fields[name]:
            fields[name][draw(strategies.integers(0, len(fields[name]) - 1))] = draw(
                strategies.one_of(NUMBERS, strategies.floats(-500, 500)))
    for name in 'dkrp':
        fields[name] = [float(number) for number in fields[name]]
    info = CameraInfo(**fields)
    if draw(strategies.integers(0, 3)) == 0:
        info.roi = RegionOfInterest(**{
            name: draw(SIZES) for name in ('x_offset', 'y_offset', 'width', 'height')})
    return info


@pytest.fixture(autouse=True)
def few_memory():
    """Hold the whole test against growth: nothing that a message claims may be allocated."""
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 400 * 1024


def is_picture(rgb, size):
    return rgb.shape == (*size, 3) and rgb.dtype == np.uint8 and rgb.flags.c_contiguous


@pytest.mark.slow
@bounded
@given(images())
def test_an_image_becomes_a_picture_or_a_value_error(message):
    try:
        rgb = rgb_from_image(message)
    except ValueError as error:
        assert len(str(error)) < 1000
    else:
        assert is_picture(rgb, image_size(message))


@pytest.mark.slow
@bounded
@given(compressed_images())
def test_a_compressed_image_becomes_a_picture_or_a_value_error(message):
    try:
        rgb = rgb_from_compressed(message)
    except ValueError as error:
        assert len(str(error)) < 1000
    else:
        assert is_picture(rgb, image_size(message))


@pytest.mark.slow
@bounded
@given(infos())
def test_an_info_becomes_a_camera_or_a_value_error(info):
    try:
        calibration = calibration_from_info(info)
    except ValueError:
        return
    camera = calibration.intrinsics
    assert np.isfinite(camera.matrix).all()
    height, width = calibration.size
    if height * width > 10**6:      # a map is made for an image of that size alone
        return
    maps = calibration.rectification()
    if maps is not None:
        raw = np.full((height, width, 3), 255, np.uint8)
        assert is_picture(maps.apply(raw), (height, width))
        assert maps.valid.shape == (height, width)
        assert np.isfinite(maps.map_u).all()


WHOLE = strategies.sampled_from(['nothing', 'image', 'info', 'both'])
SENT = strategies.sampled_from(['both', 'both', 'image', 'info'])


def publish_by_lot(robot, messages, taken):
    """
    Publish what is drawn, some of it whole; return how many there were.

    :param taken: grows with each image that the node takes: of two that it has no time for it sees
        the second alone.
    """
    sent = []

    @over_dds
    @given(messages, infos(128, 96), WHOLE, SENT, STAMPS, strategies.booleans())
    def publish(message, info, whole, parts, stamp, in_order):
        sent.append(parts)
        stamp = Time(sec=len(sent)) if in_order else stamp
        header = Header(stamp=stamp, frame_id='camera_optical_frame')
        if whole in ('info', 'both'):
            info = info_from_intrinsics(robot.camera, header)
        info.header = message.header = header
        before = len(taken)
        if whole in ('image', 'both'):
            robot.publish(robot.picture(), info if parts != 'image' else None, stamp)
        else:
            if parts != 'image':
                robot.infos.publish(info)
            if parts != 'info':
                robot.images.publish(message)
        if parts != 'info' or whole in ('image', 'both'):
            robot.until(lambda: len(taken) > before, 2.0)   # one may get lost
    publish()
    return len(sent)


@pytest.mark.slow
@pytest.mark.parametrize('compressed', [False, True])
def test_a_node_that_met_them_all_lives_and_publishes(
        make_depth_node, make_robot, monkeypatch, compressed):
    taken, take = [], Inputs._take_image
    monkeypatch.setattr(Inputs, '_take_image', lambda *words: (take(*words), taken.append(1)))
    node = make_depth_node(image_transport='compressed' if compressed else 'raw')
    robot = make_robot(compressed=compressed)
    robot.subscribe(Image, 'depthvlm/depth/image')
    assert node.trigger_configure().name == node.trigger_activate().name == 'SUCCESS'
    assert robot.until(robot.connected)
    messages = compressed_images() if compressed else images(
        strategies.sampled_from([96, 96, 96, 17]), strategies.sampled_from([128, 128, 128, 30]))
    assert publish_by_lot(robot, messages, taken) >= 150
    assert robot.until(lambda: node.stream.first.statistics.refused > 30)
    assert robot.until(lambda: node.stream.first.statistics.published > 3), 'some were whole'
    assert node.stream.first.statistics.failed == 0, node.stream.first.statistics.last_error
    depths = robot.got['depthvlm/depth/image']
    depths.clear()

    def is_there():     # beside it what was published of those before may still be on its way
        return any(1000 <= depth.header.stamp.sec < 1010 for depth in list(depths))
    # The last of them may have stood in the future: the first whole one may look like going back.
    for sec in range(1000, 1010):
        robot.publish(robot.picture(), info_from_intrinsics(robot.camera, Header()),
                      Time(sec=sec))
        if robot.until(is_there, 3.0):
            break
    assert is_there()
    assert node.state == 'active'
