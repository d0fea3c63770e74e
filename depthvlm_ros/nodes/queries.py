# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Requests: what is asked, checked before the model sees any of it."""

from __future__ import annotations

from dataclasses import dataclass
import time
import unicodedata

from builtin_interfaces.msg import Duration
from depthvlm_ros.nodes.parameters import ROWS
from depthvlm_ros.spatial import check_box, check_pixel
from depthvlm_ros.srv import SpatialQuery
from rclpy.qos import QoSProfile

MAX_QUESTION_CHARACTERS = 2000
MAX_PIXELS = 1000
# Of the services and of ~/answers: with rclpy's default depth of 10 an eleventh request at once is
# dropped silently.
REQUESTS_QOS = QoSProfile(depth=128)
# What a request may take at most is what the parameters may.
MAX_TIMEOUT_S = ROWS['question_timeout'].span[1]
MAX_TOKENS = ROWS['max_tokens'].span[1]

# Every interface has the same statuses.
Status = SpatialQuery.Response


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
    How far an answer may go.

    :param max_age_s: oldest image in s, 0 for no limit.
    :param timeout_s: longest wait in s.
    :param max_tokens: longest answer in tokens.
    """

    max_age_s: float
    timeout_s: float
    max_tokens: int

    def for_request(self, request) -> Limits:
        """Return the limits of a request, which may have its own; these hold where it does not."""
        timeout_s = seconds_of(getattr(request, 'timeout', Duration())) or self.timeout_s
        max_tokens = getattr(request, 'max_tokens', 0) or self.max_tokens
        return Limits(seconds_of(request.max_age) or self.max_age_s, min(timeout_s, MAX_TIMEOUT_S),
                      min(max_tokens, MAX_TOKENS))

    def deadline_s(self) -> float:
        """Return when a question that is asked now times out, on time.monotonic."""
        return time.monotonic() + self.timeout_s


def question_text(request) -> str:
    """
    Return the question without what no tokenizer should meet.

    Control characters become spaces. It is empty where pixels or a box stand for themselves.

    :raises RefusalError: BAD_QUESTION.
    """
    if len(request.question) > MAX_QUESTION_CHARACTERS:
        raise RefusalError(
            Status.BAD_QUESTION, f'the question has {len(request.question)} characters, wanted '
            f'at most {MAX_QUESTION_CHARACTERS}')
    text = ''.join(' ' if unicodedata.category(character) in ('Cc', 'Cs') else character
                   for character in request.question).strip()
    if not text and not request.pixels and not request.box:
        raise RefusalError(
            Status.BAD_QUESTION, 'the question is empty, wanted words, pixels or a box')
    return text


def check_camera(name: str, known) -> None:
    """
    Check that a request's camera is one that there is.

    :param name: '' for the first.
    :param known: the cameras' names.
    :raises RefusalError: NO_IMAGE.
    """
    if name and name not in known:
        raise RefusalError(
            Status.NO_IMAGE, f'there is no camera {name!r}, wanted one of {list(known)} or none')


def check_pixels(pixels, intrinsics) -> None:
    """
    Check that pixels lie in the depth image.

    :raises RefusalError: BAD_PIXEL.
    """
    if len(pixels) > MAX_PIXELS:
        raise RefusalError(
            Status.BAD_PIXEL, f'{len(pixels)} pixels, wanted at most {MAX_PIXELS}')
    try:
        for pixel in pixels:
            check_pixel(intrinsics, pixel.u, pixel.v)
    except ValueError as error:
        raise RefusalError(Status.BAD_PIXEL, str(error)) from error


def check_places(request, intrinsics) -> None:
    """
    Check that a question's pixels and box lie in the depth image.

    :raises RefusalError: BAD_PIXEL.
    """
    check_pixels(request.pixels, intrinsics)
    if request.box:
        try:
            check_box(intrinsics, request.box)
        except ValueError as error:
            raise RefusalError(Status.BAD_PIXEL, str(error)) from error


def check_age(age_s: float, max_age_s: float) -> None:
    """
    Check that the image is not too old.

    :param age_s: how old it is on the node's clock.
    :param max_age_s: how old it may be, 0 for no limit.
    :raises RefusalError: STALE_IMAGE.
    """
    if max_age_s > 0 and age_s > max_age_s:
        raise RefusalError(
            Status.STALE_IMAGE, f'the newest image is {age_s:.3f} s old on the clock of this '
            f'node, wanted at most {max_age_s:.3f} s: look at the camera, and at use_sim_time '
            'when a bag is played')


def seconds_of(duration: Duration) -> float:
    """Return a duration in s; a negative one counts as 0."""
    return max(0.0, duration.sec + duration.nanosec * 1e-9)
