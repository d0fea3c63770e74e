# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Letting through no more than so many a second."""

from __future__ import annotations

import math
import time


class Pace:
    """A limit on a rate, that keeps its beat: 10 Hz of 30 Hz is every third, not every fourth."""

    def __init__(self):
        self._beat_s = -math.inf    # when the last one was due that passed

    def is_due(self, most_hz: float) -> bool:
        """Tell whether one more might pass now, without taking its turn."""
        return most_hz <= 0 or time.monotonic() >= self._beat_s + 1 / most_hz

    def allows(self, most_hz: float) -> bool:
        """
        Tell whether one more may pass now, and take its turn if so.

        :param most_hz: the limit, which may change from call to call; 0 for none.
        """
        now_s = time.monotonic()
        if most_hz > 0:
            period_s = 1 / most_hz
            due_s = self._beat_s + period_s
            if now_s < due_s:
                return False
            # Keep the beat of those let through before, unless they came too slowly.
            self._beat_s = now_s if now_s - due_s > period_s else due_s
        return True
