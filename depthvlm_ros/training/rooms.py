# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Training batches out of synthetic rooms, rendered while the model trains."""

from dataclasses import dataclass

import cv2
from depthvlm_ros.model.preprocessing import plan_resize, preprocess
from depthvlm_ros.synthetic import draw_camera, Scene
from depthvlm_ros.synthetic.vocabulary import COLOURS, DOOR_COLOUR, SHAPES, SURFACES
from depthvlm_ros.training.packing import conversation_ids, pack, Packed
import numpy as np
import torch

LONGEST_CONVERSATION = 160  # tokens

# What a token can be named: a colour (or none, for the room) and a kind of thing or surface.
NAMED_COLOURS = ('', *COLOURS, DOOR_COLOUR)
NAMED_KINDS = (*dict.fromkeys(SURFACES), *SHAPES, 'door')


@dataclass(frozen=True)
class Batch:
    """
    B images of one camera, with what is to be learnt from them.

    :param pixel_values: (patches of all images, 1536) float32.
    :param grid_thw: (B, 3) int64.
    :param depth_m: (B, H, W) float32, metres as the network should see them, at its image's size.
    :param colours: (B, tokens) int64, index into NAMED_COLOURS of what each token's centre shows.
    :param kinds: (B, tokens) int64, index into NAMED_KINDS.
    :param packed: the conversations.
    """

    pixel_values: torch.Tensor
    grid_thw: torch.Tensor
    depth_m: torch.Tensor
    colours: torch.Tensor
    kinds: torch.Tensor
    packed: Packed


class RoomBatches(torch.utils.data.Dataset):
    """
    The batch of every step; a step's number and the seed say all, so a run resumes exactly.

    :param training: TrainingConfig.
    :param model_config: DepthVLMConfig.
    :param tokenizer: the model's tokenizer.
    :param prompt: model.prompt.Prompt.
    :param positions_of: (prefix ids (1, P), grid_thw) -> (3, 1, P) multimodal positions.
    """

    def __init__(self, training, model_config, tokenizer, prompt, positions_of):
        self.training = training
        self.model_config = model_config
        self.tokenizer = tokenizer
        self.prompt = prompt
        self.positions_of = positions_of

    def __len__(self):
        return self.training.steps

    def __getitem__(self, step):
        """Render and encode the batch of a step; returns Batch."""
        rng = np.random.default_rng([self.training.seed, step])
        camera = draw_camera(rng, self.training.native_px)
        plan = plan_resize(camera, self.model_config)
        images = [self._image(rng, camera, plan, self.training.seed * 10**9
                              + step * self.training.batch_size + i)
                  for i in range(self.training.batch_size)]
        pixels, depth, colours, kinds, talks = zip(*images)
        grid = torch.tensor([plan.grid(self.model_config.vision_config.patch_size)])
        prefix = self.prompt.prefix(colours[0].size)
        positions = self.positions_of(torch.tensor([prefix]), grid)[:, 0]
        return Batch(
            torch.cat(pixels), grid.repeat(len(images), 1), torch.from_numpy(np.stack(depth)),
            torch.from_numpy(np.stack(colours)), torch.from_numpy(np.stack(kinds)),
            pack(prefix, positions, talks, self.tokenizer.pad_token_id))

    def _image(self, rng, camera, plan, seed):
        scene = Scene.random(seed, split='train')
        frame = scene.render(camera, scene.pose_at(rng.uniform(0, 20)))
        pixels, _ = preprocess(frame.rgb, camera, self.model_config)
        depth = cv2.resize(frame.depth_m, plan.final, interpolation=cv2.INTER_NEAREST)
        names = token_names(frame, plan.final, self.model_config.token_px)
        return pixels, depth / np.float32(plan.depth_scale), *names, self._talk(rng, frame)

    def _talk(self, rng, frame):
        pairs = frame.questions(int(rng.integers(2**31)))
        weights = np.array([self.training.kinds.get(kind, 0) for _, _, kind in pairs], float)
        counts = {kind: sum(k == kind for _, _, k in pairs) for _, _, kind in pairs}
        weights /= [counts[kind] for _, _, kind in pairs]  # a kind's weight, whatever its number
        some = min(self.training.questions, int((weights > 0).sum()))
        chosen = rng.choice(len(pairs), some, replace=False, p=weights / weights.sum())
        talks = [conversation_ids(self.tokenizer, self.prompt, *pairs[i][:2]) for i in chosen]
        return [talk for talk in talks if len(talk[0]) <= LONGEST_CONVERSATION]


def token_names(frame, size, token_px):
    """
    Name what every image token's centre shows.

    :param frame: synthetic.Frame.
    :param size: (width, height) of the network's image, px.
    :return: (colours, kinds), each (tokens,) int64, row by row.
    """
    grid = size[0] // token_px, size[1] // token_px
    height, width = frame.object_ids.shape
    v = ((np.arange(grid[1]) + 0.5) / grid[1] * height).astype(int)
    u = ((np.arange(grid[0]) + 0.5) / grid[0] * width).astype(int)
    ids = frame.object_ids[np.ix_(v, u)].ravel()
    surfaces = np.array([NAMED_KINDS.index(s) for s in SURFACES])
    kinds = surfaces[frame.surfaces[np.ix_(v, u)].ravel()]
    colours = np.zeros(ids.size, np.int64)
    for thing in frame.objects:
        colours[ids == thing.index] = NAMED_COLOURS.index(thing.colour)
        kinds[ids == thing.index] = NAMED_KINDS.index(thing.shape)
    return colours, kinds.astype(np.int64)
