# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Work of fixed shape, captured once as a CUDA graph and replayed.

A replay gives the device all its kernels at once; launched one by one, a pass has thousands, and a
token's are over before the host has launched the next. Where something cannot be captured it is
run directly, and the log says so once.
"""

from collections import OrderedDict
import logging

from depthvlm_ros.model.shortage import is_out_of_memory
import torch

MOST = 4            # works kept; each holds its outputs and a share of one pool
PATIENCE = 64       # calls after which a work not asked for makes room for another


class Captures:
    """
    Captured works, a bounded number.

    A work is captured when it comes the second time, so that sizes that come once cost nothing;
    where all places are taken, one that was not asked for in the last calls makes room, and
    otherwise the newcomer is run directly. So many sizes that take turns do not cause a
    capture with every call.

    :param capture: takes (work, example input), returns a callable of the same kind; None
        captures nothing. A RuntimeError of it is logged, and that work not tried again, but for a
        lack of memory, after which it is tried again later.
    :param most: places.
    """

    def __init__(self, capture, most=MOST):
        self._capture = capture
        self._most = most
        self._calls = 0
        # key -> [captured, the call it was last asked for, the work]: a replay reads the tensors
        # that the work read but holds no reference to them, so the work is kept as well.
        self._held = OrderedDict()
        self._seen = OrderedDict()      # keys that came once
        self._refused = set()
        self._waits = {}        # keys that there was no memory for: until which call

    def __len__(self):
        return len(self._held)

    def of(self, key, work, example):
        """
        Return what to run in place of some work, or None to run it directly.

        :param key: tells works apart.
        :param example: an input of its shape.
        """
        if self._capture is None or key in self._refused:
            return None
        self._calls += 1
        if self._waits.get(key, 0) > self._calls:
            return None
        if key in self._held:
            self._held[key][1] = self._calls
            self._held.move_to_end(key)
            return self._held[key][0]
        if not self._is_due(key):
            return None
        try:
            captured = self._capture(work, example)
        except RuntimeError as error:
            if is_out_of_memory(error):     # that may be otherwise later
                self._waits[key] = self._calls + PATIENCE
                return None
            logging.getLogger(__name__).warning(
                'a pass cannot be captured as a CUDA graph and runs kernel by kernel, which is '
                'slower: %s', error)
            self._refused.add(key)
            return None
        self._held[key] = [captured, self._calls, work]
        return captured

    def clear(self):
        """Forget everything, as when the weights have changed."""
        if hasattr(self._capture, 'begin_pool'):
            self._capture.begin_pool()
        self._held.clear()
        self._seen.clear()
        self._refused.clear()
        self._waits.clear()

    def _is_due(self, key):
        """Tell whether to capture a work now, with a place for it."""
        if key not in self._seen:
            self._seen[key] = True
            if len(self._seen) > PATIENCE:
                self._seen.popitem(last=False)
            return False
        if len(self._held) >= self._most:
            oldest, (_, last, _) = next(iter(self._held.items()))
            if self._calls - last < PATIENCE:
                return False
            del self._held[oldest]
        return True


class CudaCapture:
    """
    Captures works on one CUDA device, all in one pool of memory.

    They never run at the same time, and what one gives is copied before the next is run, so they
    may share it.

    :param device: torch.device.
    """

    WARM_UP = 3     # runs before, in which libraries choose their kernels and take their memory

    def __init__(self, device):
        self._device = device
        self._pool = None
        self._side = None       # torch.cuda.Stream of this device, on which works are captured

    def begin_pool(self):
        """Begin another pool: torch refuses one whose last capture is gone."""
        self._pool = None

    def __call__(self, work, example):
        """Capture work(input); return a Replay."""
        self._side = self._side or torch.cuda.Stream(self._device)
        current = torch.cuda.current_stream(self._device)
        # The current stream is entered so as to be left: a capture that fails does not restore it.
        with torch.inference_mode(), torch.cuda.device(self._device), torch.cuda.stream(current):
            fixed = torch.empty_like(example, device=self._device)     # laid out as it comes
            fixed.copy_(example)
            self._side.wait_stream(current)
            with torch.cuda.stream(self._side):
                for _ in range(self.WARM_UP):
                    work(fixed)
            current.wait_stream(self._side)
            graph = torch.cuda.CUDAGraph()
            # torch's own stream for it is one for all devices. Other threads (a camera's, another
            # node's) may use the device meanwhile.
            with torch.cuda.graph(graph, pool=self._pool, stream=self._side,
                                  capture_error_mode='thread_local'):
                outputs = work(fixed)
            self._pool = self._pool or graph.pool()
            return Replay(graph, fixed, outputs)


class Replay:
    """A captured work: takes an input of its shape, gives outputs that hold until the next run."""

    def __init__(self, graph, fixed, outputs):
        self._graph, self._fixed, self._outputs = graph, fixed, outputs

    def __call__(self, example):
        """Run it on another input, from any device."""
        self._fixed.copy_(pinned(example), non_blocking=True)
        self._graph.replay()
        return self._outputs


def pinned(tensor):
    """Return a tensor of the host in memory that a GPU can fetch from by itself."""
    return tensor.pin_memory() if tensor.device.type == 'cpu' else tensor


def upload(tensor, device):
    """Bring a tensor to a device, without waiting for it."""
    if device.type != 'cuda':
        return tensor.to(device)
    return pinned(tensor).to(device, non_blocking=True)


def download(tensor):
    """
    Begin to bring a tensor to the host.

    :return: (tensor of the host, a function that waits until it is there); what the device is
        given in between does not delay it.
    """
    if tensor.device.type != 'cuda':
        return tensor.cpu(), lambda: None
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    there = torch.cuda.Event()
    there.record(torch.cuda.current_stream(tensor.device))     # perhaps not the current device's
    return host, there.synchronize


def capture_for(device):
    """Return what captures on a device, or None where nothing can."""
    if device.type != 'cuda' or not hasattr(torch.cuda, 'CUDAGraph'):
        return None
    return CudaCapture(device)
