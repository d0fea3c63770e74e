# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What is learnt from: a sample out of any source, and samples side by side."""

from dataclasses import dataclass, fields, replace

from depthvlm_ros.benchmark.annotations import RecordError
from depthvlm_ros.model import DepthVLM
from depthvlm_ros.model.depth_head import Window
from depthvlm_ros.model.preprocessing import plan_resize, preprocess
from depthvlm_ros.training.gaze import Gaze, Vocabulary
from depthvlm_ros.training.packing import conversation_ids, IGNORED, pack, Packed, Row
import torch

MOST_TOKENS = 4096      # of a conversation with its image, as released (--max_seq_length)
COUNTED = ('images', 'tokens', 'named', 'gazes', 'skipped')


@dataclass(frozen=True)
class Sample:
    """
    An image with what is known of it, or text alone.

    :param row: its tokens.
    :param pixel_values: (patches, 1536) float32; None without an image.
    :param grid_thw: (1, 3) int64, the image's grid of patches; None without an image.
    :param depth_m: (H, W) float32, metres as the network should see them, at its image's size,
        invalid where not finite or not > 0; None where nothing is known.
    :param names: (2, tokens) int64, what each image token shows (rooms.token_names); None where
        nothing is known.
    :param named_m: (tokens,) float32, how far what is named is, metres as depth_m's, NaN where not
        known; None likewise.
    :param gaze: gaze.Gaze, where to look; None where nothing is known.
    :param window: part of the image that the depth loss looks at (depth_head.Window); None: all.
    :param judged: (H, W) bool, pixels of it that the depth loss takes; None: all that are valid.
    """

    row: Row
    pixel_values: torch.Tensor | None = None
    grid_thw: torch.Tensor | None = None
    depth_m: torch.Tensor | None = None
    names: torch.Tensor | None = None
    named_m: torch.Tensor | None = None
    gaze: Gaze | None = None
    window: Window | None = None
    judged: torch.Tensor | None = None


@dataclass(frozen=True)
class Batch:
    """
    Samples side by side: B rows of tokens, and the I >= 1 images among them, in order.

    :param packed: the tokens.
    :param pixel_values: (patches of all images, 1536) float32.
    :param grid_thw: (I, 3) int64.
    :param depth_m: for every image (H, W) float32 metres, or None.
    :param names: (2, tokens of all images) int64, IGNORED where not known.
    :param named_m: (tokens of all images,) float32 metres, NaN where not known.
    :param weights: (B, S) float32 of the supervised tokens, 0 elsewhere.
    :param gazes: for every image gaze.Gaze, or None.
    :param windows: for every image the Window that the depth loss looks at, or None: all of it.
    :param judged: for every image (H, W) bool, pixels of it that the depth loss takes, or None.
    :param token_px: side of one image token in px of the network's image.
    :param counts: (5,) float32, in the order of COUNTED: images with depth, supervised tokens by
        their weights, named tokens, gazes, records skipped on the way.
    :param skipped: one text for each record that was skipped.
    """

    packed: Packed
    pixel_values: torch.Tensor
    grid_thw: torch.Tensor
    depth_m: list
    names: torch.Tensor
    named_m: torch.Tensor
    weights: torch.Tensor
    gazes: list
    windows: list
    judged: list
    token_px: int
    counts: torch.Tensor
    skipped: list

    def to(self, device):
        """Return the batch on a device."""
        def move(value):
            if isinstance(value, torch.Tensor):
                return value.to(device, non_blocking=True)
            if isinstance(value, Gaze):
                return value.to(device)
            if isinstance(value, Packed):
                return replace(value, **{f.name: move(getattr(value, f.name))
                                         for f in fields(value)})
            return [move(v) for v in value] if isinstance(value, list) else value
        return Batch(*(move(getattr(self, f.name)) for f in fields(self)))


