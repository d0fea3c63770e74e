# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""DepthVLM (arXiv 2605.15876): transformers' Qwen3-VL with a depth head at its image tokens."""

from dataclasses import dataclass
import inspect

from depthvlm_ros.model.config import DepthVLMConfig
from depthvlm_ros.model.depth_head import build_depth_head
import torch
from torch import nn
from transformers import Cache
from transformers.models.qwen3_vl.modeling_qwen3_vl import (
    Qwen3VLModel,
    Qwen3VLPreTrainedModel,
    Qwen3VLTextModel,
)

# transformers calls the cache `past_key_values` to 5.23, `cache` from 5.24.
CACHE = ('cache' if 'cache' in inspect.signature(Qwen3VLTextModel.forward).parameters
         else 'past_key_values')


@dataclass
class DepthVLMOutput:
    """
    What one forward pass gives.

    :param logits: (B, kept, vocabulary) of the kept positions.
    :param depth_pred: for every image (rows * 32, columns * 32) float32, metres along the optical
        axis as seen at the canonical focal length.
    :param hidden: (B, S, hidden), the language model's last hidden states after its norm.
    :param past_key_values: the cache given, grown by this pass.
    """

    logits: torch.Tensor | None = None
    depth_pred: list | None = None
    hidden: torch.Tensor | None = None
    past_key_values: Cache | None = None


class DepthVLM(Qwen3VLPreTrainedModel):
    """
    A vision-language model that is also a metric-depth model.

    State-dict keys are the released checkpoint's: `model.visual`, `model.language_model`,
    `lm_head` and `depth_head`.
    """

    config_class = DepthVLMConfig
    _tied_weights_keys = {'lm_head.weight': 'model.language_model.embed_tokens.weight'}

    def __init__(self, config):
        super().__init__(config)
        self.model = Qwen3VLModel(config)
        self.lm_head = nn.Linear(
            config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.depth_head = build_depth_head(config)
        self.post_init()

    def forward(self, input_ids, attention_mask=None, pixel_values=None, image_grid_thw=None,
                position_ids=None, past_key_values=None, logits_to_keep=1, with_depth=True,
                depth_windows=None):
        """
        Run vision tower and language model once, and the depth head on every image.

        :param input_ids: (B, S); every image stands as its run of image tokens.
        :param attention_mask: (B, S), 0 at padding; left out: none is padding.
        :param pixel_values: (patches of all images, 1536) float32, as `preprocess` gives them.
        :param image_grid_thw: (images, 3), each image's grid of patches.
        :param position_ids: (3, B, S) multimodal positions; computed where left out, which goes
            for the begin of a conversation alone.
        :param past_key_values: a cache to continue and grow.
        :param logits_to_keep: how many last positions get logits; the output layer never runs
            over image tokens unless asked for here.
        :param with_depth: False skips the depth head.
        :param depth_windows: for every image the depth_head.Window whose depth is wanted, None for
            all of it; left out: all of each. Training on parts spares most of the head's time.
        :raises ValueError: image tokens and pixel values that do not belong together, or a cache
            that is continued without positions.
        """
        embeds = self.model.get_input_embeddings()(input_ids)
        is_image = input_ids == self.config.image_token_id
        deepstack = None
        if pixel_values is not None:
            tokens, deepstack = self.encode_images(pixel_values, image_grid_thw)
            if int(is_image.sum()) != len(tokens):
                raise ValueError(f'input_ids hold {int(is_image.sum())} image tokens, the images '
                                 f'give {len(tokens)}')
            embeds = embeds.masked_scatter(is_image.unsqueeze(-1), tokens.to(embeds.dtype))
        if position_ids is None and past_key_values is not None and (
                past_key_values.get_seq_length() > 0):
            raise ValueError('past_key_values holds tokens already and position_ids are left out, '
                             'wanted those of the tokens that follow')
        if position_ids is None:
            position_ids = self.positions(input_ids, attention_mask, image_grid_thw)
        hidden = self.read(embeds, position_ids, attention_mask, past_key_values,
                           is_image if deepstack else None, deepstack)
        depth = None
        if with_depth and deepstack:
            depth = self.estimate_depth(deepstack, hidden[is_image], image_grid_thw,
                                        depth_windows)
        logits = self.lm_head(hidden[:, -logits_to_keep:]) if logits_to_keep else None
        return DepthVLMOutput(logits=logits, depth_pred=depth, hidden=hidden,
                              past_key_values=past_key_values)

    def encode_images(self, pixel_values, image_grid_thw):
        """Run the vision tower: (tokens, hidden), and three DeepStack features of that shape."""
        out = self.model.visual(pixel_values.to(self.model.visual.dtype), grid_thw=image_grid_thw)
        return out.pooler_output, list(out.deepstack_features)

    def read(self, embeds, position_ids, attention_mask=None, past_key_values=None,
             is_image=None, deepstack=None):
        """Run the language model over embeddings (B, S, hidden) to its last hidden states."""
        return self.model.language_model(
            inputs_embeds=embeds, position_ids=position_ids, attention_mask=attention_mask,
            use_cache=past_key_values is not None, visual_pos_masks=is_image,
            deepstack_visual_embeds=deepstack, **{CACHE: past_key_values}).last_hidden_state

    def estimate_depth(self, deepstack, last_hidden, image_grid_thw, windows=None):
        """
        Run the depth head, once for all images of one grid.

        :param deepstack: three (tokens of all images, hidden), images in order.
        :param last_hidden: the same shape: the language model's states at the image tokens.
        :param image_grid_thw: (images, 3).
        :param windows: as forward's depth_windows.
        :return: list of (H, W) float32, metres, one an image, or of its window's size.
        """
        merge = self.config.vision_config.spatial_merge_size
        grids = [(h // merge, w // merge) for _, h, w in image_grid_thw.tolist()]
        counts = [rows * columns for rows, columns in grids]
        features = [f.split(counts) for f in (*deepstack, last_hidden)]
        depth = [None] * len(grids)
        for grid in dict.fromkeys(grids):
            same = [i for i, g in enumerate(grids) if g == grid]
            stacked = [torch.stack([f[i] for i in same]) for f in features]
            of_same = None if windows is None else [windows[i] for i in same]
            for i, metres in zip(same, self.depth_head(stacked, *grid, of_same)):
                depth[i] = metres
        return depth

    def positions(self, input_ids, attention_mask=None, image_grid_thw=None):
        """
        Return the multimodal positions (3, B, S): time, row, column.

        After an image they go on at its start + max(rows, columns).
        """
        types = (input_ids == self.config.image_token_id).int()
        return self.model.get_rope_index(input_ids, mm_token_type_ids=types,
                                         image_grid_thw=image_grid_thw,
                                         attention_mask=attention_mask)[0]
