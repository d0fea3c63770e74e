# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The demo's picture: image, truth, prediction and error side by side."""

from __future__ import annotations

import math

import cv2
import numpy as np

PANEL_HEIGHT = 360      # px
MARGIN = 12             # px
TITLE_HEIGHT = 34       # px
BAR_WIDTH = 18          # px
BAR_SPACE = 84          # px, a colour bar and its labels
LINE_HEIGHT = 26        # px, of the captions
FONT = cv2.FONT_HERSHEY_DUPLEX
INK, PAPER, UNKNOWN = (40, 40, 40), (255, 255, 255), (160, 160, 160)    # BGR
DEPTH_COLOURS, ERROR_COLOURS = cv2.COLORMAP_TURBO, cv2.COLORMAP_MAGMA
STEPS_M = (0.05, 0.1, 0.2, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)


def depth_picture(rgb: np.ndarray, prediction_m: np.ndarray, truth_m: np.ndarray | None = None,
                  captions: list[str] | None = None) -> np.ndarray:
    """
    Draw what went in and what came out, with colour bars in metres.

    :param rgb: (H, W, 3) uint8.
    :param prediction_m: (H, W) float32 metres, NaN invalid (drawn grey).
    :param truth_m: (H, W) float32 metres; None leaves the truth and the error out.
    :param captions: lines of text below.
    :return: the picture, (h, w, 3) uint8 BGR.
    """
    known = prediction_m if truth_m is None else truth_m
    far_m = end_of_scale(known, 99.5)
    parts = [titled(fitted(rgb[..., ::-1], cv2.INTER_AREA), 'image')]
    if truth_m is not None:
        parts.append(titled(coloured(truth_m, far_m, DEPTH_COLOURS), 'truth'))
    parts += [titled(coloured(prediction_m, far_m, DEPTH_COLOURS), 'prediction'),
              colour_bar(far_m, DEPTH_COLOURS)]
    if truth_m is not None:
        error_m = np.abs(prediction_m - truth_m)
        worst_m = end_of_scale(error_m, 98.0)
        parts += [titled(coloured(error_m, worst_m, ERROR_COLOURS), 'error'),
                  colour_bar(worst_m, ERROR_COLOURS)]
    row = np.hstack([part for each in parts for part in (paper(len(each), MARGIN), each)])
    row = np.hstack([row, paper(len(row), MARGIN)])
    return np.vstack([row, footer(captions or [], row.shape[1])])


def end_of_scale(values_m: np.ndarray, percentile: float) -> float:
    """Return a round number of metres at which nearly all finite values end, at least 0.2."""
    finite = values_m[np.isfinite(values_m)]
    end_m = float(np.percentile(finite, percentile)) if finite.size else 1.0
    step_m = tick_step(end_m)
    return max(0.2, math.ceil(end_m / step_m) * step_m)


def tick_step(end_m: float) -> float:
    """Return the distance of a colour bar's labels in metres, for about five of them."""
    return next((step for step in STEPS_M if end_m / step <= 6), STEPS_M[-1])


def paper(height: int, width: int) -> np.ndarray:
    """Return an empty (height, width, 3) area."""
    return np.full((height, width, 3), PAPER, np.uint8)


def write(area: np.ndarray, text: str, left: int, baseline: int, scale: float = 0.6):
    """Write a text into an area; characters that the font lacks become '?'."""
    text = text.encode('ascii', 'replace').decode()
    cv2.putText(area, text, (left, baseline), FONT, scale, INK, 1, cv2.LINE_AA)


def titled(panel: np.ndarray, title: str) -> np.ndarray:
    """Return a panel below its title."""
    head = paper(TITLE_HEIGHT, panel.shape[1])
    write(head, title, 0, TITLE_HEIGHT - 10, 0.7)
    return np.vstack([head, panel])


def fitted(panel: np.ndarray, interpolation: int) -> np.ndarray:
    """Return a panel at the picture's height."""
    width = max(1, round(panel.shape[1] * PANEL_HEIGHT / panel.shape[0]))
    return cv2.resize(np.ascontiguousarray(panel), (width, PANEL_HEIGHT),
                      interpolation=interpolation)


def coloured(values_m: np.ndarray, end_m: float, colours: int) -> np.ndarray:
    """Return distances from 0 to end_m as colours, NaN as grey."""
    values_m = fitted(values_m.astype(np.float32), cv2.INTER_NEAREST)
    invalid = ~np.isfinite(values_m)
    levels = np.clip(np.where(invalid, 0.0, values_m) / end_m * 255.0, 0, 255).astype(np.uint8)
    panel = cv2.applyColorMap(levels, colours)
    panel[invalid] = UNKNOWN
    return panel


def colour_bar(end_m: float, colours: int) -> np.ndarray:
    """Return a bar from 0 (below) to end_m with labels in metres."""
    area = paper(TITLE_HEIGHT + PANEL_HEIGHT, BAR_SPACE)
    levels = np.linspace(255, 0, PANEL_HEIGHT).astype(np.uint8)[:, None]
    area[TITLE_HEIGHT:, :BAR_WIDTH] = cv2.applyColorMap(np.repeat(levels, BAR_WIDTH, 1), colours)
    step_m = tick_step(end_m)
    for index in range(math.floor(end_m / step_m + 1e-6) + 1):
        share = index * step_m / end_m
        row = TITLE_HEIGHT + round((PANEL_HEIGHT - 1) * (1.0 - share))
        cv2.line(area, (BAR_WIDTH, row), (BAR_WIDTH + 5, row), INK, 1)
        baseline = min(max(row + 5, TITLE_HEIGHT + 10), len(area) - 2)
        write(area, f'{index * step_m:.4g} m', BAR_WIDTH + 9, baseline, 0.45)
    return area


def footer(captions: list[str], width: int) -> np.ndarray:
    """Return the captions below each other, cut at the picture's width."""
    area = paper(MARGIN + LINE_HEIGHT * len(captions), width)
    for index, caption in enumerate(captions):
        write(area, caption, MARGIN, LINE_HEIGHT * (index + 1) - 4)
    return area
