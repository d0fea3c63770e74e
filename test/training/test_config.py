# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0

from dataclasses import fields, replace

from depthvlm_ros.training.config import (
    AnnotatedSource,
    ChatSource,
    CONFIGS,
    LEAST_VOCABULARY,
    RoomSource,
    TrainingConfig,
)
from depthvlm_ros.training.start import build
from depthvlm_ros.training.tokenizer import train_tokenizer
import pytest
import yaml


def test_the_papers_recipe_stands_in_the_configs():
    one, two = (TrainingConfig.load(f'released_4b_stage{n}') for n in (1, 2))
    assert (one.stage, one.learning_rate, one.warm_up, one.global_batch) == (1, 3.5e-4, 0.04, 2560)
    assert (two.stage, two.learning_rate, two.warm_up, two.global_batch) == (2, 2e-5, 0.05, 640)
    assert one.start == 'Qwen/Qwen3-VL-4B-Instruct' and two.start == ''
    for stage in (one, two):
        assert (stage.schedule, stage.clip, stage.precision, stage.seed, stage.steps) == (
            'cosine', 1.0, 'bf16', 42, 0)
        assert stage.gradient_checkpointing and not stage.thaw_vision
        assert (stage.depth_weight, stage.log_l1_weight, stage.naming_weight) == (1.0, 0.0, 0.0)
        assert len(stage.sources) == 8


def test_every_dataset_of_the_recipe_has_its_range():
    from depthvlm_ros.benchmark.annotations import dataset_of
    sources = TrainingConfig.load('released_4b_stage1').sources
    assert {dataset_of(s.annotations).name for s in sources} == {
        'Argoverse2', 'Waymo', 'DDAD', 'nuScenes', 'ScanNet++', 'HM3D', 'Taskonomy',
        'Matterport3D'}


def test_nano_is_a_small_model_on_rooms():
    nano = TrainingConfig.load('nano')
    assert [type(s) for s in nano.sources] == [RoomSource] and nano.thaw_vision
    model, _, _ = build(replace(nano, vocab_rooms=20))
    assert 10e6 < sum(p.numel() for p in model.parameters()) < 12.5e6    # 25 MB in float16


def test_the_least_vocabulary_is_one_that_the_tokenizer_fits_into():
    assert len(train_tokenizer(['a few words, a few words'], LEAST_VOCABULARY)) == LEAST_VOCABULARY


def test_numbers_without_a_dot_are_numbers_wherever_they_stand(tmp_path):
    path = tmp_path / 'x.yaml'
    path.write_text('learning_rate: 1e-4\nbetas: [9e-1, 1e-3]\n'
                    'sources: [{kind: rooms, share: 1e-1}]')
    training = TrainingConfig.load(path)
    assert (training.learning_rate, training.betas) == (1e-4, (0.9, 1e-3))
    assert training.sources[0].share == 0.1
    path.write_text('')
    assert TrainingConfig.load(path) == TrainingConfig()


def test_fields_and_sources_are_read(tmp_path):
    path = tmp_path / 'x.yaml'
    path.write_text(yaml.safe_dump({'stage': 1, 'start': 'a/b', 'sources': [
        {'kind': 'annotated', 'annotations': 'a.jsonl', 'rgb_root': 'rgb', 'depth_root': 'd',
         'range_m': [1, 2]},
        {'kind': 'chats', 'file': 'q.jsonl', 'share': 0.1},
        {'kind': 'rooms', 'share': 0.2, 'native_px': [100, 120]}]}))
    training = TrainingConfig.load(path, steps=3)
    assert training.stage == 1 and training.start == 'a/b' and training.steps == 3
    assert training.sources == (
        AnnotatedSource('a.jsonl', 'rgb', 'd', range_m=(1, 2)),
        ChatSource('q.jsonl', share=0.1), RoomSource(share=0.2, native_px=(100, 120)))


