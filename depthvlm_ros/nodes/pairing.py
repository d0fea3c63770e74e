# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Which calibration belongs to which image.

Some drivers publish camera_info with every image, under its stamp; others once, latched, or
rarely. With 'auto' an image takes the info of its own stamp; where none comes, the newest of its
frame_id and size; while infos come by stamp an image waits for its own, at most until the next
image. With 'stamp' only the info of its own stamp will do; with 'newest' stamps do not matter.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from depthvlm_ros.camera import Calibration

KEPT_INFOS = 32
MODES = ('auto', 'stamp', 'newest')


@dataclass(frozen=True)
class Stamped:
    """
    Something that carries a header.

    :param stamp_ns: its stamp in ns.
    :param frame_id: its frame.
    :param size: (height, width) in px where it is known before decoding, else None.
    :param value: what it is: an image, or for an info the Calibration, or the ValueError
        that says why it is none.
    """

    stamp_ns: int
    frame_id: str
    size: tuple[int, int] | None
    value: Any


class Pairing:
    """
    Joins images with calibrations.

    :param tolerance_ns: how far two stamps may be apart to count as one.
    :param mode: 'auto', 'stamp' or 'newest'.
    :raises ValueError: another mode.

    `reason` says why the latest image has found no calibration, '' where it has; `given_up` why
    the one before it never found one, '' where it did; `doubt` what is odd about the two that were
    joined last, '' for nothing.
    """

    def __init__(self, tolerance_ns: int = 0, mode: str = 'auto'):
        if mode not in MODES:
            raise ValueError(f'sync is {mode!r}, wanted one of {list(MODES)}')
        self.tolerance_ns = tolerance_ns
        self.mode = mode
        self.given_up = self.doubt = ''
        self.reason = 'no image has arrived'
        self._infos: OrderedDict[int, Stamped] = OrderedDict()
        self._newest: Stamped | None = None
        self._waiting: Stamped | None = None
        self._last_ns: int | None = None    # stamp of the latest image
        self._since_late = 2    # images since one whose info came when it was gone
        self._by_stamp = False

    def add_info(self, info: Stamped) -> list[tuple[Stamped, Calibration | ValueError]]:
        """Take a calibration; return the image that waited for it, if one did."""
        if info == self._infos.get(info.stamp_ns):
            return []   # the same message, met by the second reader, perhaps late
        self._newest = info
        self._infos.pop(info.stamp_ns, None)
        self._infos[info.stamp_ns] = info
        while len(self._infos) > KEPT_INFOS:
            self._infos.popitem(last=False)
        waiting = self._waiting
        if waiting is None:
            if self._last_ns is not None and self._same_stamp(self._last_ns, info):
                # Of two in a row: infos come with each image, behind it, and the next will wait.
                if self.mode == 'auto' and self._since_late == 1:
                    self._by_stamp = True
                self._since_late = 0
            return []
        if self.mode != 'newest' and self._same_stamp(waiting.stamp_ns, info):
            self._by_stamp = True
        elif self.mode == 'stamp' or self._by_stamp or not self._fits(waiting, info):
            return []
        self._waiting = None
        return [self._joined(waiting, info)]

    def add_image(self, image: Stamped) -> list[tuple[Stamped, Calibration | ValueError]]:
        """Take an image; return the images that have their calibration now, oldest first."""
        pairs = self._let_go()
        self._last_ns = image.stamp_ns
        self._since_late += 1
        info = None if self.mode == 'newest' else self._of_stamp(image)
        if info is not None:
            self._by_stamp = True
            return [*pairs, self._joined(image, info)]
        wait = self._by_stamp or (self.mode == 'stamp' and self._newest is not None)
        found = [] if wait else self._with_newest(image)
        if not found:
            self._waiting = image
        return pairs + found

    def _let_go(self) -> list[tuple[Stamped, Calibration | ValueError]]:
        """Let the image go that waits, as the next one is here: with the newest info, or none."""
        waiting, self._waiting, self.given_up = self._waiting, None, ''
        if waiting is None:
            return []
        # Its own info was lost, or the driver no longer sends one with every image.
        self._by_stamp = False
        pairs = self._with_newest(waiting)
        self.given_up = '' if pairs else self.reason
        return pairs

    def clear(self) -> None:
        """Forget the image that waits and all infos but the newest, as when time jumps back."""
        self._waiting, self._last_ns, self._since_late = None, None, 2
        self._infos.clear()
        self._by_stamp = False

    def _with_newest(self, image: Stamped) -> list[tuple[Stamped, Calibration | ValueError]]:
        """Pair an image with the newest calibration, if that fits."""
        if self._newest is None:
            self.reason = ('images arrive, but no camera_info: remap camera_info to the topic of '
                           'this camera, and see that its driver publishes one')
            return []
        if self.mode == 'stamp':
            self.reason = ('camera_info has other stamps than the images: set sync to auto or '
                           'newest, or sync_tolerance to how far they are apart')
            return []
        if not self._fits(image, self._newest):
            return []
        return [self._joined(image, self._newest)]

    def _joined(self, image: Stamped, info: Stamped) -> tuple[Stamped, Calibration | ValueError]:
        """Return an image with its info, and keep what is odd about them."""
        self.reason = self.doubt = ''
        if not image.frame_id:
            self.doubt = ('the images have no frame_id, so that neither tf nor RViz can use what '
                          'is published: let the driver give them one')
        elif info.frame_id and info.frame_id != image.frame_id:
            # Some drivers give the two frames of their own; another camera's would be a mistake.
            self.doubt = (f'the images are of frame {image.frame_id!r} and their camera_info of '
                          f'{info.frame_id!r}: see that it is the one of this camera')
        return image, info.value

    def _of_stamp(self, image: Stamped) -> Stamped | None:
        """Return the info of an image's own stamp."""
        info = self._infos.get(image.stamp_ns)
        if info is None and self.tolerance_ns:
            near = [info for info in self._infos.values()
                    if self._same_stamp(image.stamp_ns, info)]
            info = min(near, default=None, key=lambda n: abs(n.stamp_ns - image.stamp_ns))
        return info

    def _same_stamp(self, stamp_ns: int, info: Stamped) -> bool:
        return abs(stamp_ns - info.stamp_ns) <= self.tolerance_ns

    def _fits(self, image: Stamped, info: Stamped) -> bool:
        """Tell whether an info of another stamp may be an image's; if not, say why."""
        if info.frame_id and info.frame_id != image.frame_id:
            self.reason = (f'camera_info is of frame {info.frame_id!r}, the image of '
                           f'{image.frame_id!r}: remap camera_info to the topic of this camera')
            return False
        if image.size is not None and info.size is not None and image.size != info.size:
            self.reason = (f'camera_info is for {info.size[1]} x {info.size[0]} px, the image has '
                           f'{image.size[1]} x {image.size[0]}: publish the one of this image')
            return False
        return True
