# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A node in a process of its own."""

from __future__ import annotations

from pathlib import Path
import signal
import subprocess
import sys

PATIENCE_S = 8.0    # for a node to end after an interrupt


class NodeProcess:
    """
    A node of this package as a child process, its output in a log file.

    :param module: the module to run, such as 'depthvlm_ros.nodes.camera_node'.
    :param parameters: the node's parameters by name; None leaves one at its default.
    :param log_file: where its output goes.
    """

    def __init__(self, module: str, parameters: dict, log_file: Path):
        self.name = module.rpartition('.')[2]
        self._log_file = log_file
        with open(log_file, 'wb') as log:
            self._child = subprocess.Popen(
                [sys.executable, '-u', '-m', module, *ros_arguments(parameters)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)

    @property
    def exit_code(self) -> int | None:
        """Return the exit code, None while it runs."""
        return self._child.poll()

    def last_lines(self, count: int = 12) -> str:
        """Return the last lines of its output, indented."""
        lines = self._log_file.read_text(encoding='utf-8', errors='replace').splitlines()
        return '\n'.join(f'    {line}' for line in lines[-count:])

    def stop(self):
        """Interrupt it, and kill it when it has not ended in time."""
        if self._child.poll() is not None:
            return
        self._child.send_signal(signal.SIGINT)
        try:
            self._child.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            pass
        finally:            # also when a person interrupts the waiting
            if self._child.poll() is None:
                self._child.kill()
                self._child.wait(PATIENCE_S)


def ros_arguments(parameters: dict) -> list[str]:
    """Return the command line that sets parameters; texts keep being texts whatever they hold."""
    arguments = ['--ros-args']
    for name, value in parameters.items():
        if value is None:
            continue
        if isinstance(value, str):
            text = "'" + value.replace("'", "''") + "'"     # a YAML string
        elif isinstance(value, bool):
            text = str(value).lower()
        else:
            text = repr(value)
        arguments += ['-p', f'{name}:={text}']
    return arguments
