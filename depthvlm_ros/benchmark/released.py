# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
One image's way as the released inference script goes it, to measure against.

The whole prompt in one pass: every position worked out anew, the output layer over all tokens, a
key-value cache that is built and dropped, the depth head with its 1x1 convolutions behind the
upsampling and its tail in the model's own dtype (upstream examples/run_demo.py and
model/dpt_depth_head.py at 940a9ba, described in words; the weights and the layers are this
package's). It is spared what depends on the machine's image library: the image chain is ours.
"""

from __future__ import annotations

from depthvlm_ros.benchmark.one_prefill import inputs_of
from depthvlm_ros.model.depth_head import DPTDepthHead, upsample
from depthvlm_ros.synthetic.wording import DEPTH_QUESTION
import torch
import torch.nn.functional as F
from transformers import DynamicCache


@torch.inference_mode()
def released_look(predictor, rgb, camera, float32_tail=False):
    """
    Estimate one image's depth the released way.

    :param predictor: model.Predictor, whose weights and tokenizer are used.
    :param rgb: (H, W, 3) uint8.
    :param camera: its Intrinsics.
    :param float32_tail: the head's last layer in float32, to tell what that changes.
    :return: (H, W) numpy float32, metres along the optical axis.
    """
    model = predictor.model
    ids, positions, pixels, grid = inputs_of(predictor, rgb, DEPTH_QUESTION, camera)
    is_image = ids == predictor.config.image_token_id
    tokens, deepstack = model.encode_images(pixels, grid)
    embeds = model.get_input_embeddings()(ids)
    embeds = embeds.masked_scatter(is_image.unsqueeze(-1), tokens.to(embeds.dtype))
    hidden = model.read(embeds, positions, past_key_values=DynamicCache(), is_image=is_image,
                        deepstack=deepstack)
    model.lm_head(hidden)       # over every token, and never read
    merge = predictor.config.vision_config.spatial_merge_size
    _, rows, columns = (side // merge for side in grid[0].tolist())
    depth = released_head(model.depth_head, [x[None] for x in (*deepstack, hidden[is_image])],
                          rows, columns, float32_tail)
    depth = F.interpolate(depth[None].float(), mode='bilinear',
                          size=(camera.height, camera.width))[0, 0]
    scale = predictor.plan(camera).depth_scale
    return (depth * scale).cpu().numpy()


def released_head(head, features, rows, columns, float32_tail=False):
    """
    Run a DPT head in the released order; arguments as the head's own.

    :return: (1, H, W) metres, in the weights' dtype unless float32_tail.
    """
    if not isinstance(head, DPTDepthHead):
        return head(features, rows, columns)
    scratch, maps = head.scratch, []
    for number, x in enumerate(features):
        x = head.norm(x).transpose(1, 2).unflatten(2, (rows, columns))
        x = head.resize_layers[number](head.projects[number](x))
        maps.append(getattr(scratch, f'layer{number + 1}_rn')(x))
    one, two, three, four = maps
    x = released_fusion(scratch.refinenet4, four, three.shape[2:])
    x = released_fusion(scratch.refinenet3, x, two.shape[2:], three)
    x = released_fusion(scratch.refinenet2, x, one.shape[2:], two)
    x = released_fusion(scratch.refinenet1, x, (2 * one.shape[2], 2 * one.shape[3]), one)
    x = upsample(scratch.output_conv1(x), (rows * head.token_px, columns * head.token_px))
    if float32_tail:
        return head.tail(x)
    wide, _, last, softplus = scratch.output_conv2
    return softplus(last(wide(x).relu_())).squeeze(1)   # in place, as there


def released_fusion(block, x, size, skip=None):
    """Fuse as the head's block does, the 1x1 convolution behind the upsampling."""
    if skip is not None:
        x = x + block.resConfUnit1(skip)
    return block.out_conv(upsample(block.resConfUnit2(x), size))
