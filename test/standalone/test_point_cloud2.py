# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What sensor_msgs_py.point_cloud2 does, be it the real one or the stand-in."""

import array

import numpy as np
import pytest
from sensor_msgs.msg import PointCloud2, PointField
from sensor_msgs_py import point_cloud2
from std_msgs.msg import Header

pytestmark = pytest.mark.ros

XYZ = np.array([[1.0, 2.0, 3.0], [np.nan, 5.0, 6.0], [7.0, 8.0, 9.0]], np.float32)


def field(name, offset, datatype=PointField.FLOAT32, count=1):
    return PointField(name=name, offset=offset, datatype=datatype, count=count)


def test_a_cloud_of_xyz_comes_back():
    header = Header(frame_id='optical')
    cloud = point_cloud2.create_cloud_xyz32(header, XYZ)
    assert cloud.header == header
    assert [(f.name, f.offset, f.datatype, f.count) for f in cloud.fields] == [
        ('x', 0, 7, 1), ('y', 4, 7, 1), ('z', 8, 7, 1)]
    assert (cloud.width, cloud.height, cloud.point_step, cloud.row_step) == (3, 1, 12, 36)
    assert not cloud.is_dense
    assert not cloud.is_bigendian
    assert cloud.data.tobytes() == XYZ.tobytes()
    np.testing.assert_array_equal(point_cloud2.read_points_numpy(cloud), XYZ)


def test_lists_and_doubles_make_the_same_cloud():
    expected = point_cloud2.create_cloud_xyz32(Header(), XYZ).data
    assert point_cloud2.create_cloud_xyz32(Header(), XYZ.tolist()).data == expected
    assert point_cloud2.create_cloud_xyz32(Header(), XYZ.astype(float)).data == expected


def test_points_are_a_structured_array_of_the_fields_asked_for():
    cloud = point_cloud2.create_cloud_xyz32(Header(), XYZ)
    points = point_cloud2.read_points(cloud, field_names=('x', 'z'))
    assert points.dtype.names == ('x', 'z')
    np.testing.assert_array_equal(points['z'], XYZ[:, 2])
    with pytest.raises(AssertionError):
        point_cloud2.read_points(cloud, field_names=('x', 'intensity'))


def test_points_with_nan_are_skipped_unless_the_cloud_is_dense():
    cloud = point_cloud2.create_cloud_xyz32(Header(), XYZ)
    kept = point_cloud2.read_points_numpy(cloud, skip_nans=True)
    np.testing.assert_array_equal(kept, XYZ[[0, 2]])
    cloud.is_dense = True
    assert len(point_cloud2.read_points(cloud, skip_nans=True)) == 3


def test_only_the_fields_asked_for_count_as_nan():
    cloud = point_cloud2.create_cloud_xyz32(Header(), XYZ)
    assert len(point_cloud2.read_points(cloud, field_names=['y'], skip_nans=True)) == 3


def test_indices_choose_points():
    cloud = point_cloud2.create_cloud_xyz32(Header(), XYZ)
    for uvs in ([2, 0], np.array([2, 0]), iter([2, 0])):
        np.testing.assert_array_equal(
            point_cloud2.read_points_numpy(cloud, uvs=uvs), XYZ[[2, 0]])


def test_a_padded_structured_cloud_comes_back():
    fields = [field('x', 0), field('y', 4), field('z', 8), field('rgb', 16)]
    dtype = np.dtype({'names': ['x', 'y', 'z', 'rgb'], 'formats': ['<f4'] * 4,
                      'offsets': [0, 4, 8, 16], 'itemsize': 32})
    cloud = PointCloud2(fields=fields, width=2, height=3, point_step=32, row_step=64)
    points = np.zeros(6, dtype)
    points['rgb'] = np.arange(6)
    cloud.data = array.array('B', points.tobytes())
    read = point_cloud2.read_points(cloud)
    assert read.shape == (6,)
    np.testing.assert_array_equal(read['rgb'], np.arange(6))
    flat = point_cloud2.read_points_numpy(cloud, ['x', 'y', 'z'])
    assert flat.shape == (6, 3)
    assert flat.dtype == np.float32


def test_an_organised_cloud_is_reshaped_to_width_and_height():
    cloud = point_cloud2.create_cloud_xyz32(Header(), np.arange(18.0).reshape(6, 3))
    cloud.width, cloud.height, cloud.row_step = 3, 2, 36
    read = point_cloud2.read_points(cloud, reshape_organized_cloud=True)
    assert read.shape == (3, 2)
    np.testing.assert_array_equal(read['x'].ravel(), np.arange(0.0, 18.0, 3))


def test_two_dimensions_become_width_and_height():
    cloud = point_cloud2.create_cloud_xyz32(Header(), np.arange(18.0).reshape(3, 2, 3))
    assert (cloud.width, cloud.height, cloud.row_step) == (3, 2, 36)


def test_big_endian_points_come_out_in_native_order():
    cloud = point_cloud2.create_cloud_xyz32(Header(), XYZ)
    cloud.is_bigendian = True
    cloud.data = array.array('B', XYZ.astype('>f4').tobytes())
    np.testing.assert_array_equal(point_cloud2.read_points_numpy(cloud), XYZ)


@pytest.mark.parametrize(('datatype', 'dtype'), [
    (PointField.INT8, 'i1'), (PointField.UINT8, 'u1'), (PointField.INT16, 'i2'),
    (PointField.UINT16, 'u2'), (PointField.INT32, 'i4'), (PointField.UINT32, 'u4'),
    (PointField.FLOAT32, 'f4'), (PointField.FLOAT64, 'f8')])
def test_every_datatype_has_its_dtype(datatype, dtype):
    made = point_cloud2.dtype_from_fields([field('value', 3, datatype)], point_step=16)
    assert made['value'] == np.dtype(dtype)
    assert made.fields['value'][1] == 3
    assert made.itemsize == 16


def test_fields_without_a_name_or_of_several_values_get_names():
    made = point_cloud2.dtype_from_fields([field('', 0), field('normal', 4, count=3)])
    assert made.names == ('unnamed_field_0', 'normal_0', 'normal_1', 'normal_2')
    assert [made.fields[name][1] for name in made.names] == [0, 4, 8, 12]


def test_mixed_datatypes_go_through_a_structured_array_only():
    fields = [field('x', 0), field('label', 4, PointField.UINT16)]
    points = np.array([(1.5, 2), (2.5, 3)], point_cloud2.dtype_from_fields(fields))
    cloud = point_cloud2.create_cloud(Header(), fields, points)
    assert cloud.point_step == 6
    np.testing.assert_array_equal(point_cloud2.read_points(cloud)['label'], [2, 3])
    with pytest.raises(AssertionError):
        point_cloud2.create_cloud(Header(), fields, np.ones((2, 2)))
    with pytest.raises(AssertionError):
        point_cloud2.read_points_numpy(cloud)
