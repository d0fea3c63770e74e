# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
What every test runs under: its own corner of DDS, on this machine alone, and few threads.

It stands in the environment before rclpy or torch is imported, and so also in that of the
processes that tests start.
"""

import itertools
import os
from pathlib import Path
import tempfile

from depthvlm_ros.nodes.demo.node_process import free_domain
import pytest

os.environ['ROS_DOMAIN_ID'] = str(free_domain())
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
if os.environ.get('ROS_DISTRO') == 'humble':
    os.environ['ROS_LOCALHOST_ONLY'] = '1'
_LOGS = tempfile.TemporaryDirectory(prefix='depthvlm_ros_test_')
os.environ['ROS_LOG_DIR'] = _LOGS.name
os.environ['HF_HUB_OFFLINE'] = '1'
os.environ.setdefault('OMP_NUM_THREADS', '2')


def pytest_unconfigure():
    """Remove the run's logs."""
    _LOGS.cleanup()


TINY = {
    'canonical_fx': 64.0, 'min_pixels': 4096, 'max_pixels': 65536, 'intermediate_multiple': 1,
    'depth_head_features': 8, 'depth_head_channels': [8, 8, 8, 8], 'tie_word_embeddings': True,
    'text_config': {
        'hidden_size': 32, 'intermediate_size': 64, 'num_hidden_layers': 3,
        'num_attention_heads': 2, 'num_key_value_heads': 1, 'head_dim': 16,
        'max_position_embeddings': 4096, 'initializer_range': 0.2,
        'rope_parameters': {'rope_type': 'default', 'rope_theta': 10000.0,
                            'mrope_section': [4, 2, 2], 'mrope_interleaved': True}},
    'vision_config': {
        'depth': 4, 'hidden_size': 32, 'intermediate_size': 64, 'num_heads': 2,
        'out_hidden_size': 32, 'num_position_embeddings': 64,
        'deepstack_visual_indexes': [0, 1, 2], 'initializer_range': 0.2},
}


@pytest.fixture(scope='session')
def data():
    """Return the folder of the tests' fixtures."""
    return Path(__file__).parent / 'data'


@pytest.fixture(scope='session')
def tiny_training():
    """Return the training configuration of a three-layer model (DeepStack needs three)."""
    from depthvlm_ros.training.config import RoomSource, TrainingConfig
    rooms = RoomSource(native_px=(48, 64), questions=3,
                       kinds={'far': 1, 'closer': 1, 'point': 1, 'depth': 1})
    return TrainingConfig(
        model=TINY, vocab_size=400, vocab_rooms=20, sources=(rooms,), thaw_vision=True, steps=4,
        batch_size=2, warm_up=1, naming_weight=0.2, log_l1_weight=0.3, saved_dtype='float16')


@pytest.fixture(scope='session')
def tiny_checkpoint(tiny_training, tmp_path_factory):
    """Return the folder of a three-layer checkpoint, random weights, in the released layout."""
    from depthvlm_ros.training.start import build
    from depthvlm_ros.training.state import save_checkpoint
    folder = tmp_path_factory.mktemp('tiny')
    model, tokenizer, _ = build(tiny_training)
    save_checkpoint(model, tokenizer, folder)
    return folder


@pytest.fixture
def put_words():
    """Return a function that puts words into a model's mouth, for one question at a time."""
    def put_words(predictor, words):
        ids = predictor.tokenizer(words, add_special_tokens=False)['input_ids']
        turn = itertools.cycle([*ids, min(predictor.prompt.stops)])

        def put(module, inputs, logits):
            logits[:] = 0
            logits[:, next(turn)] = 1
            return logits
        predictor.model.lm_head.register_forward_hook(put)
        return len(ids)
    return put_words
