# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
What the benchmark can judge: anything with these two methods.

    load(source, device)        a class method: get the model ready
    depth(rgb, intrinsics)      metres along the optical axis, at the image's size

A predictor is named KIND:SOURCE. KIND is one of KINDS below, or a class anywhere, written as
package.module.Class, so that others need no change here. A name without a kind is a DepthVLM.
"""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path
from typing import Protocol

from depthvlm_ros.benchmark.loading import PLAIN
from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.model import Predictor
from depthvlm_ros.model.checkpoint import locate, read_config, shard_files
from depthvlm_ros.model.predictor import resolve_device
import numpy as np
import torch
from transformers import AutoConfig, AutoImageProcessor, AutoModelForDepthEstimation

NANO = 'nano'       # the DepthVLM of a name without a source
CONSTANT_M = 2.0  # the baseline in the paper's table of vision-language models


class DepthPredictor(Protocol):
    """A metric-depth model, as the benchmark needs it."""

    @classmethod
    def load(cls, source: str, device: str = 'auto') -> DepthPredictor:
        """
        Get a model ready.

        :param source: what stands behind the colon of its name, '' for nothing.
        :param device: 'auto', 'cpu', 'cuda' or 'cuda:N'.
        :raises ValueError: a source that cannot be used.
        """

    def depth(self, rgb: np.ndarray, intrinsics: Intrinsics) -> np.ndarray:
        """
        Predict depth.

        :param rgb: (H, W, 3) uint8.
        :param intrinsics: the image's camera.
        :return: (H, W) float32, metres along the optical axis, NaN where unknown.
        :raises ValueError: an image that it cannot take; it is counted and left out.
        """


class Constant:
    """
    The same depth everywhere.

    :param depth_m: in metres.
    """

    def __init__(self, depth_m=CONSTANT_M):
        self.depth_m = depth_m

    @classmethod
    def load(cls, source, device='auto'):
        """Read the metres from the source, 2 where there are none."""
        try:
            depth_m = float(source or CONSTANT_M)
        except ValueError:
            depth_m = float('nan')
        if not 0 < depth_m < float('inf'):
            raise ValueError(f'constant depth is {source!r}, wanted metres above 0')
        return cls(depth_m)

    def depth(self, rgb, intrinsics):
        """Return the constant."""
        return np.full(rgb.shape[:2], self.depth_m, np.float32)


class DepthVLMDepth:
    """
    A DepthVLM.

    :param predictor: model.Predictor.
    """

    def __init__(self, predictor):
        self.predictor = predictor

    @classmethod
    def load(cls, source, device='auto', **loading):
        """Load 'nano', a folder or a hub id; loading as Predictor.from_pretrained takes it."""
        return cls(Predictor.from_pretrained(source or NANO, device=device, **loading))

    def depth(self, rgb, intrinsics):
        """Return the depth of one look."""
        return self.predictor.look(rgb, intrinsics).depth_m

    @torch.inference_mode()
    def network_depth(self, rgb, intrinsics):
        """
        Return the network's own map, as the released evaluation reads it.

        :param intrinsics: of a canonical image; for a model with another canonical focal length
            the map is brought to the image's size, since it has no such coordinates.
        :return: (rows * 32, columns * 32) float32 metres.
        """
        predictor = self.predictor
        if predictor.config.canonical_fx != intrinsics.fx:
            return self.depth(rgb, intrinsics)
        ids, positions, pixels, grid, _ = predictor.inputs_of([(rgb, intrinsics)])
        out = predictor.model(ids, pixel_values=pixels, image_grid_thw=grid,
                              position_ids=positions, logits_to_keep=0)
        return out.depth_pred[0].float().cpu().numpy()


class TransformersDepth:
    """
    A metric model of transformers' own, such as Depth Anything V2 metric or ZoeDepth.

    :param model: as AutoModelForDepthEstimation loads it.
    :param processor: its image processor.
    """

    # Relative ones (DPT, GLPN, most of Depth Anything) have no metres to judge.
    METRIC = ('zoedepth', 'depth_pro')

    def __init__(self, model, processor):
        self.model = model.eval()
        self.processor = processor

    @classmethod
    def load(cls, source, device='auto'):
        """Load a folder or a hub id; a model whose output is not metric is refused."""
        config = AutoConfig.from_pretrained(source)
        metric = getattr(config, 'depth_estimation_type', '') == 'metric'
        if not metric and config.model_type not in cls.METRIC:
            raise ValueError(f'{source}: {config.model_type} with depth_estimation_type '
                             f'{getattr(config, "depth_estimation_type", None)!r} is not metric, '
                             f"wanted 'metric' or one of {cls.METRIC}")
        model = AutoModelForDepthEstimation.from_pretrained(source, use_safetensors=True)
        processor = AutoImageProcessor.from_pretrained(source, backend='pil')
        return cls(model.to(resolve_device(device)), processor)

    @torch.inference_mode()
    def depth(self, rgb, intrinsics):
        """Return the model's depth; it takes no account of the camera."""
        inputs = self.processor(images=rgb, return_tensors='pt').to(self.model.device)
        outputs = self.model(**inputs)
        sizes = {'target_sizes': [rgb.shape[:2]]}
        if self.model.config.model_type == 'zoedepth':
            sizes['source_sizes'] = [rgb.shape[:2]]
        found = self.processor.post_process_depth_estimation(outputs, **sizes)
        return found[0]['predicted_depth'].float().cpu().numpy()