class Encoder:
    """
    Turn images and words into a model's tokens, positions and patches.

    :param config: DepthVLMConfig.
    :param tokenizer: the model's tokenizer.
    :param prompt: model.prompt.Prompt.
    :param weigh_digits: weigh a number's digits by their place.
    :raises ValueError: to weigh digits that are no tokens of their own.
    """

    def __init__(self, config, tokenizer, prompt, weigh_digits=False):
        self.config = config
        self.tokenizer = tokenizer
        self.prompt = prompt
        self.vocabulary = Vocabulary(tokenizer)
        self.weigh_digits = weigh_digits
        if weigh_digits and len(self.vocabulary.digits.unique()) < 10:
            raise ValueError('weigh_digits is true, wanted a tokenizer to which every digit is a '
                             'token')
        # Padding is neither seen nor supervised: without a token for it any other does.
        self._padding = (prompt.after_answer[0] if tokenizer.pad_token_id is None
                         else tokenizer.pad_token_id)
        self.token_patches = config.vision_config.spatial_merge_size ** 2
        with torch.device('meta'):  # gives positions; has no weights
            self._shell = DepthVLM(config)
        self._positions = {}  # of grids met before

    def image_row(self, grid, talks):
        """
        Lay out an image's row.

        :param grid: (1, rows, columns) of patches.
        :param talks: list of conversations, each a list of (question, answer).
        """
        grid = tuple(grid)
        prefix = self.prompt.prefix(grid[1] * grid[2] // self.token_patches)
        if grid not in self._positions:
            self._positions[grid] = self._shell.positions(
                torch.tensor([prefix]), image_grid_thw=torch.tensor([grid]))[:, 0]
        return Row(prefix, self._positions[grid], self._encoded(talks))

    def text_row(self, talks):
        """Lay out a row without an image: system text, then the conversations."""
        prefix = list(self.prompt.before_image[:-1])  # up to the image's opening token
        return Row(prefix, torch.arange(len(prefix)).expand(3, -1), self._encoded(talks))

    def bounded(self, row, where):
        """
        Return a row that is not too long for the model, or for the memory of a training.

        :param where: what the error begins with.
        :raises RecordError: one of more tokens than MOST_TOKENS or the model's positions.
        """
        tokens = len(row.prefix) + sum(len(ids) for ids, _ in row.talks)
        most = min(MOST_TOKENS, self.config.text_config.max_position_embeddings)
        if tokens > most:
            raise RecordError('record', f'{where}: has {tokens} tokens, wanted at most {most}; '
                              'max_image_tokens bounds those of the image')
        return row

    def image(self, rgb, intrinsics, max_image_tokens=0):
        """Return (pixel_values, grid_thw, plan): model.preprocess's, and its ResizePlan."""
        pixels, grid = preprocess(rgb, intrinsics, self.config, max_image_tokens)
        return pixels, grid, plan_resize(intrinsics, self.config, max_image_tokens)

    def blank(self):
        """Return a smallest image without anything to learn from."""
        merge = self.config.vision_config.spatial_merge_size
        grid = (1, 2 * merge, 2 * merge)
        width = (3 * self.config.vision_config.temporal_patch_size
                 * self.config.vision_config.patch_size ** 2)
        return Sample(self.image_row(grid, []), torch.zeros(grid[1] * grid[2], width),
                      torch.tensor([grid]))

    def collate(self, drawn):
        """
        Lay samples side by side.

        A batch of text alone gets a blank image, so that every process runs every part of the
        model in every step, as sharded weights need.

        :param drawn: list of (Sample, texts of the records skipped for it).
        :return: Batch.
        """
        samples = [sample for sample, _ in drawn]
        skipped = [text for _, texts in drawn for text in texts]
        if all(sample.pixel_values is None for sample in samples):
            samples.append(self.blank())
        images = [sample for sample in samples if sample.pixel_values is not None]
        packed = pack([sample.row for sample in samples], self._padding)
        names = torch.cat([
            torch.full((2, len(s.pixel_values) // self.token_patches), IGNORED)
            if s.names is None else s.names for s in images], dim=1)
        named_m = torch.cat([
            torch.full((len(s.pixel_values) // self.token_patches,), torch.nan)
            if s.named_m is None else s.named_m for s in images])
        weights = (self.vocabulary.weights(packed.targets) if self.weigh_digits
                   else (packed.targets != IGNORED).float())
        counts = torch.tensor([
            sum(s.depth_m is not None for s in images), weights.sum(),
            int((names[0] != IGNORED).sum()),
            sum(len(s.gaze.columns) for s in images if s.gaze is not None),
            len(skipped)], dtype=torch.float32)
        return Batch(packed, torch.cat([s.pixel_values for s in images]),
                     torch.cat([s.grid_thw for s in images]), [s.depth_m for s in images],
                     names, named_m, weights, [s.gaze for s in images], [s.window for s in images],
                     [s.judged for s in images], self.config.token_px, counts, skipped)

    def _encoded(self, talks):
        return [conversation_ids(self.tokenizer, self.prompt, talk) for talk in talks]
