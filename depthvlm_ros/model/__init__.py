# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The vision-language model with its depth head, and how to load and ask it."""

from depthvlm_ros.model.checkpoint import CheckpointError
from depthvlm_ros.model.config import DepthVLMConfig
from depthvlm_ros.model.decoding import Answer, Decoding
from depthvlm_ros.model.depthvlm import DepthVLM
from depthvlm_ros.model.predictor import Predictor, View
from depthvlm_ros.model.preprocessing import preprocess

__all__ = ['Answer', 'CheckpointError', 'Decoding', 'DepthVLM', 'DepthVLMConfig', 'Predictor',
           'View', 'preprocess']
