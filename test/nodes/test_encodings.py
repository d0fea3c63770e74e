# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
from array import array
import resource
import struct
import zlib

import cv2
from cv_bridge import CvBridge
from depthvlm_ros.nodes.conversions import image_size, rgb_from_compressed, rgb_from_image
from depthvlm_ros.nodes.encodings import ENCODINGS
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage, Image

pytestmark = pytest.mark.ros

SIZE = (24, 32)
WALL = (200, 90, 40)    # red, green, blue
ISSUED = ('rgb8', 'bgr8', 'rgba8', 'bgra8', 'mono8', 'mono16', '8UC3', 'yuv422', 'yuv422_yuy2',
          'nv12', 'bayer_rggb8', 'bayer_bggr8', 'bayer_gbrg8', 'bayer_grbg8')
CHANNEL_OF = {'r': 0, 'g': 1, 'b': 2}


def picture():
    """Return a smooth picture of many colours, which every subsampling shows nearly."""
    v, u = np.mgrid[:SIZE[0], :SIZE[1]]
    return np.stack([40 + 5 * u, 60 + 6 * v, 220 - 2 * u - 3 * v], axis=-1).astype(np.uint8)


def luma(rgb):
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)


def yuv(rgb):
    """Return Y, U and V in the range of video, (H, W) float each."""
    r, g, b = np.moveaxis(rgb.astype(float), -1, 0)
    return (16 + 0.257 * r + 0.504 * g + 0.098 * b, 128 - 0.148 * r - 0.291 * g + 0.439 * b,
            128 + 0.439 * r - 0.368 * g - 0.071 * b)


