# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""SIGINT and SIGTERM, for a main thread that does nothing but wait for them."""

from __future__ import annotations

import signal
import socket

ENDING = (signal.SIGINT, signal.SIGTERM)
STOPPED = 0     # no signal has this number


class StopRequest:
    """
    Waits for SIGINT, SIGTERM, or a thread that says stop; made and waited for by the main thread.

    Any thread may receive a signal, but Python runs handlers on the main thread alone, and not
    while that waits for a lock. So the signal's number is written to a socket, by whichever thread
    gets it, and the main thread reads there.
    """

    def __init__(self):
        self._told, self._tell = socket.socketpair()
        self._tell.setblocking(False)       # as set_wakeup_fd wants it
        signal.set_wakeup_fd(self._tell.fileno(), warn_on_full_buffer=False)
        for number in ENDING:
            signal.signal(number, lambda *_: None)

    def stop(self) -> None:
        """End the waiting, from any thread."""
        self._tell.send(bytes([STOPPED]))

    def wait(self) -> None:
        """Block until one of them came, which may have been before."""
        while not {STOPPED, *ENDING} & {*self._told.recv(64)}:
            pass
