# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The depth heads: features at the image tokens in, metres along the optical axis out.

The DPT head follows Ranftl et al., Vision Transformers for Dense Prediction (arXiv 2103.13413), in
the variant of DepthVLM (arXiv 2605.15876; upstream model/dpt_depth_head.py at 940a9ba). Module
names are those of the released checkpoint.
"""

from dataclasses import dataclass

import torch
from torch import nn
import torch.nn.functional as F

UPSAMPLE = (8, 4, 2, 1)  # of the four projections, over the token grid
TAIL_FEATURES = 32
MOST_ELEMENTS = 2**31 - 1     # of a map: torch's bilinear kernels on a GPU count them in 32 bits


@dataclass(frozen=True)
class Window:
    """
    A part of the network's image, px: rows from v_min to before v_max, columns likewise.

    :raises ValueError: an empty one, or one that begins before the image.
    """

    v_min: int
    v_max: int
    u_min: int
    u_max: int

    def __post_init__(self):
        if not (0 <= self.v_min < self.v_max and 0 <= self.u_min < self.u_max):
            raise ValueError(f'the window is {self}, wanted 0 <= v_min < v_max and '
                             '0 <= u_min < u_max')

    def of(self, x):
        """Cut the window out of (..., H, W)."""
        return x[..., self.v_min:self.v_max, self.u_min:self.u_max]

    def grown(self, px, height, width):
        """Return the window with px more on every side, within an image of that size."""
        return Window(max(0, self.v_min - px), min(height, self.v_max + px),
                      max(0, self.u_min - px), min(width, self.u_max + px))

    def within(self, other):
        """Return the window as it lies in another one that holds it."""
        return Window(self.v_min - other.v_min, self.v_max - other.v_min,
                      self.u_min - other.u_min, self.u_max - other.u_min)


class ResidualConvUnit(nn.Module):
    """
    Two 3x3 convolutions beside a shortcut.

    The shortcut carries relu(x), not x: the released unit's ReLU works in place, so its weights
    were trained that way.
    """

    def __init__(self, features):
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x):
        """Map (B, features, H, W) to the same shape."""
        x = F.relu(x)
        return self.conv2(self.conv1(x).relu_()) + x    # in place: it is nobody else's


class FusionBlock(nn.Module):
    """Add a finer skip to the coarser map, refine, and bring it to the next size."""

    def __init__(self, features, has_skip=True):
        super().__init__()
        self.out_conv = nn.Conv2d(features, features, 1)
        if has_skip:
            self.resConfUnit1 = ResidualConvUnit(features)
        self.resConfUnit2 = ResidualConvUnit(features)

    def forward(self, x, size, skip=None):
        """Map (B, features, h, w) and a skip of the same shape to (B, features, *size)."""
        if skip is not None:
            x = x + self.resConfUnit1(skip)
        x = self.resConfUnit2(x)
        # The 1x1 convolution commutes with the interpolation, whose weights sum to one; before
        # it, it costs a quarter.
        return upsample(self.out_conv(x), size)


def upsample(x, size):
    """Bring (B, C, h, w) to size (H, W), bilinear, corners aligned."""
    return F.interpolate(x, size=size, mode='bilinear', align_corners=True)


def upsample_part(x, size, window):
    """
    Return a window of what `upsample` gives, at the window's cost.

    :param x: (B, C, h, w).
    :param size: (H, W) of the whole.
    :param window: Window of the whole.
    """
    spans = (window.v_min, window.v_max), (window.u_min, window.u_max)
    for dim, whole, span in zip((2, 3), size, spans):
        place = torch.arange(*span, device=x.device) * ((x.shape[dim] - 1) / (whole - 1))
        low = place.floor().long().clamp(max=x.shape[dim] - 2)
        share = (place - low).to(x.dtype)
        share = share[:, None] if dim == 2 else share
        x = torch.lerp(x.index_select(dim, low), x.index_select(dim, low + 1), share)
    return x


class DPTDepthHead(nn.Module):
    """
    Dense depth from four feature maps of one width.

    :param dim_in: width of the features.
    :param features: width of the fusion.
    :param channels: widths of the four projections, finest first.
    :param token_px: side of one token in px of the network's image.
    """

    def __init__(self, dim_in, features=256, channels=(256, 512, 1024, 1024), token_px=32):
        super().__init__()
        self.token_px = token_px
        self.norm = nn.LayerNorm(dim_in)
        self.projects = nn.ModuleList(nn.Conv2d(dim_in, c, 1) for c in channels)
        self.resize_layers = nn.ModuleList(
            nn.ConvTranspose2d(c, c, s, stride=s) if s > 1 else nn.Identity()
            for c, s in zip(channels, UPSAMPLE))
        self.scratch = nn.Module()
        for i, c in enumerate(channels, start=1):
            setattr(self.scratch, f'layer{i}_rn', nn.Conv2d(c, features, 3, padding=1, bias=False))
            setattr(self.scratch, f'refinenet{i}', FusionBlock(features, has_skip=i < 4))
        self.scratch.output_conv1 = nn.Conv2d(features, features // 2, 3, padding=1)
        self.scratch.output_conv2 = nn.Sequential(
            nn.Conv2d(features // 2, TAIL_FEATURES, 3, padding=1), nn.ReLU(),
            nn.Conv2d(TAIL_FEATURES, 1, 1), nn.Softplus())

    def forward(self, features, rows, columns, windows=None):
        """
        Estimate depth at the size of the network's image.

        :param features: four tensors (B, rows * columns, dim_in): the DeepStack features, then
            the language model's last hidden states.
        :param rows: token rows.
        :param columns: token columns.
        :param windows: for every image the Window that is wanted, or None: all of it. Left out:
            all of each.
        :return: (B, rows * token_px, columns * token_px) float32, metres, > 0; with windows a
            list of B, each of its window's size.
        """
        largest = self.scratch.output_conv1.out_channels * rows * columns * self.token_px**2
        most = max(1, MOST_ELEMENTS // largest)
        if len(features[0]) <= most:
            return self._estimate(features, rows, columns, windows)
        batches = zip(*(x.split(most) for x in features))
        if windows is None:
            return torch.cat([self._estimate(some, rows, columns) for some in batches])
        return [one for i, some in enumerate(batches)
                for one in self._estimate(some, rows, columns, windows[i * most:(i + 1) * most])]

    def _estimate(self, features, rows, columns, windows=None):
        """Do what forward does, for so few images that every map can be indexed."""
        maps = []
        for i, x in enumerate(features):
            x = self.norm(x).transpose(1, 2).unflatten(2, (rows, columns))
            x = self.resize_layers[i](self.projects[i](x))
            maps.append(getattr(self.scratch, f'layer{i + 1}_rn')(x))
        x = self.scratch.output_conv1(self.fuse(maps))
        size = rows * self.token_px, columns * self.token_px
        if windows is None:
            return self.tail(upsample(x, size))
        return [self.tail_in(one[None], size, window) for one, window in zip(x, windows)]

    def tail_in(self, x, size, window):
        """Return one image's metres (h, w) in a window: those of the whole, which is not made."""
        if window is None:
            return self.tail(upsample(x, size))[0]
        # The tail's 3x3 convolution sees one px around.
        around = window.grown(1, *size)
        return window.within(around).of(self.tail(upsample_part(x, size, around))[0])

    def fuse(self, maps):
        """Fuse four maps (B, features, s * rows, s * columns), finest first, from the coarsest."""
        one, two, three, four = maps
        x = self.scratch.refinenet4(four, three.shape[2:])
        x = self.scratch.refinenet3(x, two.shape[2:], three)
        x = self.scratch.refinenet2(x, one.shape[2:], two)
        return self.scratch.refinenet1(x, (2 * one.shape[2], 2 * one.shape[3]), one)

    def tail(self, x):
        """
        Map (B, features / 2, H, W) to metres (B, H, W) float32.

        The last projection and the softplus run in float32: bfloat16 metres would step by 1/4 m
        at 50 m.
        """
        wide, _, last, _ = self.scratch.output_conv2
        x = wide(x).relu_().float()     # in place: at this size new memory costs much time
        with torch.autocast(x.device.type, enabled=False):
            return F.softplus(F.conv2d(x, last.weight.float(), last.bias.float())).squeeze(1)


