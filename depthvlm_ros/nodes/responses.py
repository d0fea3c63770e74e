# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Responses: what came of a request, every failure with its status.

The responses of SpatialQuery and Measure and the result of AnswerQuery have fields of the same
names, so one function fills them all.
"""

from __future__ import annotations

from collections.abc import Callable
import math

from builtin_interfaces.msg import Duration
from depthvlm_ros.msg import Pixel, SpatialAnswer, SpatialReference
from depthvlm_ros.nodes.looking import Seen
from depthvlm_ros.nodes.queries import RefusalError, Status
from depthvlm_ros.nodes.transforms import (
    InvalidFrameError,
    NoTransformError,
    TransformsUnavailableError,
    UnknownFrameError,
)
from depthvlm_ros.nodes.worker import Ending, HangError, Question
from depthvlm_ros.spatial import (
    distances_m,
    measure_box,
    measure_pixel,
    names_coordinates,
    Reference,
    references_in,
)
from geometry_msgs.msg import Point
import numpy as np
from std_msgs.msg import Header

TRANSFORM_STATUS = {
    TransformsUnavailableError: Status.TF_UNAVAILABLE,
    UnknownFrameError: Status.UNKNOWN_FRAME,
    InvalidFrameError: Status.UNKNOWN_FRAME,
    NoTransformError: Status.NO_TRANSFORM,
}

COMPUTED = "not in the model's own words: computed from "

# Returns t_target_optical, (4, 4), of a target frame, or raises as transforms.Transforms.matrix.
MatrixOf = Callable[[str], np.ndarray]


def fill_refused(response, refusal: RefusalError) -> None:
    """Fill the response of a request that is answered without the model."""
    response.status, response.message = refusal.status, str(refusal)


def fill_ended(response, question: Question) -> None:
    """Fill in how a question ended, and about which image it was."""
    response.status, response.message = _ending(question)
    response.header = question.frame.source.header
    response.points_frame = response.header.frame_id


def fill_answered(response, request, question: Question, matrix_of: MatrixOf) -> None:
    """
    Fill the response of a question that has ended.

    :param response: of SpatialQuery, or AnswerQuery's result.
    :param request: of SpatialQuery, or AnswerQuery's goal.
    :param question: whose frame's source is a looking.Source, and what was seen a looking.Seen.
    """
    response.answer, response.tokens = question.words, question.tokens
    fill_ended(response, question)
    if response.answer and question.decoding.computed:
        _add_message(response, COMPUTED + question.decoding.computed)
    seen = question.frame.seen
    if seen is None:
        return
    requested = _pixels(request, seen)
    if request.box:
        requested.append(measure_box(seen.depth_m, seen.intrinsics, request.box))
    named = references_in(response.answer, seen.depth_m, seen.intrinsics)
    if not named and names_coordinates(response.answer):
        _add_message(response, 'the coordinates in the answer could not be read')
    response.references = [
        *(_message(reference, SpatialReference.REQUEST) for reference in requested),
        *(_message(reference, SpatialReference.MODEL) for reference in named)]
    _move_points(response, request.target_frame, matrix_of)


def fill_measured(response, request, header: Header, seen: Seen, matrix_of: MatrixOf) -> None:
    """
    Fill the response of Measure.

    :param header: of the image that was seen.
    """
    response.header, response.points_frame = header, header.frame_id
    references = _pixels(request, seen)
    response.distances = distances_m(references)
    response.references = [
        _message(reference, SpatialReference.REQUEST) for reference in references]
    _move_points(response, request.target_frame, matrix_of)


def record_of(question: str, response) -> SpatialAnswer:
    """Return what ~/answers publishes of a response."""
    answer = SpatialAnswer(question=question)
    for name in response.get_fields_and_field_types():
        setattr(answer, name, getattr(response, name))
    return answer


def duration_message(time_s: float) -> Duration:
    """Return the message of a time that is not negative."""
    nanoseconds = round(time_s * 1e9)
    return Duration(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)


def _ending(question: Question) -> tuple[int, str]:
    """Return the status and message of how a question ended."""
    error = question.error
    if question.ending is Ending.ANSWERED:
        if question.decoding is not None and question.decoding.ended == 'length':
            return Status.OK, f'cut after max_tokens = {question.max_tokens} tokens'
        return Status.OK, ''
    if question.ending is Ending.FRAME_REFUSED:
        return Status.NO_IMAGE, f'the newest image cannot be used: {error}'
    if question.ending is Ending.TIMEOUT:
        return Status.TIMEOUT, 'timed out; what there is so far is returned'
    if question.ending is Ending.CANCELLED:
        return Status.CANCELLED, 'cancelled; what there is so far is returned'
    if question.ending is Ending.STOPPED:
        return Status.CANCELLED, 'the node was deactivated before the answer was complete'
    going_on = ('configure the node again' if isinstance(error, HangError) else
                'the node goes on')
    return (Status.MODEL_FAILURE,
            f'the model failed ({type(error).__name__}: {error}); {going_on}')


def _pixels(request, seen: Seen) -> list[Reference]:
    """Return the measured pixels of a request."""
    return [measure_pixel(seen.depth_m, seen.intrinsics, pixel.u, pixel.v)
            for pixel in request.pixels]


def _add_message(response, text: str) -> None:
    """Say something more."""
    response.message = f'{response.message}; {text}' if response.message else text


def _message(reference: Reference, source: int) -> SpatialReference:
    """Return the message of a measured place, its point in the optical frame."""
    message = SpatialReference(label=reference.label, source=source)
    message.pixel = Pixel(u=reference.u, v=reference.v)
    message.is_box = reference.box is not None
    if reference.box is not None:
        message.box = [float(value) for value in reference.box]
    message.depth = reference.depth_m
    message.depth_spread = reference.depth_spread_m
    x, y, z = reference.point_m
    message.point = Point(x=x, y=y, z=z)
    message.valid = reference.valid
    return message


def _move_points(response, target_frame: str, matrix_of: MatrixOf) -> None:
    """Bring the points into the target frame, or make them NaN and say why."""
    if target_frame in ('', response.points_frame):
        return
    response.points_frame = target_frame
    try:
        matrix = matrix_of(target_frame)
    except (TransformsUnavailableError, UnknownFrameError, NoTransformError) as error:
        matrix = np.full((4, 4), math.nan)
        if response.status == Status.OK:
            response.status = TRANSFORM_STATUS[type(error)]
        _add_message(response, f'the points are unknown: {error}')
    for reference in response.references:
        point = reference.point
        x, y, z, _ = matrix @ np.array([point.x, point.y, point.z, 1.0])
        reference.point = Point(x=float(x), y=float(y), z=float(z))
