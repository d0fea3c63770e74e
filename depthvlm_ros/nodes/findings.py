# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the doctor finds: one line each, with what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
import enum


class Level(enum.Enum):
    """How grave a finding is."""

    OK = 'ok'
    WARN = 'warn'       # something that some people need does not work
    FAIL = 'FAIL'       # the node cannot work so


@dataclass(frozen=True)
class Finding:
    """
    One thing that was looked at.

    :param what: what was looked at, and found.
    :param advice: what to do about it; '' where nothing is to be done.
    """

    level: Level
    what: str
    advice: str = ''

    def __str__(self) -> str:
        """Return the finding's line for people."""
        line = f'{self.level.value:>4}  {self.what}'
        return f'{line}\n      -> {self.advice}' if self.advice else line


def ok(what: str) -> Finding:
    """Return a finding that asks for nothing."""
    return Finding(Level.OK, what)


def warn(what: str, advice: str) -> Finding:
    """Return a finding about what only some people need."""
    return Finding(Level.WARN, what, advice)


def fail(what: str, advice: str) -> Finding:
    """Return a finding that keeps the node from working."""
    return Finding(Level.FAIL, what, advice)
