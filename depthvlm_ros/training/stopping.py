# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How a run that is told to end, as by Ctrl-C or a cluster that takes it off, loses no step."""

import atexit
import multiprocessing
import signal
import threading

import cv2
from depthvlm_ros.processes import end_with_parent
import torch

SIGNALS = signal.SIGINT, signal.SIGTERM
BY_SIGNAL = 128     # what a shell adds to a signal's number


class Stopping:
    """
    Notes the first SIGINT and the first SIGTERM while it is open; a second one does as ever.

    Each counts by itself: after Ctrl-C, which all processes get, what launched them sends SIGTERM.
    Signals are heard in a program's first thread alone; opened in another one, this hears none.
    """

    def __init__(self):
        self.number = 0     # of the signal that came
        self._before = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number, _frame):
        self.number = self.number or number
        signal.signal(number, self._before.pop(number))

    def wanted(self, accelerator):
        """Tell whether any of the processes was told to end; a collective call."""
        if accelerator.num_processes == 1:
            return bool(self.number)
        told = torch.tensor(self.number, device=accelerator.device)
        return bool(accelerator.reduce(told, 'sum'))

    @property
    def exit_code(self):
        """Return what a shell says of a program that such a signal ended."""
        return BY_SIGNAL + (self.number or signal.SIGTERM)


def begin_reader(_worker):
    """
    Leave the signals to the process that trains, end with it, and keep to one processor.

    Ctrl-C goes to the whole group of processes, and so does the SIGTERM of torch's launcher and of
    many a cluster. The process that trains must have called `end_readers_at_exit`.
    """
    end_with_parent()
    cv2.setNumThreads(1)    # DataLoader limits torch alone
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def end_readers_at_exit():
    """
    Have this process, when it ends, kill the readers that are left, as after an error.

    multiprocessing sends them SIGTERM then, which they ignore, and waits for them without an end.
    """
    atexit.unregister(_kill_readers)
    atexit.register(_kill_readers)


def _kill_readers():
    # DataLoader's handler would raise in mid-loop that a reader was killed.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()