def stored(rgb, encoding):
    """Return an RGB picture as an encoding has it, written from the encoding's definition."""
    name = encoding.rstrip('0123456789') if encoding[-1] in '68' else encoding

    def widen(values):
        # High and low byte differ, and yet each value is nearest to 257 times its own.
        return values.astype(np.uint16) * 256 + 100 if encoding.endswith('16') else values
    wide = widen(rgb)
    if name in ('rgb', 'rgba', 'bgr', 'bgra') or encoding in ('8UC3', '8UC4'):
        order = {'8UC3': 'bgr', '8UC4': 'bgra'}.get(encoding, name)
        return np.stack([wide[..., CHANNEL_OF[c]] if c != 'a' else wide[..., 0] for c in order],
                        axis=-1)
    if name == 'mono' or encoding == '8UC1':
        return widen(luma(rgb))
    if name.startswith('bayer_'):
        mosaic = np.empty(rgb.shape[:2], wide.dtype)
        for i, c in enumerate(name.removeprefix('bayer_')):
            mosaic[i // 2::2, i % 2::2] = wide[i // 2::2, i % 2::2, CHANNEL_OF[c]]
        return mosaic
    y, u, v = (np.rint(plane).astype(np.uint8) for plane in yuv(rgb))
    if encoding in ('nv12', 'nv21'):
        colours = (u, v) if encoding == 'nv12' else (v, u)
        chroma = np.stack([plane[::2, ::2] for plane in colours], axis=-1)
        return np.vstack([y, chroma.reshape(len(y) // 2, -1)])
    pairs = np.stack([u[:, ::2], v[:, ::2]], axis=-1).reshape(y.shape)
    return np.stack([pairs, y] if encoding in ('yuv422', 'uyvy') else [y, pairs], axis=-1)


def message(encoding, rgb=None, padding=0, big_endian=False):
    rgb = picture() if rgb is None else rgb
    pixels = stored(rgb, encoding)
    if big_endian:
        pixels = pixels.astype(pixels.dtype.newbyteorder('>'))
    rows = np.frombuffer(pixels.tobytes(), np.uint8).reshape(len(pixels), -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    return Image(height=rgb.shape[0], width=rgb.shape[1], encoding=encoding, step=rows.shape[1],
                 is_bigendian=int(big_endian), data=array('B', rows.tobytes()))


def test_all_encodings_that_cameras_have_are_there():
    assert set(ISSUED) <= set(ENCODINGS)


@pytest.mark.parametrize('padding', [0, 1, 10])
@pytest.mark.parametrize('encoding', sorted(ENCODINGS))
def test_a_picture_comes_out_of_every_encoding(encoding, padding):
    sent = message(encoding, padding=padding)
    before = sent.data.tobytes()
    rgb = rgb_from_image(sent)
    assert (rgb.shape, rgb.dtype) == ((*SIZE, 3), np.uint8)
    assert sent.data.tobytes() == before
    expected = picture()
    if 'mono' in encoding or encoding == '8UC1':
        expected = np.dstack([luma(expected)] * 3)
    subsampled = encoding.startswith(('bayer', 'nv', 'yuv', 'yuyv', 'uyvy'))
    inner = np.s_[2:-2, 2:-2] if subsampled else np.s_[:]
    np.testing.assert_allclose(rgb[inner].astype(int), expected[inner].astype(int),
                               atol=14 if subsampled else 0)
    if subsampled:
        assert np.abs(rgb[inner].astype(int) - expected[inner]).mean() < 4


@pytest.mark.parametrize('padding', [0, 3])
@pytest.mark.parametrize('encoding', sorted(ENCODINGS))
def test_the_byte_order_changes_nothing_but_the_bytes(encoding, padding):
    wide = ENCODINGS[encoding].channel_bytes == 2
    little, big = message(encoding), message(encoding, padding=padding, big_endian=wide)
    big.is_bigendian = 1
    np.testing.assert_array_equal(rgb_from_image(big), rgb_from_image(little))


@pytest.mark.parametrize('encoding', sorted(set(ENCODINGS) - {'8UC1', '8UC3', '8UC4', 'nv12',
                                                              'nv21', 'uyvy', 'yuyv'}))
def test_cv_bridge_says_the_same_where_it_knows_the_encoding(encoding):
    sent = message(encoding)
    np.testing.assert_array_equal(
        rgb_from_image(sent), CvBridge().imgmsg_to_cv2(sent, 'rgb8'))


@pytest.mark.parametrize(('encoding', 'size', 'named'), [
    ('yuv422', (4, 5), 'width of an image of yuv422 is 5 px, wanted a multiple of 2'),
    ('yuv422_yuy2', (4, 5), 'width of an image of yuv422_yuy2 is 5'),
    ('nv12', (4, 5), 'width of an image of nv12 is 5'),
    ('nv12', (5, 4), 'height of an image of nv12 is 5'),
])
def test_sizes_that_an_encoding_cannot_have_are_named(encoding, size, named):
    with pytest.raises(ValueError, match=named):
        rgb_from_image(Image(height=size[0], width=size[1], encoding=encoding, step=size[1] * 2,
                             data=array('B', bytes(size[0] * size[1] * 3))))


def test_nv12_without_its_colours_is_named():
    sent = message('nv12')
    sent.data = sent.data[:SIZE[0] * SIZE[1]]
    with pytest.raises(ValueError, match='768 bytes, wanted step x height x 3/2 = 1152'):
        rgb_from_image(sent)


def test_a_depth_image_is_no_picture():
    for encoding, values in (('32FC1', np.full((4, 6), np.nan, '<f4')),
                             ('16UC1', np.ones((4, 6), '<u2'))):
        with pytest.raises(ValueError, match=f"encoding '{encoding}' cannot be used, wanted one"):
            rgb_from_image(Image(height=4, width=6, encoding=encoding, step=values.nbytes // 4,
                                 data=array('B', values.tobytes())))


def compressed(pixels, kind='png', name=None, options=()):
    data = cv2.imencode(f'.{kind}', pixels, options)[1].tobytes()
    return CompressedImage(format=name or kind, data=array('B', data))


BGR = np.ascontiguousarray(picture()[..., ::-1])
GREY = luma(picture())


@pytest.mark.parametrize(('sent', 'expected', 'tolerance'), [
    (compressed(BGR), picture(), 0),
    (compressed(BGR, name='rgb8; png compressed bgr8'), picture(), 0),
    (compressed(BGR.astype(np.uint16) * 256 + 100), picture(), 1),
    (compressed(np.dstack([BGR, GREY])), picture(), 0),
    (compressed(GREY), np.dstack([GREY] * 3), 0),
    (compressed(GREY.astype(np.uint16) * 257, name='mono16; png compressed '),
     np.dstack([GREY] * 3), 1),
    (compressed(BGR, 'jpg', 'jpeg'), picture(), 12),
    (compressed(BGR, 'jpg', 'bgr8; jpeg compressed bgr8', (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
     picture(), 12),
    (compressed(GREY, 'jpg', 'mono8; jpeg compressed '), np.dstack([GREY] * 3), 6)])
def test_jpeg_and_png_of_every_kind(sent, expected, tolerance):
    assert image_size(sent) == SIZE
    rgb = rgb_from_compressed(sent)
    assert (rgb.shape, rgb.dtype) == (expected.shape, np.uint8)
    np.testing.assert_allclose(rgb.astype(int), expected.astype(int), atol=tolerance)


def test_a_compressed_mosaic_becomes_what_the_raw_one_does():
    mosaic = stored(picture(), 'bayer_grbg8')
    np.testing.assert_array_equal(
        rgb_from_compressed(compressed(mosaic, name='bayer_grbg8; png compressed ')),
        rgb_from_image(message('bayer_grbg8')))


def test_a_mosaic_that_was_made_grey_for_jpeg_stays_grey():
    stripes = np.tile(np.array([60, 190], np.uint8), (SIZE[0], SIZE[1] // 2))
    rgb = rgb_from_compressed(compressed(stripes, 'jpg', 'bayer_rggb8; jpeg compressed mono8'))
    np.testing.assert_allclose(rgb.astype(int), np.dstack([stripes] * 3).astype(int), atol=12)


def test_pixels_stay_where_they_are_whatever_a_photos_notes_say():
    data = cv2.imencode('.jpg', BGR)[1].tobytes()
    turned = b'MM\x00\x2a\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00'
    notes = b'Exif\x00\x00' + turned + bytes(4)
    data = data[:2] + b'\xff\xe1' + struct.pack('>H', len(notes) + 2) + notes + data[2:]
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape[:2] == SIZE[::-1]
    sent = CompressedImage(format='jpeg', data=array('B', data))
    assert image_size(sent) == rgb_from_compressed(sent).shape[:2] == SIZE


@pytest.mark.parametrize('kind', ['jpg', 'png'])
@pytest.mark.parametrize('share', [0.0, 0.05, 0.5, 0.99])
def test_a_picture_that_was_cut_off_is_refused(kind, share):
    whole = compressed(np.random.default_rng(3).integers(0, 255, (64, 64, 3), np.uint8), kind)
    cut = CompressedImage(format=kind, data=whole.data[:int(share * len(whole.data))])
    with pytest.raises(ValueError, match='cannot be read: it'):
        rgb_from_compressed(cut)


@pytest.mark.parametrize('options', [
    (), (cv2.IMWRITE_JPEG_RST_INTERVAL, 4), (cv2.IMWRITE_JPEG_OPTIMIZE, 1)])
@pytest.mark.parametrize('pixels', [BGR, GREY])
@pytest.mark.parametrize('share', [0.95, 0.8, 0.6])
def test_a_jpeg_with_an_end_mark_behind_the_cut_is_refused(options, pixels, share):
    pixels = cv2.resize(pixels, None, fx=8, fy=8, interpolation=cv2.INTER_NEAREST)
    whole = compressed(pixels, 'jpg', options=options).data.tobytes()
    cut = whole[:int(share * len(whole))] + b'\xff\xd9'
    with pytest.raises(ValueError, match='cut off: its last rows are missing'):
        rgb_from_compressed(CompressedImage(format='jpeg', data=array('B', cut)))


@pytest.mark.parametrize('options', [
    (), (cv2.IMWRITE_JPEG_RST_INTERVAL, 4), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)])
def test_a_whole_jpeg_of_middle_grey_is_taken(options):
    grey = np.full((50, 70, 3), 128, np.uint8)
    np.testing.assert_array_equal(
        rgb_from_compressed(compressed(grey, 'jpg', options=options)), grey)


def test_another_format_is_refused_whatever_it_is_called():
    with pytest.raises(ValueError, match="begins with '42 4d .*, wanted JPEG or PNG"):
        rgb_from_compressed(compressed(BGR, 'bmp', 'png'))


def claimed(kind, size_px):
    """Return a small picture whose header claims to be size_px square."""
    data = bytearray(compressed(BGR, kind).data.tobytes())
    if kind == 'png':
        data[16:24] = struct.pack('>II', size_px, size_px)
        data[29:33] = struct.pack('>I', zlib.crc32(data[12:29]))
    else:
        at = data.index(b'\xff\xc0')
        data[at + 5:at + 9] = struct.pack('>HH', size_px, size_px)
    return CompressedImage(format=kind, data=array('B', data))


@pytest.mark.parametrize('kind', ['jpg', 'png'])
@pytest.mark.parametrize('size_px', [0, 4000, 8000, 16384, 60000])
def test_a_claimed_size_costs_no_memory(kind, size_px):
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match='cannot be read: '):
        rgb_from_compressed(claimed(kind, size_px))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 8 * 1024


def test_a_raw_image_that_claims_a_size_costs_no_memory():
    with pytest.raises(ValueError, match='3 bytes, wanted step x height'):
        rgb_from_image(Image(height=8000, width=8000, step=24000, encoding='rgb8',
                             data=[1, 2, 3]))
    with pytest.raises(ValueError, match='16384 x 16384, wanted 67108864 pixels at most'):
        rgb_from_image(Image(height=16384, width=16384, step=49152, encoding='rgb8'))
