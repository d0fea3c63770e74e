# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What tf_transformations does, be it the real one or the stand-in."""

import math

import numpy as np
import pytest
import tf_transformations as tf

TURN = (0.18257419, 0.36514837, 0.54772256, 0.73029674)  # (1, 2, 3, 4) of unit length


def test_a_quarter_turn_about_z_takes_x_to_y():
    quaternion = tf.quaternion_from_euler(0.0, 0.0, math.pi / 2)
    np.testing.assert_allclose(quaternion, (0, 0, math.sqrt(0.5), math.sqrt(0.5)), atol=1e-12)
    np.testing.assert_allclose(
        tf.quaternion_matrix(quaternion) @ (1, 0, 0, 1), (0, 1, 0, 1), atol=1e-12)


@pytest.mark.parametrize(('roll', 'pitch', 'yaw'), [
    (0.1, -0.2, 0.3), (3.0, 1.5, -3.0), (-math.pi / 2, 0.0, -math.pi / 2)])
def test_angles_survive_quaternions_and_matrices(roll, pitch, yaw):
    quaternion = tf.quaternion_from_euler(roll, pitch, yaw)
    np.testing.assert_allclose(tf.euler_from_quaternion(quaternion), (roll, pitch, yaw))
    matrix = tf.euler_matrix(roll, pitch, yaw)
    assert matrix.shape == (4, 4)
    np.testing.assert_allclose(matrix, tf.quaternion_matrix(quaternion), atol=1e-12)
    np.testing.assert_allclose(tf.euler_from_matrix(matrix), (roll, pitch, yaw))


def test_roll_comes_first_about_fixed_axes():
    about = [tf.quaternion_matrix(tf.quaternion_about_axis(angle, axis))
             for angle, axis in ((0.1, (1, 0, 0)), (0.2, (0, 2, 0)), (0.3, (0, 0, 1)))]
    np.testing.assert_allclose(
        tf.concatenate_matrices(*reversed(about)), tf.euler_matrix(0.1, 0.2, 0.3), atol=1e-12)


def test_another_axis_order_is_honoured():
    about_z = tf.quaternion_from_euler(0.3, 0.0, 0.0, axes='rzyx')
    np.testing.assert_allclose(about_z, (0, 0, math.sin(0.15), math.cos(0.15)), atol=1e-12)
    np.testing.assert_allclose(tf.euler_from_quaternion(about_z, 'rzyx'), (0.3, 0, 0), atol=1e-12)


def test_the_product_of_quaternions_is_the_product_of_matrices():
    other = tf.quaternion_from_euler(0.4, 0.5, 0.6)
    np.testing.assert_allclose(
        tf.quaternion_matrix(tf.quaternion_multiply(TURN, other)),
        tf.quaternion_matrix(TURN) @ tf.quaternion_matrix(other), atol=1e-12)


def test_the_inverse_undoes_a_quaternion_of_any_length():
    doubled = np.multiply(TURN, 2.0)
    np.testing.assert_allclose(
        tf.quaternion_multiply(doubled, tf.quaternion_inverse(doubled)), (0, 0, 0, 1), atol=1e-12)
    np.testing.assert_allclose(
        tf.quaternion_conjugate(TURN), np.multiply(TURN, (-1, -1, -1, 1)))


def test_the_length_of_a_quaternion_does_not_scale_its_matrix():
    np.testing.assert_allclose(
        tf.quaternion_matrix(np.multiply(TURN, 3.0)), tf.quaternion_matrix(TURN), atol=1e-12)


def test_a_quaternion_comes_back_from_its_matrix():
    np.testing.assert_allclose(
        tf.quaternion_from_matrix(tf.quaternion_matrix(TURN)), TURN, atol=1e-7)


def test_a_translation_stays_out_of_the_rotation():
    transform = tf.concatenate_matrices(
        tf.translation_matrix((1, 2, 3)), tf.quaternion_matrix(TURN))
    np.testing.assert_allclose(tf.translation_from_matrix(transform), (1, 2, 3))
    np.testing.assert_allclose(tf.quaternion_from_matrix(transform), TURN, atol=1e-7)
    np.testing.assert_allclose(
        tf.concatenate_matrices(transform, tf.inverse_matrix(transform)), tf.identity_matrix(),
        atol=1e-12)
