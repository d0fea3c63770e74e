# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A node in a process of its own."""

from __future__ import annotations

import os
from pathlib import Path
import signal
import socket
import subprocess
import sys

from depthvlm_ros.processes import ending_with_parent

PATIENCE_S = 20.0    # for a node to end after an interrupt
# Best effort, the node's default, loses most raw images of a megapixel between two processes, and
# on a busy machine some of the camera_info beside them too.
RELIABLE_INPUT = {'qos_overrides./image.subscription.reliability': 'reliable',
                  'qos_overrides./camera_info.subscription_any.reliability': 'reliable'}


class NodeProcess:
    """
    A node of this package as a child process, its output in a log file.

    It ends when this process has ended, however that was; make it in a thread that stays.

    :param module: the module to run, such as 'depthvlm_ros.nodes.camera_node'.
    :param parameters: the node's parameters by name; None leaves one at its default.
    :param log_file: where its output goes.
    """

    def __init__(self, module: str, parameters: dict, log_file: Path):
        self.name = module.rpartition('.')[2]
        self._log_file = log_file
        with open(log_file, 'wb') as log:
            self._child = subprocess.Popen(
                ending_with_parent(
                    [sys.executable, '-u', '-m', module, *ros_arguments(parameters)]),
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)

    @property
    def exit_code(self) -> int | None:
        """Return the exit code, None while it runs."""
        return self._child.poll()

    @property
    def pid(self) -> int:
        """Return the process's number."""
        return self._child.pid

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


_TAKEN: list[socket.socket] = []    # names of the domains that this process has


def free_domain() -> int:
    """
    Take a ROS_DOMAIN_ID, 1 to 100, in which nobody on this machine is, for this process's life.

    The first participant of a domain listens on UDP port 7410 + 250 x domain (DDSI-RTPS, 9.6.2).
    Until there is one, a socket's name keeps others that ask here from it.
    """
    first = os.getpid() % 100
    for number in range(100):
        domain = 1 + (first + number) % 100
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as port:
            try:
                port.bind(('', 7410 + 250 * domain))
            except OSError:
                continue
        name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            name.bind(f'\0depthvlm_ros_domain_{domain}')    # of no file; goes with the process
        except OSError:
            name.close()
            continue
        _TAKEN.append(name)
        return domain
    return 1 + first


def stay_on_this_machine(logs: Path):
    """
    Keep this process's ROS 2 traffic to itself; children inherit that.

    :param logs: folder of the logs of ROS 2, which would stand in the home otherwise.
    """
    os.environ.setdefault('ROS_LOG_DIR', str(logs))
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    if os.environ.get('ROS_DISTRO') == 'humble':
        os.environ['ROS_LOCALHOST_ONLY'] = '1'
    os.environ['ROS_DOMAIN_ID'] = str(free_domain())
    os.environ.setdefault('PYTHONUNBUFFERED', '1')
