# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Spatial questions: from a request to an answer, every failure with its status."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
import math
import time
import unicodedata

from builtin_interfaces.msg import Duration
from depthvlm_ros.msg import Pixel, SpatialAnswer, SpatialReference
from depthvlm_ros.nodes.looking import Seen
from depthvlm_ros.nodes.transforms import (
    NoTransformError,
    TransformsUnavailableError,
    UnknownFrameError,
)
from depthvlm_ros.nodes.worker import Ending, Question
from depthvlm_ros.spatial import (
    check_box,
    check_pixel,
    measure_box,
    measure_pixel,
    names_coordinates,
    Reference,
    references_in,
)
from depthvlm_ros.srv import SpatialQuery
from geometry_msgs.msg import Point
import numpy as np

Request, Response = SpatialQuery.Request, SpatialQuery.Response

MAX_QUESTION_CHARACTERS = 2000
MAX_PIXELS = 1000
TRANSFORM_STATUS = {
    TransformsUnavailableError: Response.TF_UNAVAILABLE,
    UnknownFrameError: Response.UNKNOWN_FRAME,
    NoTransformError: Response.NO_TRANSFORM,
}


class RefusalError(Exception):
    """
    Raised where a request is answered without the model.

    :param status: of the response.
    :param message: for people.
    """

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Limits:
    """
    What holds for requests that do not say.

    :param max_age_s: oldest image in s, 0 for no limit.
    :param timeout_s: longest wait in s.
    :param max_tokens: longest answer in tokens.
    """

    max_age_s: float
    timeout_s: float
    max_tokens: int


def question_text(request: Request) -> str:
    """
    Return the question without what no tokenizer should meet.

    Control characters become spaces. It is empty where pixels or a box stand for themselves.

    :raises RefusalError: BAD_QUESTION.
    """
    if len(request.question) > MAX_QUESTION_CHARACTERS:
        raise RefusalError(Response.BAD_QUESTION, f'the question has {len(request.question)} '
                      f'characters, wanted at most {MAX_QUESTION_CHARACTERS}')
    text = ''.join(' ' if unicodedata.category(character) in ('Cc', 'Cs') else character
                   for character in request.question).strip()
    if not text and not request.pixels and not request.box:
        raise RefusalError(Response.BAD_QUESTION,
                      'the question is empty, wanted words, pixels or a box')
    return text


def check_places(request: Request, intrinsics) -> None:
    """
    Check that the request's pixels and box lie in the depth image.

    :raises RefusalError: BAD_PIXEL.
    """
    if len(request.pixels) > MAX_PIXELS:
        raise RefusalError(Response.BAD_PIXEL,
                      f'{len(request.pixels)} pixels, wanted at most {MAX_PIXELS}')
    try:
        for pixel in request.pixels:
            check_pixel(intrinsics, pixel.u, pixel.v)
        if request.box:
            check_box(intrinsics, request.box)
    except ValueError as error:
        raise RefusalError(Response.BAD_PIXEL, str(error)) from error


def check_age(age_s: float, request: Request, limits: Limits) -> None:
    """
    Check that the image is not too old.

    :param age_s: how old it is on the node's clock.
    :raises RefusalError: STALE_IMAGE.
    """
    max_age_s = seconds(request.max_age) or limits.max_age_s
    if max_age_s > 0 and age_s > max_age_s:
        raise RefusalError(Response.STALE_IMAGE,
                      f'the newest image is {age_s:.3f} s old on the clock of this node, wanted '
                      f'at most {max_age_s:.3f} s: look at the camera, and at use_sim_time when '
                      'a bag is played')


def deadline_s(request: Request, limits: Limits) -> float:
    """Return when the request times out, on time.monotonic."""
    return time.monotonic() + (seconds(request.timeout) or limits.timeout_s)


def seconds(duration: Duration) -> float:
    """Return a duration in s; a negative one counts as 0."""
    return max(0.0, duration.sec + duration.nanosec * 1e-9)


def fill_refused(response: Response, refusal: RefusalError) -> None:
    """Fill the response of a request that is answered without the model."""
    response.status, response.message = refusal.status, str(refusal)


def fill_answered(response: Response, request: Request, question: Question,
                  matrix_of: Callable[[str], np.ndarray]) -> None:
    """
    Fill the response of a question that has ended.

    :param question: whose frame's source is a looking.Source, and what was seen a looking.Seen.
    :param matrix_of: returns t_target_optical, (4, 4), of a target frame, or raises as
        transforms.Transforms.matrix does.
    """
    header = question.frame.source.header
    response.header = header
    response.points_frame = header.frame_id
    response.answer, response.tokens = question.words, question.tokens
    response.status, response.message = _ending(question)
    seen = question.frame.seen
    if seen is None:
        return
    requested = _requested(request, seen)
    named = references_in(response.answer, seen.depth_m, seen.intrinsics)
    if not named and names_coordinates(response.answer) and not response.message:
        response.message = 'the coordinates in the answer could not be read'
    response.references = [
        *(_message(reference, SpatialReference.REQUEST) for reference in requested),
        *(_message(reference, SpatialReference.MODEL) for reference in named)]
    if request.target_frame and request.target_frame != header.frame_id:
        _move_points(response, request.target_frame, matrix_of)


def record_of(question: str, response: Response) -> SpatialAnswer:
    """Return what ~/answers publishes of a response."""
    answer = SpatialAnswer(question=question)
    for name in Response.get_fields_and_field_types():
        setattr(answer, name, getattr(response, name))
    return answer


def duration(time_s: float) -> Duration:
    """Return the message of a time that is not negative."""
    nanoseconds = round(time_s * 1e9)
    return Duration(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)


def _ending(question: Question) -> tuple[int, str]:
    """Return the status and message of how a question ended."""
    error = question.error
    if question.ending is Ending.ANSWERED:
        cut = question.decoding is not None and question.decoding.ended == 'length'
        return Response.OK, f'cut after max_tokens = {question.max_tokens} tokens' if cut else ''
    if question.ending is Ending.FRAME_REFUSED:
        return Response.NO_IMAGE, f'the newest image cannot be used: {error}'
    if question.ending is Ending.TIMEOUT:
        return Response.TIMEOUT, 'timed out; the answer holds the words so far'
    if question.ending is Ending.STOPPED:
        return Response.CANCELLED, 'the node was deactivated before the answer was complete'
    return (Response.MODEL_FAILURE,
            f'the model failed ({type(error).__name__}: {error}); the node goes on')


def _requested(request: Request, seen: Seen) -> list[Reference]:
    """Return the measured pixels and box of the request."""
    references = [measure_pixel(seen.depth_m, seen.intrinsics, pixel.u, pixel.v)
                  for pixel in request.pixels]
    if request.box:
        references.append(measure_box(seen.depth_m, seen.intrinsics, request.box))
    return references


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


def _move_points(response: Response, target_frame: str,
                 matrix_of: Callable[[str], np.ndarray]) -> None:
    """Bring the points into the target frame, or make them NaN and say why."""
    response.points_frame = target_frame
    try:
        matrix = matrix_of(target_frame)
    except (TransformsUnavailableError, UnknownFrameError, NoTransformError) as error:
        matrix = np.full((4, 4), math.nan)
        if response.status == Response.OK:
            response.status = TRANSFORM_STATUS[type(error)]
            response.message = f'the points are unknown: {error}'
    for reference in response.references:
        point = reference.point
        x, y, z, _ = matrix @ np.array([point.x, point.y, point.z, 1.0])
        reference.point = Point(x=float(x), y=float(y), z=float(z))
