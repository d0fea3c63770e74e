# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Processes that work for another one, and end with it."""

import multiprocessing
from multiprocessing.connection import wait
import os
import shutil
import threading


def end_with_parent():
    """
    Have this process end, at once, when the one that began it has, however that ended.

    A killed process runs nothing at its end; its children would stay for good, blocked in the
    queues that they share. Does nothing in a process that multiprocessing has not begun.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def ending_with_parent(command: list[str]) -> list[str]:
    """
    Return a command whose process gets SIGTERM when the one that runs it has ended, however.

    By util-linux's setpriv, which becomes the command; without it the command is as it was. Linux
    (prctl(2), PR_SET_PDEATHSIG) holds the thread that runs it for the parent: run it from one that
    stays.

    :param command: program and arguments.
    """
    setpriv = shutil.which('setpriv')
    return [setpriv, '--pdeathsig', 'TERM', *command] if setpriv else command


def _end_after(parent):
    wait([parent.sentinel])
    os._exit(1)