@pytest.mark.parametrize(('text', 'said'), [
    ('step: 3', r"x.yaml: TrainingConfig has no field \['step'\], wanted some of"),
    ('steps: -1', 'steps is -1, wanted >= 0'),
    ('stage: 3', r'stage is 3, wanted one of \(1, 2\)'),
    ('schedule: linear', "schedule is 'linear', wanted one of"),
    ('precision: fp8', "precision is 'fp8', wanted one of"),
    ('learning_rate: 0', 'learning_rate is 0, wanted > 0'),
    ('decay: 2', 'decay is 2, wanted a share'),
    ('sources: []', 'sources is empty, wanted at least one'),
    ('sources: [5]', 'a source is 5, wanted fields with a kind'),
    ('{stage: 1, sources: [{kind: chats, file: a}]}', 'sources are chats alone in stage 1'),
    ('sources: [{kind: rooms, kinds: {}}]', 'kinds is {}, wanted one above 0'),
    ('sources: [{kind: chats, file: a, max_image_tokens: -1}]', 'max_image_tokens is -1, wanted'),
    ('sources: [{kind: video}]', "a source is of kind 'video', wanted one of"),
    ('sources: [{kind: chats}]', "missing 1 required positional argument: 'file'"),
    ('sources: [{kind: rooms, share: 2}]', r'share of a source is 2, wanted one in \(0, 1\]'),
    ('betas: [0.9, fast]', "betas is 'fast', wanted a number"),
    ('betas: 0.9', 'betas is 0.9, wanted 2 numbers'),
    ('thaw_vision: "no"', "thaw_vision is 'no', wanted true or false"),
    ('model: 5', 'model is 5, wanted fields'),
    ('start: 5', 'start is 5, wanted text'),
    ('depth_weight: -1', 'depth_weight is -1, wanted >= 0'),
    ('learning_rate: .inf', 'learning_rate is inf, wanted a number'),
    ('sources: {kind: rooms}', r"sources is {'kind': 'rooms'}, wanted a list"),
    ('sources: [{kind: rooms, kinds: [far]}]', r"kinds is \['far'\], wanted fields"),
    ('sources: [{kind: rooms, kinds: {far: -1}}]', "kinds is {'far': -1}, wanted how often"),
    ('sources: [{kind: rooms, numbers: []}]', r'numbers is \[\], wanted how often'),
    ('sources: [{kind: rooms, numbers: [1, 0]}]', r'numbers is \[1, 0\], wanted how often'),
    ('sources: [{kind: rooms, numbers: 3}]', 'numbers is 3, wanted a list of numbers'),
    ('sources: [{kind: rooms, questions: 0}]', 'questions is 0, wanted >= 1'),
    ('sources: [{kind: rooms, native_px: [400, 240]}]', r'native_px is \[400, 240\], wanted 0 <'),
    ('sources: [{kind: annotated, annotations: a, rgb_root: b, depth_root: c, range_m: [5, 1]}]',
     r'range_m is \[5.*, 1.*\], wanted 0 <= nearest < farthest, in m'),
    ('- steps', r"holds \['steps'\], wanted fields of TrainingConfig"),
    ('vocab_size: 100', 'vocab_size is 100, wanted >= 263'),
    ('learning_rate: fast', "learning_rate is 'fast', wanted a number"),
    ('steps: 1.5', 'steps is 1.5, wanted a whole number'),
    ('batch_size: yes', 'batch_size is True, wanted a whole number'),
    ('sources: [{kind: rooms, kinds: {closr: 3}}]', r"kinds has \['closr'\], wanted some of"),
    ('seed: 18446744073709551616', 'seed is 18446744073709551616, wanted <= 18446744073709551615'),
    ('betas: [1.5, 0.9]', r'betas is \[1.5, 0.9\], wanted two numbers in \[0, 1\)'),
    ('betas: [0.9, -0.1]', r'betas is \[0.9, -0.1\], wanted two numbers in'),
    ('{stage: 1, depth_weight: 0}', 'depth_weight, log_l1_weight are 0 in stage 1'),
    ('{depth_weight: 0, language_weight: 0}', 'gaze_weight are 0 in stage 2, which leaves'),
    ('sources: [{kind: rooms, native_px: [240, 100000]}]', 'native_px: 100000 is 100000 x 100000'),
    ('{1: 2, foo: 3}', r"TrainingConfig has no field \[1, 'foo'\], wanted some of"),
    ('stage: 1\nsteps: 3\nstage: 2', "'stage' is there twice, wanted once"),
    ('sources: [{kind: rooms, window: 1, window: 0.5}]', "'window' is there twice"),
    ('{stage: 1, optimiser: muon}', "optimiser is 'muon' in stage 1, wanted 'adamw'"),
    ('{', 'x.yaml: while parsing')])
def test_what_is_wrong_with_a_file_is_said(tmp_path, text, said):
    path = tmp_path / 'x.yaml'
    path.write_text(text)
    with pytest.raises(ValueError, match=said):
        TrainingConfig.load(path)


def test_both_endings_of_yaml_are_read_and_its_merges_stand(tmp_path):
    text = 'steps: 7\nsources: [{kind: rooms, kinds: {<<: {far: 1, point: 2}, far: 3}}]\n'
    for name in ('x.yaml', 'x.yml'):
        (tmp_path / name).write_text(text)
        training = TrainingConfig.load(tmp_path / name)
        assert (training.steps, training.sources[0].kinds) == (7, {'far': 3, 'point': 2})


def test_a_name_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"config 'none': no such file, wanted a .yaml or .y"):
        TrainingConfig.load('none')


def test_the_sharded_launch_is_one_that_accelerate_reads():
    config_args = pytest.importorskip('accelerate.commands.config.config_args')
    path = CONFIGS.parent / 'accelerate' / 'fsdp.yaml'
    config = config_args.load_config_from_file(str(path))
    assert config.distributed_type == 'FSDP' and config.mixed_precision == 'no'
    known = {f.name for f in fields(config)}
    assert set(yaml.safe_load(path.read_text())) <= known
    from transformers.models.qwen3_vl import modeling_qwen3_vl
    for name in config.fsdp_config['fsdp_transformer_layer_cls_to_wrap'].split(','):
        assert hasattr(modeling_qwen3_vl, name)
