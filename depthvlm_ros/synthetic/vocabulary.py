# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What stands in the rooms: the names of shapes, colours and surfaces, and the paints."""

from __future__ import annotations

SHAPES = ('box', 'ball', 'cylinder', 'cone')
PLURALS = {'box': 'boxes', 'ball': 'balls', 'cylinder': 'cylinders', 'cone': 'cones'}

# Linear reflectance (red, green, blue), far enough apart to survive lamps and white balance.
PAINTS = {
    'red': (0.62, 0.035, 0.035),
    'orange': (0.86, 0.25, 0.015),
    'yellow': (0.86, 0.70, 0.04),
    'green': (0.04, 0.38, 0.07),
    'blue': (0.03, 0.11, 0.60),
    'purple': (0.28, 0.05, 0.42),
    'white': (0.88, 0.88, 0.88),
    'black': (0.018, 0.018, 0.02),
}
COLOURS = tuple(PAINTS)

DOOR = 'door'
DOOR_COLOUR = 'brown'
DOOR_PAINT = (0.20, 0.085, 0.03)

# Names of the room's six planes, in the order in which Frame.surfaces counts them.
SURFACES = ('wall', 'wall', 'wall', 'wall', 'floor', 'ceiling')


def label_of(colour: str, shape: str) -> str:
    """Return what a thing is called in questions, such as 'red box'."""
    return DOOR if shape == DOOR else f'{colour} {shape}'


LABELS = tuple(label_of(colour, shape) for colour in COLOURS for shape in SHAPES) + (DOOR,)
