# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Several images in one pass, as several cameras on one robot give them."""

from __future__ import annotations

import logging

from depthvlm_ros.model.shortage import is_out_of_memory, let_go


def look_batch(predictor, images) -> list:
    """
    Look at images; those that have one size for the network go through it together.

    :param predictor: model.Predictor.
    :param images: of (rgb, intrinsics) each, as Predictor.look takes them.
    :return: for each its View, or the exception that Predictor.look raised at it.
    """
    views: list = [None] * len(images)
    groups: dict = {}
    for number, (_, intrinsics) in enumerate(images):
        try:
            plan = predictor.plan(intrinsics)
        except ValueError as error:     # a camera that cannot be; the others can
            views[number] = error.with_traceback(None)
        else:
            groups.setdefault(plan.final, []).append(number)
    for numbers in groups.values():
        if len(numbers) > 1 and predictor.batches:
            for number, view in zip(numbers, _look_together(predictor, images, numbers)):
                views[number] = view
        for number in numbers:
            if views[number] is None:
                views[number] = _look_alone(predictor, *images[number])
    return views


def _look_together(predictor, images, numbers):
    """
    Return the Views of images of one size, or none where their pass failed.

    Where that is no image's own fault the predictor's `batches` becomes False: a batch that does
    not fit would be tried in vain with every pass.
    """
    short = False
    try:
        return predictor.look_at_equal([images[n] for n in numbers])
    except ValueError:          # one of the images cannot be used: which one shows alone
        return []
    except Exception as error:  # the images may have their passes all the same
        predictor.batches = False
        logging.getLogger(__name__).warning(
            '%d images cannot be looked at together and are from now on looked at one by one: '
            '%s: %s', len(numbers), type(error).__name__, error)
        short = is_out_of_memory(error)
    if short:       # once nothing of the pass is held any more
        let_go(predictor)
    return []


def _look_alone(predictor, rgb, intrinsics):
    """Return an image's View, or the exception that looking raised."""
    try:
        return predictor.look(rgb, intrinsics)
    except Exception as error:  # the caller has others to go on with
        return error.with_traceback(None)   # which would hold all that the pass had made
