# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Letting through no more than so many a second."""

from __future__ import annotations

import time


class Pace:
    """A limit on a rate, that keeps its beat: 10 Hz of 30 Hz is every third, not every fourth."""

    def __init__(self):
        self._next_due_s = 0.0

    def allows(self, most_hz: float) -> bool:
        """
        Tell whether one more may pass now, and take its turn if so.

        :param most_hz: the limit, which may change from call to call; 0 for none.
        """
        now_s = time.monotonic()
        if most_hz > 0:
            if now_s < self._next_due_s:
                return False
            # Keep the beat of those let through before, unless they came too slowly.
            period_s = 1 / most_hz
            late = now_s - self._next_due_s > period_s
            self._next_due_s = (now_s if late else self._next_due_s) + period_s
        return True