KINDS = {'constant': Constant, 'depthvlm': DepthVLMDepth, 'transformers': TransformersDepth}


def load_predictor(name, device='auto', loading=PLAIN):
    """
    Load a predictor by its name.

    :param name: 'constant', 'constant:METRES', 'transformers:FOLDER_OR_HUB_ID',
        'package.module.Class:SOURCE', or a DepthVLM: 'nano', a folder or a hub id.
    :param loading: Loading, which a DepthVLM alone can follow.
    :raises ValueError: no such kind, a source that cannot be used, or another model than a
        DepthVLM to be loaded otherwise than it is by default.
    """
    kind, source = kind_and_source(name)
    if kind is DepthVLMDepth:
        return kind.load(source, device, **loading.as_dict())
    if loading.changed():
        raise ValueError(f'{", ".join(loading.changed())} with model {name!r}, wanted a DepthVLM '
                         'or none of them')
    return kind.load(source, device)


def kind_and_source(name):
    """
    Return the class that a predictor's name stands for, and what that one is to load.

    :raises ValueError: no such kind.
    """
    kind, colon, source = name.partition(':')
    if kind in KINDS:
        return KINDS[kind], source
    if not colon or Path(name).is_dir():
        return DepthVLMDepth, name
    return imported_class(kind), source


def digest_of(name):
    """
    Return what tells a DepthVLM from others of its name, such as itself after more training.

    :param name: as load_predictor takes it.
    :return: SHA-256 of its configuration and weights; None of any other predictor.
    :raises ValueError: no such kind, or checkpoint.
    """
    kind, source = kind_and_source(name)
    if kind is not DepthVLMDepth:
        return None
    folder = locate(source or NANO)
    read_config(folder)     # for its error where there is none
    digest = hashlib.sha256((folder / 'config.json').read_bytes())
    for path in shard_files(folder):
        with open(path, 'rb') as file:
            while block := file.read(1 << 24):
                digest.update(block)
    return digest.hexdigest()


def imported_class(path):
    """Import package.module.Class."""
    module, _, name = path.rpartition('.')
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as e:
        raise ValueError(f'predictor kind is {path!r} ({e}), wanted one of {sorted(KINDS)} or an '
                         'importable package.module.Class') from e
    lacking = [method for method in ('load', 'depth') if not callable(getattr(kind, method, None))]
    if lacking:
        raise ValueError(f'predictor kind {path!r} has no {" and no ".join(lacking)}, wanted both '
                         'methods, see DepthPredictor')
    return kind
