# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Samples out of synthetic rooms, rendered while the model trains."""

from dataclasses import replace

import cv2
from depthvlm_ros.model.depth_head import Window
from depthvlm_ros.model.preprocessing import plan_resize
from depthvlm_ros.synthetic import draw_camera, Scene
from depthvlm_ros.synthetic.cameras import FOCAL_RANGE, NARROW_RANGE
from depthvlm_ros.synthetic.vocabulary import SURFACES
from depthvlm_ros.synthetic.walk import PERIOD_S
from depthvlm_ros.synthetic.wording import number_in
from depthvlm_ros.training.gaze import Guide, NAMED_COLOURS, NAMED_KINDS
from depthvlm_ros.training.samples import Sample
import numpy as np
import torch

LONGEST_TALK = 160  # tokens
CAMERAS_DRAWN = 300     # to find one that gives the network's image its size
MOST_OF_ALL = 1 / 32    # pixels of one thing in the depth loss, of those looked at
POINTS, LEAST_POINTS = 4, 3    # to name a token by


class Rooms:
    """
    Rooms without end: a room's number and the seed say all about it, so a run resumes exactly.

    :param source: config.RoomSource.
    :param encoder: samples.Encoder.
    :param seed: of the run.
    :param together: how many rooms in a row give the network images of one size, which fill a
        batch without padding; each has its own camera.
    :param with_language: whether answers are learnt.
    :param with_names: whether image tokens are named, and gazes told.
    :param number: of several such sources in a run, from 0; each shows rooms of its own.
    """

    def __init__(self, source, encoder, seed, together=1, with_language=True, with_names=True,
                 number=0):
        self.source = source
        self.encoder = encoder
        self.seed = seed
        self.together = together
        self.with_language = with_language
        self.with_names = with_names
        self.number = number
        self._apart = [number] if number else []

    @property
    def identity(self):
        """Return what, beside seed and configuration, tells these rooms from others."""
        return f'rooms, {self.together} in a row of one size'

    def sample(self, index):
        """Render room number `index` of the training split; returns Sample."""
        rng = np.random.default_rng([self.seed, 2, index, *self._apart])
        camera = self._camera(index, rng)
        scene = Scene.random((10 * self.seed + self.number) * 10**8 + index, split='train')
        frame = scene.render(camera, scene.pose_at(rng.uniform(0, PERIOD_S)))
        pixels, grid, plan = self.encoder.image(frame.rgb, camera)
        depth = cv2.resize(frame.depth_m, plan.final, interpolation=cv2.INTER_NEAREST_EXACT)
        as_shown = shown_at(frame, plan.depth_scale)
        words = as_shown if self.encoder.config.canonical_words else frame
        asked = self._asked(rng, words) if self.with_language else []
        row = self.encoder.image_row(grid[0].tolist(), [[pair[:2]] for pair in asked])
        short = [len(ids) <= LONGEST_TALK for ids, _ in row.talks]
        row.talks[:] = [talk for talk, fits in zip(row.talks, short) if fits]
        names = named_m = gaze = None
        if self.with_names:
            token_px = self.encoder.config.token_px
            names = torch.from_numpy(np.stack(token_names(frame, plan.final, token_px)))
            named_m = torch.from_numpy(named_depths(as_shown, plan.final, token_px))
            # What is looked at is read at the tokens' centres.
            centres = torch.from_numpy(np.stack(token_names(frame, plan.final, token_px, 1, 1)))
            guide = Guide(self.encoder.vocabulary, frame, centres,
                          (plan.final[1] // token_px, plan.final[0] // token_px))
            gaze = guide.gaze(len(row.prefix), row.talks, [
                (question, kind) for (question, _, kind), fits in zip(asked, short) if fits])
        window, judged = self._window(rng, plan.final, frame), None
        if self.source.things > 0:
            ids = cv2.resize(frame.object_ids, plan.final, interpolation=cv2.INTER_NEAREST_EXACT)
            judged = torch.from_numpy(self._judged(rng, ids, window))
        return Sample(row, pixels, grid, torch.from_numpy(depth / np.float32(plan.depth_scale)),
                      names, named_m, gaze, window, judged)

    def _camera(self, index, rng):
        """
        Draw a room's camera.

        Of those seen together the first comes as it is drawn, each other one is drawn anew until
        the network's image has the first one's size. One camera for all of them would pull a
        whole step toward its own scale.
        """
        common = np.random.default_rng(
            [self.seed, 1, index // self.together, *self._apart])
        is_narrow = self.source.narrow > 0 and common.random() < self.source.narrow
        focal_range = NARROW_RANGE if is_narrow else FOCAL_RANGE
        first = draw_camera(common, self.source.native_px, focal_range)
        if index % self.together == 0:
            return first
        size = plan_resize(first, self.encoder.config).final
        for _ in range(CAMERAS_DRAWN):
            camera = draw_camera(rng, self.source.native_px, focal_range)
            if plan_resize(camera, self.encoder.config).final == size:
                return camera
        return first

    def _window(self, rng, size, frame):
        """
        Draw the part of the network's image, (width, height) px, that is looked at.

        Half of them hold a thing, by lot: things are few pixels, and most of what is asked about.
        """
        if self.source.window == 1:
            return None
        parts = [max(1, round(self.source.window * side)) for side in size]
        starts = [int(rng.integers(whole - part + 1)) for whole, part in zip(size, parts)]
        if frame.objects and rng.random() < 0.5:
            thing = frame.objects[rng.integers(len(frame.objects))]
            scales = size[0] / frame.intrinsics.width, size[1] / frame.intrinsics.height
            starts = [int(np.clip(at * scale - rng.integers(part), 0, whole - part))
                      for at, scale, part, whole in zip(thing.pixel, scales, parts, size)]
        (width, height), (u, v) = parts, starts
        return Window(v, v + height, u, u + width)

    def _judged(self, rng, ids, window):
        """
        Draw the pixels that the depth loss takes, so that the source's share of them is on things.

        Of those looked at no thing has more than MOST_OF_ALL, and the room no less than that.

        :param ids: (H, W) int, Frame.object_ids at the size of the network's image.
        :param window: Window that is looked at, or None.
        :return: (H, W) bool; all of them where no thing is seen.
        """
        seen = ids if window is None else window.of(ids)
        things, counts = np.unique(seen[seen >= 0], return_counts=True)
        if not things.size:
            return np.ones(ids.shape, bool)
        most = MOST_OF_ALL * seen.size
        taken = np.minimum(counts, most)
        of_room = max(most, taken.sum() * (1 / self.source.things - 1))
        there = (seen < 0).sum()
        fewer = min(1, there / of_room) if there else 1     # where the room is too few pixels
        chances = np.full(ids.shape, of_room / max(1, there))
        for thing, share in zip(things, fewer * taken / counts):
            chances[ids == thing] = share
        return rng.random(ids.shape) < chances

    def _asked(self, rng, frame):
        """Choose questions by the weights of their kinds: (question, answer, kind) each."""
        pairs = frame.questions(int(rng.integers(2**31)))
        weights = np.array([self._weight(answer, kind) for _, answer, kind in pairs])
        kinds = np.array([kind for _, _, kind in pairs])
        for kind in np.unique(kinds):   # a kind's weight, however many questions it has
            weights[kinds == kind] *= (
                self.source.kinds.get(str(kind), 0) / weights[kinds == kind].sum())
        some = min(self.source.questions, int((weights > 0).sum()))
        if not some:
            return []
        chosen = rng.choice(len(pairs), some, replace=False, p=weights / weights.sum())
        return [pairs[i] for i in chosen]

    def _weight(self, answer, kind):
        """Return how often a question is drawn among those of its kind, relative."""
        if kind != 'count':
            return 1.0
        numbers = self.source.numbers
        return float(numbers[min(number_in(answer), len(numbers) - 1)])


def shown_at(frame, scale):
    """
    Return a frame with its lengths as the network's image has them.

    :param scale: ResizePlan.depth_scale, which they are divided by.
    """
    objects = [replace(thing, depth_m=thing.depth_m / scale,
                       point_m=tuple(at / scale for at in thing.point_m))
               for thing in frame.objects]
    return replace(frame, depth_m=frame.depth_m / np.float32(scale), objects=objects)


def token_things(frame, size, token_px, points=POINTS, least=LEAST_POINTS):
    """
    Say which thing every image token shows: the one that most of it sees.

    :param frame: synthetic.Frame.
    :param size: (width, height) of the network's image, px.
    :param points: so many rows and columns of places are looked at in a token; 1: its centre.
    :param least: a thing is shown from so many of them on; few, so that things smaller than a
        token have one that is theirs.
    :return: (things, places): (tokens,) int64, VisibleObject.index, -1 for the room, row by row;
        (tokens, points ** 2) int64, what object_ids says at each place.
    """
    places = in_tokens(frame.object_ids, size, token_px, points)
    things, most = np.full(len(places), -1), np.full(len(places), least - 1)
    for thing in frame.objects:
        seen = (places == thing.index).sum(1)
        things[seen > most] = thing.index
        most = np.maximum(most, seen)
    return things, places


def token_names(frame, size, token_px, points=POINTS, least=LEAST_POINTS):
    """
    Name what every image token shows: a thing as token_things has it, else the room at its centre.

    :return: (colours, kinds), each (tokens,) int64, row by row: indices into NAMED_COLOURS and
        NAMED_KINDS.
    """
    surfaces = np.array([NAMED_KINDS.index(s) for s in SURFACES])
    kinds = surfaces[in_tokens(frame.surfaces, size, token_px, 1)[:, 0]].astype(np.int64)
    colours = np.zeros(kinds.size, np.int64)
    things, _ = token_things(frame, size, token_px, points, least)
    for thing in frame.objects:
        colours[things == thing.index] = NAMED_COLOURS.index(thing.colour)
        kinds[things == thing.index] = NAMED_KINDS.index(thing.shape)
    return colours, kinds


def named_depths(frame, size, token_px):
    """
    Say how far that is which token_names names: the median of the places that show it.

    :return: (tokens,) float32, metres; NaN where the room is named, and no place shows it.
    """
    things, places = token_things(frame, size, token_px)
    depth_m = in_tokens(frame.depth_m, size, token_px, POINTS)
    depth_m = np.where(places == things[:, None], depth_m, np.nan)
    known = np.isfinite(depth_m).any(1)
    named_m = np.full(len(things), np.nan, np.float32)
    named_m[known] = np.nanmedian(depth_m[known], axis=1)
    return named_m


def in_tokens(image, size, token_px, points):
    """
    Return what an image shows at places within every token.

    :param size: (width, height) of the network's image, px.
    :param points: rows and columns of places in a token.
    :return: (tokens, points ** 2), tokens row by row.
    """
    columns, rows = size[0] // token_px, size[1] // token_px
    found = sampled(image, columns * points, rows * points)
    return found.reshape(rows, points, columns, points).swapaxes(1, 2).reshape(
        rows * columns, points ** 2)


def sampled(image, columns, rows):
    """Return what the middles of rows x columns equal parts of an image show."""
    height, width = image.shape
    v = ((np.arange(rows) + 0.5) / rows * height).astype(int)
    u = ((np.arange(columns) + 0.5) / columns * width).astype(int)
    return image[np.ix_(v, u)]
