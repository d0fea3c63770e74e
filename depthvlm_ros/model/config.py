# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Configuration of a DepthVLM: Qwen3-VL's, the depth head's and the image chain's."""

import math

from transformers import Qwen3VLConfig

# The chain of the released inference script: qwen-vl-utils rounds to 28 px, then the
# processor to 32 px within these bounds.
RELEASED_CANONICAL_FX = 1000.0
RELEASED_INTERMEDIATE_MULTIPLE = 28
RELEASED_MIN_PIXELS = 256 * 256
RELEASED_MAX_PIXELS = 4096 * 4096

NUMBERS = ('canonical_fx', 'min_pixels', 'max_pixels', 'intermediate_multiple',
           'depth_head_features', 'depth_head_mlp_hidden', 'depth_loss_weight')
SWITCHES = ('exact_focal', 'canonical_words')
HEAD_TYPES = ('dpt', 'mlp')
FEATURE_MODES = ('llm_last', 'concat', 'sum')


class DepthVLMConfig(Qwen3VLConfig):
    """
    A Qwen3-VL configuration with what the depth head and the image chain need.

    The defaults are the released values, so a released config.json, which states none of them,
    means the released model and the released chain.

    :param canonical_fx: focal length in px to which every image is brought.
    :param min_pixels: fewest pixels of the network's image.
    :param max_pixels: most pixels of the network's image.
    :param intermediate_multiple: the hidden first rounding, in px; 1 turns it off.
    :param exact_focal: depth is multiplied by the focal length that the network's image has over
        the canonical one also where rounding to whole tokens alone made it another, up to 5 % for
        an image of ten tokens by eight; False, as released: only where the pixel bounds did.
    :param canonical_words: the metres in the model's words are multiplied likewise.
    :param depth_head_type: 'dpt' or 'mlp'.
    :param depth_head_features: width of the DPT head's fusion.
    :param depth_head_channels: widths of its four projections, finest first.
    :param depth_head_mlp_hidden: hidden width of the MLP head.
    :param depth_head_feature_mode: what the MLP head reads: 'llm_last', 'concat' or 'sum'.
    :param depth_loss_weight: weight of the depth loss beside the language loss.
    :raises ValueError: a value outside its range.
    """

    canonical_fx: float = RELEASED_CANONICAL_FX
    min_pixels: int = RELEASED_MIN_PIXELS
    max_pixels: int = RELEASED_MAX_PIXELS
    intermediate_multiple: int = RELEASED_INTERMEDIATE_MULTIPLE
    exact_focal: bool = False
    canonical_words: bool = False
    depth_head_type: str = 'dpt'
    depth_head_features: int = 256
    depth_head_channels: list[int] | tuple[int, ...] = (256, 512, 1024, 1024)
    depth_head_mlp_hidden: int = 1024
    depth_head_feature_mode: str = 'llm_last'
    depth_loss_weight: float = 1.0

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        for name in (*NUMBERS, *SWITCHES):
            value, is_switch = getattr(self, name), name in SWITCHES
            if not isinstance(value, int | float) or isinstance(value, bool) != is_switch:
                raise ValueError(f'{name} is {value!r}, '
                                 f'wanted {"true or false" if is_switch else "a number"}')
        if not 0 < self.canonical_fx < math.inf:
            raise ValueError(f'canonical_fx is {self.canonical_fx}, wanted a focal length > 0 px')
        if not 0 < self.min_pixels <= self.max_pixels:
            raise ValueError(f'min_pixels is {self.min_pixels} and max_pixels {self.max_pixels}, '
                             'wanted 0 < min_pixels <= max_pixels')
        if self.intermediate_multiple < 1 or self.intermediate_multiple % 1:
            raise ValueError(f'intermediate_multiple is {self.intermediate_multiple}, wanted a '
                             'whole number >= 1')
        if self.depth_head_type not in HEAD_TYPES:
            raise ValueError(f'depth_head_type is {self.depth_head_type!r}, '
                             f'wanted one of {HEAD_TYPES}')
        if self.depth_head_feature_mode not in FEATURE_MODES:
            raise ValueError(f'depth_head_feature_mode is {self.depth_head_feature_mode!r}, '
                             f'wanted one of {FEATURE_MODES}')
        if len(self.depth_head_channels) != 4 or min(self.depth_head_channels) < 1:
            raise ValueError(f'depth_head_channels is {self.depth_head_channels}, '
                             'wanted four widths >= 1')
        deepstack = self.vision_config.deepstack_visual_indexes
        if self.depth_head_type == 'dpt' and len(deepstack) != 3:
            raise ValueError(f'deepstack_visual_indexes is {list(deepstack)}, '
                             'wanted three: the DPT head reads three DeepStack features')
        if not all(0 <= index < self.vision_config.depth for index in deepstack):
            raise ValueError(f'deepstack_visual_indexes is {list(deepstack)}, wanted layers of '
                             f'the {self.vision_config.depth} of the vision tower')

    @property
    def token_px(self) -> int:
        """Return the side of one image token in px of the network's image (32)."""
        return self.vision_config.patch_size * self.vision_config.spatial_merge_size