class MLPDepthHead(nn.Module):
    """
    The paper's ablation: every token predicts its own square (upstream mlp_depth_head.py).

    :param feature_mode: 'llm_last' reads the last feature, 'concat' all four side by side, 'sum'
        their sum.
    """

    def __init__(self, dim_in, hidden=1024, feature_mode='llm_last', token_px=32):
        super().__init__()
        width = dim_in * 4 if feature_mode == 'concat' else dim_in
        self.feature_mode = feature_mode
        self.token_px = token_px
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, token_px * token_px))

    def forward(self, features, rows, columns, windows=None):
        """Estimate depth; arguments and result as the DPT head's."""
        if self.feature_mode == 'concat':
            x = torch.cat(tuple(features), dim=-1)
        else:
            x = sum(features) if self.feature_mode == 'sum' else features[-1]
        x = self.mlp(self.norm(x)).float()
        x = x.unflatten(2, (self.token_px, self.token_px)).unflatten(1, (rows, columns))
        depth = F.softplus(x.transpose(2, 3).flatten(3, 4).flatten(1, 2))
        if windows is None:
            return depth
        return [one if window is None else window.of(one) for one, window in zip(depth, windows)]


def build_depth_head(config):
    """Build the head that a DepthVLMConfig describes."""
    dim_in = config.text_config.hidden_size
    if config.depth_head_type == 'mlp':
        return MLPDepthHead(dim_in, config.depth_head_mlp_hidden, config.depth_head_feature_mode,
                            config.token_px)
    return DPTDepthHead(dim_in, config.depth_head_features, config.depth_head_channels,
                        config.token_px)
