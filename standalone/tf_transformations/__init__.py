# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The part of tf_transformations that depthvlm_ros uses, on transforms3d as the real one is.

Quaternions are (x, y, z, w), of either length where a rotation is wanted. Matrices are (4, 4) and
act on columns. Euler angles are roll, pitch and yaw in rad, in one of the axis orders of
transforms3d.euler.
"""

from functools import reduce

import numpy as np
from transforms3d import affines, euler, quaternions

__all__ = [
    'concatenate_matrices', 'euler_from_matrix', 'euler_from_quaternion', 'euler_matrix',
    'identity_matrix', 'inverse_matrix', 'quaternion_about_axis', 'quaternion_conjugate',
    'quaternion_from_euler', 'quaternion_from_matrix', 'quaternion_inverse', 'quaternion_matrix',
    'quaternion_multiply', 'translation_from_matrix', 'translation_matrix']


def _w_first(quaternion):
    x, y, z, w = quaternion
    return w, x, y, z


def _w_last(quaternion):
    w, x, y, z = quaternion
    return x, y, z, w


def _rotation(matrix3):
    matrix = np.identity(4)
    matrix[:3, :3] = matrix3
    return matrix


def identity_matrix():
    """Return the transform that moves nothing."""
    return np.identity(4)


def translation_matrix(direction):
    """Return the transform that moves by direction, (3,)."""
    matrix = np.identity(4)
    matrix[:3, 3] = direction
    return matrix


def translation_from_matrix(matrix):
    """Return by how much a transform moves the origin, (3,)."""
    return np.array(matrix)[:3, 3]


def inverse_matrix(matrix):
    """Return the transform back."""
    return np.linalg.inv(matrix)


def concatenate_matrices(*matrices):
    """Return the transforms' product: the last one is applied first."""
    return reduce(np.dot, matrices, np.identity(4))


def euler_matrix(ai, aj, ak, axes='sxyz'):
    """Return the rotation by Euler angles."""
    return _rotation(euler.euler2mat(ai, aj, ak, axes))


def euler_from_matrix(matrix, axes='sxyz'):
    """Return the Euler angles of a rotation matrix, (3, 3) or (4, 4)."""
    return euler.mat2euler(matrix, axes)


def euler_from_quaternion(quaternion, axes='sxyz'):
    """Return the Euler angles of a quaternion."""
    return euler_from_matrix(quaternion_matrix(quaternion), axes)


def quaternion_from_euler(ai, aj, ak, axes='sxyz'):
    """Return the unit quaternion of Euler angles."""
    return _w_last(euler.euler2quat(ai, aj, ak, axes))


def quaternion_about_axis(angle, axis):
    """Return the unit quaternion that turns by angle, rad, about axis, of any length."""
    return _w_last(quaternions.axangle2quat(axis, angle))


def quaternion_matrix(quaternion):
    """Return the rotation of a quaternion."""
    return _rotation(quaternions.quat2mat(_w_first(quaternion)))


def quaternion_from_matrix(matrix):
    """Return the unit quaternion, w >= 0, of a (4, 4) transform, whose scale does not count."""
    return _w_last(quaternions.mat2quat(affines.decompose(matrix)[1]))


def quaternion_multiply(quaternion1, quaternion0):
    """Return the product: the rotation by quaternion0 and then by quaternion1."""
    return _w_last(quaternions.qmult(_w_first(quaternion1), _w_first(quaternion0)))


def quaternion_conjugate(quaternion):
    """Return the conjugate: of a unit quaternion, the rotation back."""
    return np.multiply(quaternion, (-1.0, -1.0, -1.0, 1.0))


def quaternion_inverse(quaternion):
    """Return the inverse, whatever the length."""
    return quaternion_conjugate(quaternion) / np.dot(quaternion, quaternion)
