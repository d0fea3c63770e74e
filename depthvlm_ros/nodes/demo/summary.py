# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The demo's figures, as JSON and as a table."""

from __future__ import annotations

from dataclasses import asdict, dataclass
import math

from depthvlm_ros.benchmark.metrics import depth_metrics
import numpy as np


@dataclass(frozen=True)
class Asked:
    """
    A question and what became of it.

    :param question: in words.
    :param answer: in the model's words.
    :param truth: what would be right; None where not known.
    :param correct: whether it was; None where not known.
    """

    question: str
    answer: str
    truth: str | None = None
    correct: bool | None = None


def summary(arrivals: int, depth_hz: float, latencies_ms: list[float],
            measured: list[tuple[np.ndarray, np.ndarray]], questions: list[Asked],
            model: str, device: str) -> dict:
    """
    Return the demo's figures.

    :param arrivals: how many depth images came while measuring.
    :param depth_hz: their rate.
    :param latencies_ms: from the stamp of each image to the arrival of its depth.
    :param measured: (prediction, truth) of some of them, (H, W) metres; empty where not known.
    :param questions: what was asked.
    :param model: the model's name.
    :param device: where it ran.
    """
    metrics = [depth_metrics(prediction_m, truth_m) for prediction_m, truth_m in measured]
    p50, p99 = np.percentile(latencies_ms, (50, 99)) if latencies_ms else (math.nan, math.nan)
    return {
        'frames': arrivals,
        'depth_hz': _number(depth_hz, 2),
        'latency_ms': {'p50': _number(p50, 1), 'p99': _number(p99, 1)},
        'delta1': _number(np.mean([m.delta1 for m in metrics]), 4) if metrics else None,
        'abs_rel': _number(np.mean([m.abs_rel for m in metrics]), 4) if metrics else None,
        'questions': [asdict(asked) for asked in questions],
        'model': model,
        'device': device,
    }


def _number(value: float, digits: int) -> float | None:
    """Return a rounded number, None for NaN, which JSON does not have."""
    return None if math.isnan(value) else round(float(value), digits)


def table(figures: dict) -> str:
    """Return the figures for people."""
    latency = figures['latency_ms']
    lines = [
        ('model', f"{figures['model']} on {figures['device']}"),
        ('depth images', f"{figures['frames']} at {_text(figures['depth_hz'], '.1f')} Hz"),
        ('latency', f"{_text(latency['p50'], '.0f')} ms (median), "
                    f"{_text(latency['p99'], '.0f')} ms (99 of 100)"),
    ]
    if figures['delta1'] is not None:
        lines.append(('depth', f"delta1 {figures['delta1']:.3f}, "
                               f"AbsRel {figures['abs_rel']:.3f}"))
    marks = {True: 'right', False: 'WRONG', None: ''}
    for asked in figures['questions']:
        lines.append(('question', asked['question']))
        lines.append(('', f"{one_line(asked['answer'])}  {marks[asked['correct']]}".rstrip()))
        if asked['truth'] is not None:
            lines.append(('', f"{asked['truth']}  (the truth)"))
    judged = [asked['correct'] for asked in figures['questions'] if asked['correct'] is not None]
    if judged:
        lines.append(('answers', f'{sum(judged)} of {len(judged)} right'))
    return '\n'.join(f'{name:<13} {text}' for name, text in lines)


def one_line(text: str) -> str:
    """Return a text without line breaks."""
    return ' '.join(text.split())


def _text(value: float | None, form: str) -> str:
    return '-' if value is None else format(value, form)
