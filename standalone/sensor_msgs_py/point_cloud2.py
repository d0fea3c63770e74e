# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
PointCloud2 messages from arrays and back, as sensor_msgs_py does it.

What upstream asserts is asserted here. One thing to know of both: the points of a two-dimensional
array (a, b) become a cloud of width a and height b, so an image's points are best handed over
flat, with width and height set afterwards.
"""

import array
import sys

import numpy as np
from numpy.lib.recfunctions import structured_to_unstructured, unstructured_to_structured
from sensor_msgs.msg import PointCloud2, PointField

DTYPES = {
    PointField.INT8: np.int8, PointField.UINT8: np.uint8,
    PointField.INT16: np.int16, PointField.UINT16: np.uint16,
    PointField.INT32: np.int32, PointField.UINT32: np.uint32,
    PointField.FLOAT32: np.float32, PointField.FLOAT64: np.float64,
}


def dtype_from_fields(fields, point_step=None):
    """
    Return the structured dtype of one point.

    A field of several values becomes several members, name_0 and on; one without a name becomes
    unnamed_field_<its index>.

    :param point_step: bytes from point to point; as many as the fields take where left out.
    """
    members = []
    for index, field in enumerate(fields):
        assert field.count > 0, f'count of field {field.name!r} is 0, wanted at least 1'
        dtype = np.dtype(DTYPES[field.datatype])
        name = field.name or f'unnamed_field_{index}'
        members += [(name if field.count == 1 else f'{name}_{part}', dtype.str,
                     field.offset + part * dtype.itemsize) for part in range(field.count)]
    names, formats, offsets = (list(column) for column in zip(*members, strict=True))
    assert len(set(names)) == len(names), f'field names are {names}, wanted each one once'
    layout = {'names': names, 'formats': formats, 'offsets': offsets}
    return np.dtype(layout if point_step is None else {**layout, 'itemsize': point_step})


def read_points(cloud, field_names=None, skip_nans=False, uvs=None, reshape_organized_cloud=False):
    """
    Return a cloud's points, a structured array.

    :param field_names: the members wanted; all where left out.
    :param skip_nans: leave out points with a NaN, unless the cloud calls itself dense.
    :param uvs: indices of the points wanted.
    :param reshape_organized_cloud: (width, height) instead of flat, where height is above 1.
    """
    assert isinstance(cloud, PointCloud2), f'cloud is a {type(cloud).__name__}'
    stored = dtype_from_fields(cloud.fields, cloud.point_step)
    points = np.ndarray((cloud.width * cloud.height,),
                        stored.newbyteorder('>' if cloud.is_bigendian else '<'), cloud.data)
    if field_names is not None:
        unknown = set(field_names) - set(stored.names)
        assert not unknown, f'field_names has {sorted(unknown)}, wanted some of {stored.names}'
        points = points[list(field_names)]
    if not points.dtype.isnative:
        points = points.astype(points.dtype.newbyteorder('='))
    if skip_nans and not cloud.is_dense:
        points = points[~np.any([np.isnan(points[name]) for name in points.dtype.names], axis=0)]
    if uvs is not None:
        points = points[uvs if isinstance(uvs, np.ndarray) else np.fromiter(uvs, int)]
    if reshape_organized_cloud and cloud.height > 1:
        points = points.reshape(cloud.width, cloud.height)
    return points


def read_points_numpy(
        cloud, field_names=None, skip_nans=False, uvs=None, reshape_organized_cloud=False):
    """Return a cloud's points as read_points does, but plain: (..., members) of one dtype."""
    wanted = [field for field in cloud.fields if field_names is None or field.name in field_names]
    assert len({field.datatype for field in wanted}) <= 1, \
        'the fields have several datatypes, which read_points can return'
    return structured_to_unstructured(
        read_points(cloud, field_names, skip_nans, uvs, reshape_organized_cloud))


def create_cloud(header, fields, points, point_step=None):
    """
    Return points as a PointCloud2 that is not dense.

    :param points: a structured array of the fields' dtype, a plain array (..., members) where all
        fields have one datatype, or an iterable of one iterable a point.
    :param point_step: bytes from point to point; as many as the fields take where left out.
    """
    dtype = dtype_from_fields(fields, point_step)
    if not isinstance(points, np.ndarray):
        points = np.array([tuple(point) for point in points], dtype)
    elif points.dtype.names is None:
        assert len({field.datatype for field in fields}) <= 1, \
            'the fields have several datatypes, wanted a structured array'
        points = unstructured_to_structured(points, dtype)
    assert points.dtype == dtype, f'points are {points.dtype}, wanted {dtype}'
    assert points.ndim in (1, 2), f'points have {points.ndim} dimensions, wanted 1 or 2'
    cloud = PointCloud2(
        header=header, fields=fields, width=points.shape[0],
        height=points.shape[1] if points.ndim == 2 else 1,
        point_step=dtype.itemsize, row_step=dtype.itemsize * points.shape[0],
        is_bigendian=sys.byteorder == 'big', is_dense=False)
    cloud.data = array.array('B', np.ascontiguousarray(points).tobytes())
    return cloud


def create_cloud_xyz32(header, points):
    """Return points, (N, 3), as a PointCloud2 of the float32 fields x, y and z."""
    fields = [PointField(name=name, offset=4 * index, datatype=PointField.FLOAT32, count=1)
              for index, name in enumerate('xyz')]
    return create_cloud(header, fields, points)
