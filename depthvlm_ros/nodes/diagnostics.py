# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How the depth node is doing, for /diagnostics."""

from __future__ import annotations

from collections import deque
import math
import threading
import time

from depthvlm_ros.nodes.memory import memory_mb
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
import numpy as np

KEPT_FRAMES = 256
RATE_WINDOW_S = 5.0
SILENT_S = 5.0          # without an image after which a camera counts as silent
MISMATCH_S = 60.0       # for which one is a warning; the middleware does not say when it is over


class Statistics:
    """
    Counts and latencies since activation; safe to use from several threads.

    Latency runs from the reception of an image to the publication of its depth.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._published: deque[tuple[float, float]] = deque(maxlen=KEPT_FRAMES)
        self.received = self.published = self.refused = self.failed = self.rate_limited = 0
        self.not_wanted = self.questions = self.failed_questions = self.hangs = 0
        self.outdated = 0           # time jumped back during their pass
        self.last_error = ''
        self.last_error_s = -math.inf
        self.mismatch = ''
        self.mismatch_s = -math.inf
        self.calibration = 'no camera_info has arrived'
        self.image_s = math.nan     # when the last image came, monotonic
        self.began_s = time.monotonic()
        self.silence = ''           # why none comes, where that is known
        self.doubt = ''             # what is odd about images that are used all the same

    def silent_s(self) -> float:
        """Return for how long no image has come, in s."""
        return time.monotonic() - max(self.began_s, np.nan_to_num(self.image_s))

    def count(self, name: str) -> None:
        """Add one to a count."""
        with self._lock:
            setattr(self, name, getattr(self, name) + 1)

    def add_image(self) -> None:
        """Count an image that came."""
        self.count('received')
        self.image_s, self.silence = time.monotonic(), ''

    def add_error(self, name: str, text: str) -> None:
        """Add one to a count of faults, and keep the text."""
        self.count(name)
        self.tell(text)

    def tell(self, text: str) -> None:
        """Keep the text of a fault, of which there is no count."""
        self.last_error, self.last_error_s = text, time.monotonic()

    def add_mismatch(self, text: str) -> None:
        """Keep which end of a topic cannot be met, and why."""
        self.mismatch, self.mismatch_s = text, time.monotonic()

    def add_published(self, latency_s: float) -> None:
        """Count an image whose depth was published."""
        self.count('published')
        with self._lock:
            self._published.append((time.monotonic(), latency_s))

    def rate_hz(self) -> float:
        """Return the rate of publication over the last seconds."""
        now_s = time.monotonic()
        with self._lock:
            recent = [at_s for at_s, _ in self._published if at_s >= now_s - RATE_WINDOW_S]
        # Of a fast stream, less than the window's length is kept.
        window_s = RATE_WINDOW_S if len(recent) < KEPT_FRAMES else now_s - recent[0]
        return len(recent) / window_s

    def latency_ms(self, percent: float) -> float:
        """Return a percentile of the latest latencies, NaN without any."""
        with self._lock:
            latencies = [latency_s for _, latency_s in self._published]
        return float(np.percentile(latencies, percent)) * 1e3 if latencies else math.nan


def _level_and_message(statistics: Statistics, now_s: float) -> tuple[bytes, str]:
    """Return the level of an active node's status, and what is the matter or 'ok'."""
    if now_s - statistics.last_error_s < RATE_WINDOW_S and statistics.calibration == 'ok':
        return DiagnosticStatus.ERROR, statistics.last_error
    if now_s - statistics.mismatch_s < MISMATCH_S:
        return DiagnosticStatus.WARN, statistics.mismatch
    if statistics.silence:
        return DiagnosticStatus.WARN, (
            f'no image for {statistics.silent_s():.0f} s: {statistics.silence}')
    if statistics.calibration != 'ok':
        return DiagnosticStatus.WARN, statistics.calibration
    if now_s - statistics.image_s > SILENT_S:   # why is not known yet
        return DiagnosticStatus.WARN, (
            f'no image for {now_s - statistics.image_s:.0f} s: see that the camera publishes')
    if statistics.doubt:
        return DiagnosticStatus.WARN, statistics.doubt
    return DiagnosticStatus.OK, 'ok'


def status_of(statistics: Statistics, name: str, hardware_id: str,
              extra: dict[str, object]) -> DiagnosticStatus:
    """
    Return the node's status.

    :param name: of the status.
    :param hardware_id: what device the model runs on.
    :param extra: further keys and values.
    """
    now_s = time.monotonic()
    level, message = _level_and_message(statistics, now_s)
    status = DiagnosticStatus(level=level, name=name, message=message, hardware_id=hardware_id)
    values = {
        'rate_hz': f'{statistics.rate_hz():.2f}',
        'latency_p50_ms': f'{statistics.latency_ms(50):.1f}',
        'latency_p99_ms': f'{statistics.latency_ms(99):.1f}',
        'image_age_s': f'{now_s - statistics.image_s:.1f}',
        'received': statistics.received,
        'published': statistics.published,
        'rate_limited': statistics.rate_limited,
        'refused': statistics.refused,
        'failed': statistics.failed,
        'not_wanted': statistics.not_wanted,
        'questions': statistics.questions,
        'failed_questions': statistics.failed_questions,
        'calibration': statistics.calibration,
        'qos_mismatch': statistics.mismatch,
        'last_error': statistics.last_error,
        **extra,
    }
    status.values = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    return status


def depth_names(cameras: list[str]) -> list[str]:
    """Return what the cameras' statuses are called, beneath the node's name."""
    return [f'depth {camera}' if len(cameras) > 1 else 'depth' for camera in cameras or ['']]


def status_of_state(name: str, node) -> DiagnosticStatus:
    """
    Return the status of a depth node that is not active: ERROR with what broke it, else WARN.

    Its keys are those of an active one.

    :param name: of the status.
    :param node: of it are read state, inactive_reason, fault and parameters.
    """
    device = node.value('device')
    status = status_of(Statistics(), name, device, {
        'last_error': node.fault, 'state': node.state, 'dropped': 0, 'open_questions': 0,
        'enabled': False, 'model': node.value('model'), 'device': device,
        'device_memory_mb': 0, 'memory_mb': memory_mb(),
        'max_image_tokens': node.value('max_image_tokens')})
    status.level = DiagnosticStatus.ERROR if node.fault else DiagnosticStatus.WARN
    status.message = '; '.join(filter(None, (node.fault, node.inactive_reason)))
    return status


def diagnostic_array(statuses: list[DiagnosticStatus], stamp) -> DiagnosticArray:
    """Return the message of these statuses."""
    array = DiagnosticArray(status=statuses)
    array.header.stamp = stamp
    return array
