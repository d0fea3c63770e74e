# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The depth node's parameters, every one of them, in one table.

config/depth.yaml holds the same names and defaults, for people to copy and change.
"""

from __future__ import annotations

from dataclasses import dataclass
import difflib
import enum
import math
import re
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

QOS = 'qos_overrides.'     # before a topic, an end, and a policy
CAMERA_NAME = re.compile('[A-Za-z][A-Za-z0-9_]{0,63}')
MOST_CAMERAS = 16


class Change(enum.Enum):
    """In which states of the node a parameter may change."""

    ALWAYS = 'takes effect with the next image or question'
    NOT_ACTIVE = 'deactivate the node first'
    UNCONFIGURED = 'deactivate and clean up the node first'
    NEVER = 'set it when the node starts'


@dataclass(frozen=True)
class Row:
    """
    A parameter.

    :param default: its default, whose type is the parameter's type.
    :param description: what it is, with its unit.
    :param change: in which states it may change.
    :param span: least and greatest value of a number, or None.
    :param choices: what a text may be; empty for any.
    """

    name: str
    default: Any
    description: str
    change: Change = Change.ALWAYS
    span: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()


TABLE = (
    Row('model', 'JonnyYu828/DepthVLM-4B',
        "checkpoint: 'nano' (embedded, knows synthetic rooms only), a folder, or a hub id",
        Change.UNCONFIGURED),
    Row('revision', '', 'branch, tag or commit of a hub id; empty: its default',
        Change.UNCONFIGURED),
    Row('device', 'auto', "'auto' (a GPU where there is one), 'cpu', 'cuda' or 'cuda:N'",
        Change.UNCONFIGURED),
    Row('dtype', 'auto', "number format of the model; 'auto': bfloat16 on a GPU, else float32",
        Change.UNCONFIGURED, choices=('auto', 'float32', 'bfloat16', 'float16')),
    Row('quantise', '',
        "'int8' or 'int4': weights of so many bits, through torchao, for small devices; empty: "
        'those of dtype',
        Change.UNCONFIGURED, choices=('', 'int8', 'int4')),
    Row('max_image_tokens', 0,
        'most tokens per image, fewer are faster and coarser; 0: the bounds of the checkpoint',
        Change.UNCONFIGURED, (0, 65536)),
    Row('autostart', False, 'configure and activate without being told', Change.NEVER),
    Row('cameras', [''],
        "names of the cameras, before their topics: 'front' subscribes to front/image; one empty "
        'name: the only camera, whose topics have none',
        Change.NOT_ACTIVE),
    Row('image_transport', 'raw', "'raw' subscribes to image, 'compressed' to image/compressed",
        Change.NOT_ACTIVE, choices=('raw', 'compressed')),
    Row('rectify', True,
        'the image is raw: undo its distortion; false: it has been rectified already',
        Change.NOT_ACTIVE),
    Row('sync', 'auto',
        "how images find their camera_info: 'stamp', 'newest' of their frame and size, or 'auto' "
        '(stamp where it comes so, else newest)',
        Change.NOT_ACTIVE, choices=('auto', 'stamp', 'newest')),
    Row('sync_tolerance', 0.0,
        's, how far the stamps of an image and its camera_info may be apart',
        Change.NOT_ACTIVE, (0.0, 1.0)),
    Row('depth_encoding', '32FC1',
        "'32FC1' (m, NaN invalid) or '16UC1' (mm, to 65.535 m, 0 invalid) on ~/depth/image",
        choices=('32FC1', '16UC1')),
    Row('min_depth', 0.0, 'm, nearer depths become invalid', span=(0.0, 1000.0)),
    Row('max_depth', 0.0, 'm, farther depths become invalid; 0: no limit', span=(0.0, 1000.0)),
    Row('edge_threshold', 0.0,
        'share of the depth; where neighbours differ by more the cloud is NaN; 0: off',
        span=(0.0, 10.0)),
    Row('cloud_stride', 1, 'px, the cloud takes every n-th column and row', span=(1, 64)),
    Row('max_rate', 0.0, 'Hz, most images per second that are looked at for the stream; '
        '0: no limit',
        span=(0.0, 1000.0)),
    Row('max_cloud_rate', 0.0,
        'Hz, most clouds per second, the other outputs go on; 0: one with every depth image',
        span=(0.0, 1000.0)),
    Row('max_age', 0.0,
        's, oldest image that a question without max_age is answered about; 0: no limit',
        span=(0.0, 86400.0)),
    Row('question_timeout', 60.0, 's, longest wait for the answer of a question without timeout',
        span=(0.1, 3600.0)),
    Row('max_tokens', 128, 'longest answer, in tokens, of a question without max_tokens',
        span=(1, 4096)),
    Row('compute_distances', False,
        'how far a thing is, and which of two is closer: combine the distances in its words '
        'with the depth where it points; how far two are apart: measure where it points'),
    Row('max_questions', 8, 'questions that may be open at once; one more is answered BUSY',
        Change.NOT_ACTIVE, (1, 64)),
    Row('hang_timeout', 120.0,
        's, longest that one pass or token may take; after that the model counts as hanging, and '
        'the node goes back to unconfigured; 0: no limit',
        span=(0.0, 86400.0)),
)
ROWS = {row.name: row for row in TABLE}


def declare(node: Node) -> None:
    """
    Declare every parameter, typed, described and bounded.

    :raises rclpy.exceptions.InvalidParameterValueException: a value given at the start that is
        out of bounds; the text names it.
    :raises ValueError: a value that is none of its choices, or values that do not go together.
    """
    for row in TABLE:
        value = node.declare_parameter(row.name, row.default, _descriptor(row)).value
        if reason := _value_reason(row, value):
            raise ValueError(reason)
    if reason := _range_reason({name: node.get_parameter(name).value for name in ROWS}):
        raise ValueError(reason)


def warn_of_unknown(node: Node) -> None:
    """
    Warn of each parameter that the node was started with and does not have, such as one misspelt.

    To be called when all are declared; rclpy itself passes over them in silence. It offers no
    other way to them than the private name below; where that is missing, nothing is said.
    """
    for name in getattr(node, '_parameter_overrides', {}):
        # Those of QoS are declared with their publisher or subscription, by its full topic.
        if not name.startswith(QOS):
            _warn_if_unknown(node, name)


def warn_of_unknown_qos(node: Node) -> None:
    """
    Warn likewise of each override of QoS that no publisher or subscription of the node has.

    Those of the other image transport are left in peace: whoever sets them may not know which.
    """
    for name in getattr(node, '_parameter_overrides', {}):
        if name.startswith(QOS) and not any(node.has_parameter(other) for other in (
                name.replace('/compressed.', '.'),
                name.replace('.subscription', '/compressed.subscription'))):
            _warn_if_unknown(node, name)


def _warn_if_unknown(node: Node, name: str) -> None:
    if not node.has_parameter(name):
        near = difflib.get_close_matches(name, node.get_parameters_by_prefix(''), n=1)
        node.get_logger().warning(
            f'parameter {name!r} is unknown here and does nothing'
            + (f'; did you mean {near[0]!r}?' if near else ''))


def check(node: Node, changes: list[Parameter], state: str) -> SetParametersResult:
    """
    Say whether parameters may change now.

    :param node: whose parameters they are.
    :param changes: the new values.
    :param state: the node's lifecycle state: 'unconfigured', 'inactive', 'active' or other.
    """
    values = {name: node.get_parameter(name).value for name in ROWS}
    for change in changes:
        row = ROWS.get(change.name)
        if row is None:
            continue
        allowed = {
            Change.ALWAYS: True,
            Change.NOT_ACTIVE: state in ('unconfigured', 'inactive'),
            Change.UNCONFIGURED: state == 'unconfigured',
            Change.NEVER: False,
        }[row.change]
        if not allowed and change.value != values[row.name]:
            return _refused(f'{row.name} cannot change while {state}: {row.change.value}')
        if reason := _value_reason(row, change.value):
            return _refused(reason)
        values[row.name] = change.value
    reason = _range_reason(values)
    return _refused(reason) if reason else SetParametersResult(successful=True)


def _refused(reason: str) -> SetParametersResult:
    return SetParametersResult(successful=False, reason=reason)


def _value_reason(row: Row, value: Any) -> str:
    """Return what is wrong with a value beyond its type and span, '' for nothing."""
    if row.choices and value not in row.choices:
        return f'{row.name} is {value!r}, wanted one of {list(row.choices)}'
    if isinstance(value, float) and not math.isfinite(value):
        return f'{row.name} is {value!r}, wanted a finite number'
    if row.name == 'cameras':
        return _cameras_reason(list(value or []))   # YAML's [] has no type and comes as None
    if row.name == 'model' and not value:
        return "model is empty, wanted 'nano', a folder or a hub id"
    return ''


def _cameras_reason(names: list[str]) -> str:
    """Return what is wrong with the names of cameras, '' for nothing."""
    wanted = 'wanted one empty name, or different names of letters, digits and underscores'
    if names == ['']:
        return ''
    if not names or len(set(names)) < len(names):
        return f'cameras is {names}, {wanted}'
    if len(names) > MOST_CAMERAS:
        return f'cameras has {len(names)} names, wanted at most {MOST_CAMERAS}'
    for name in names:
        if not CAMERA_NAME.fullmatch(name):
            return f'cameras holds {name!r}, {wanted}'
    return ''


def _range_reason(values: dict[str, Any]) -> str:
    """Return what is wrong between values, '' for nothing."""
    low_m, high_m = values['min_depth'], values['max_depth']
    if 0 < high_m <= low_m:
        return f'max_depth is {high_m!r} m, wanted more than min_depth = {low_m!r} m, or 0'
    return ''


def _descriptor(row: Row) -> ParameterDescriptor:
    """Return what `ros2 param describe` shows."""
    descriptor = ParameterDescriptor(name=row.name, description=row.description)
    descriptor.read_only = row.change is Change.NEVER
    notes = [f'may change: {row.change.name.lower()}'] if not descriptor.read_only else []
    if row.choices:
        notes.append(f'one of {", ".join(row.choices)}')
    descriptor.additional_constraints = '; '.join(notes)
    if row.span is not None:
        low, high = row.span
        if isinstance(row.default, float):
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=float(low), to_value=float(high))]
        else:
            descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=1)]
    return descriptor
