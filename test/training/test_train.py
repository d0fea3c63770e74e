# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0

import csv
from dataclasses import asdict, replace
import json
import os
from pathlib import Path
import resource
import shutil
import signal
import subprocess
import sys

import cv2
from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.model import Predictor
from depthvlm_ros.training import train
from depthvlm_ros.training.config import AnnotatedSource, RoomSource
from depthvlm_ros.training.mixture import open_source
from depthvlm_ros.training.resuming import check_same_run
from depthvlm_ros.training.samples import Encoder
from depthvlm_ros.training.stages import rate_at
from depthvlm_ros.training.start import begin
from depthvlm_ros.training.state import latest_state
from depthvlm_ros.training.train import main, run, train_step
import numpy as np
import pytest
from safetensors.torch import load_file
import torch
from transformers import PreTrainedTokenizerFast
import yaml

pytest.importorskip('accelerate', reason='training needs requirements-training.txt')

QUICK = {'workers': 0, 'device': 'cpu', 'save_every': 100}


@pytest.fixture(scope='module')
def exact(tiny_training):
    return replace(tiny_training, precision='float32', saved_dtype='float32')


def weights(folder):
    return load_file(folder / 'model.safetensors')


def rows(folder):
    with open(folder / 'log.csv', newline='') as file:
        return [{k: v for k, v in row.items() if k != 'seconds'} for row in csv.DictReader(file)]


def assert_same(one, other):
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert torch.equal(value, other[key]), key


@pytest.mark.skipif(not hasattr(torch.optim, 'Muon'),
                    reason='this torch has no Muon, which came with 2.9')
def test_every_optimiser_takes_the_rate_of_its_step(exact, tmp_path, monkeypatch):
    training = replace(exact, optimiser='muon', steps=3, schedule='trapezoid', warm_up=2)
    told = []
    monkeypatch.setattr(train, 'train_step', lambda accelerator, learner, optimisers, *rest: (
        told.append([group['lr'] for one in optimisers for group in one.param_groups])
        or train_step(accelerator, learner, optimisers, *rest)))
    run(training, tmp_path, **QUICK)
    assert [len(rates) for rates in told] == [3, 3, 3]
    assert [set(rates) for rates in told] == [
        {rate_at(step, 3, training)} for step in range(3)]
    assert len({rates[0] for rates in told}) > 1


@pytest.mark.parametrize(('chats', 'told'), [(True, False), (False, True)])
def test_a_stage_2_without_questions_is_warned_of(
        staged, exported, tmp_path, caplog, chats, told):
    _, training = staged
    if not chats:
        training = replace(training, sources=[source for source in training.sources
                                              if isinstance(source, AnnotatedSource)])
    run(replace(training, steps=1), tmp_path, exported, **QUICK)
    assert ('add a source of kind chats' in caplog.text) == told


@pytest.mark.parametrize('optimiser', ['adamw', 'muon'])
def test_a_stopped_run_goes_on_exactly(exact, tmp_path, optimiser):
    if optimiser == 'muon' and not hasattr(torch.optim, 'Muon'):
        pytest.skip('this torch has no Muon, which came with 2.9')
    exact = replace(exact, optimiser=optimiser)
    run(exact, tmp_path / 'whole', **QUICK)
    run(exact, tmp_path / 'parts', stop_at=2, **QUICK)
    assert latest_state(tmp_path / 'parts').name == 'state-0000002'
    run(exact, tmp_path / 'parts', **QUICK)
    assert latest_state(tmp_path / 'parts').name == 'state-0000004'
    assert_same(weights(tmp_path / 'whole'), weights(tmp_path / 'parts'))
    assert rows(tmp_path / 'whole')[-1] == rows(tmp_path / 'parts')[-1]
    assert [int(row['step']) for row in rows(tmp_path / 'parts')] == [0, 1, 3]
    assert Predictor.from_pretrained(tmp_path / 'parts', device='cpu').config.canonical_fx == 64.0


def test_a_run_that_goes_on_as_another_one_says_so(exact, tmp_path, caplog):
    run(exact, tmp_path, stop_at=1, **QUICK)
    run(exact, tmp_path, stop_at=2, **QUICK)
    assert 'begun for' not in caplog.text
    run(replace(exact, steps=6), tmp_path, stop_at=3, **QUICK)
    assert 'begun for 4 steps and now goes on for 6' in caplog.text
    # Twice the samples in half the steps are as many in all, and yet not where the run was.
    size = exact.batch_size
    other = replace(exact, steps=3, batch_size=2 * size)
    with pytest.raises(ValueError, match=f'a step has {2 * size} samples, and had {size} before '
                       f'.* step 3; wanted as many: global_batch {size}'):
        run(other, tmp_path, **QUICK)
    halved = replace(exact, batch_size=size // 2, global_batch=size)
    run(halved, tmp_path, stop_at=4, **QUICK)


def test_a_state_that_was_not_finished_does_not_count(exact, tmp_path):
    run(exact, tmp_path, stop_at=1, **QUICK)
    shutil.copytree(tmp_path / 'state-0000001', tmp_path / 'state-0000003.new')
    assert latest_state(tmp_path).name == 'state-0000001'
    run(exact, tmp_path, stop_at=2, **QUICK)
    assert [p.name for p in tmp_path.glob('state-*')] == ['state-0000002']


def test_stage_1_then_stage_2_from_a_plain_qwen3_vl(staged, exported, plain_qwen, tmp_path):
    first, second = tmp_path / 'first', tmp_path / 'second'
    run(staged[0], first, data=exported, **QUICK)
    plain, one = weights(plain_qwen), weights(first)
    assert all(torch.equal(one[k], v) for k, v in plain.items())
    run(replace(staged[1], start=str(first)), second, data=exported, **QUICK)
    two = weights(second)
    moved = {k.split('.')[0] + '.' + k.split('.')[1] for k in two
             if not torch.equal(two[k], one[k])}
    assert 'model.language_model' in moved and 'model.visual' not in moved
    assert any(m.startswith('depth_head') for m in moved)
    assert float(rows(second)[-1]['language']) > 0 == float(rows(first)[-1]['language'])
    predictor = Predictor.from_pretrained(second, device='cpu')
    image = cv2.imread(str(next((exported / 'rgb').glob('*.png'))))
    view = predictor.look(image, Intrinsics.centred(image.shape[1], image.shape[0], 60.0))
    assert np.isfinite(view.depth_m).all()


def test_images_and_text_mixed_are_the_same_however_they_are_accumulated(
        staged, exported, tmp_path):
    both = replace(staged[1], steps=2, learning_rate=1e-3)
    run(replace(both, batch_size=4, global_batch=4), tmp_path / 'whole', data=exported, **QUICK)
    run(replace(both, batch_size=1, global_batch=4), tmp_path / 'parts', data=exported, **QUICK)
    whole, parts = weights(tmp_path / 'whole'), weights(tmp_path / 'parts')
    for key in whole:
        torch.testing.assert_close(whole[key], parts[key], rtol=1e-3, atol=2e-5)
    for name in ('depth', 'language'):
        one, other = (float(rows(tmp_path / n)[-1][name]) for n in ('whole', 'parts'))
        assert one == pytest.approx(other, rel=1e-3)


def test_broken_records_are_skipped_counted_and_told(staged, exported, tmp_path, caplog):
    folder = shutil.copytree(exported, tmp_path / 'data')
    images = sorted((folder / 'rgb').glob('*.png'))
    images[0].write_bytes(images[0].read_bytes()[:200])
    depths = sorted((folder / 'depth').glob('*.png'))
    shape = cv2.imread(str(depths[1]), cv2.IMREAD_UNCHANGED).shape
    cv2.imwrite(str(depths[1]), np.zeros(shape, np.uint16))
    training = replace(staged[0], steps=4)  # 8 samples of 8 records
    run(training, tmp_path / 'out', data=folder, **QUICK)
    last = rows(tmp_path / 'out')[-1]
    assert int(last['skipped']) >= 2
    assert images[0].name in caplog.text and 'no valid pixel' in caplog.text
    # The count goes on with the run.
    run(replace(training, steps=5), tmp_path / 'out', data=folder, **QUICK)
    assert int(rows(tmp_path / 'out')[-1]['skipped']) >= int(last['skipped'])


def test_the_command_line_changes_fields(staged, exported, tmp_path):
    path = tmp_path / 'x.yaml'
    path.write_text(yaml.safe_dump({
        'model': dict(staged[0].model), 'stage': 1, 'batch_size': 2,
        'sources': [{'kind': 'annotated', 'annotations': 'annotations.jsonl', 'rgb_root': '.',
                     'depth_root': '.'}]}))
    main(['--config', str(path), '--out', str(tmp_path / 'out'), '--data', str(exported),
          '--start', staged[0].start, '--set', 'batch_size=4', '--set', 'warm_up=1',
          '--workers', '0', '--device', 'cpu'])
    assert [row['samples'] for row in rows(tmp_path / 'out')] == ['4', '8']  # one epoch of 8


def test_a_wrong_field_ends_the_command_line_in_a_line(tmp_path, capsys):
    with pytest.raises(SystemExit, match='2'):
        main(['--out', str(tmp_path), '--set', 'learning_rate=quick'])
    assert "learning_rate is 'quick', wanted a number" in capsys.readouterr().err


@pytest.mark.parametrize('words', [['--stop-at', '0'], ['--save-every', '0'],
                                   ['--workers', '-1'], ['--steps', '-1']])
def test_numbers_that_cannot_be_are_refused(tmp_path, capsys, words):
    with pytest.raises(SystemExit, match='2'):
        main(['--out', str(tmp_path), *words])
    assert f'argument {words[0]}: {words[1]!r}, wanted >= ' in capsys.readouterr().err


def test_the_saved_config_tells_what_the_weights_beside_it_are(exact, tmp_path):
    run(replace(exact, steps=1, saved_dtype='bfloat16'), tmp_path, **QUICK)
    config = json.loads((tmp_path / 'config.json').read_text())
    assert {part['dtype'] for part in (
        config, config['text_config'], config['vision_config'])} == {'bfloat16'}
    assert {weight.dtype for weight in weights(tmp_path).values()} == {torch.bfloat16}


def test_a_run_does_not_go_on_from_the_state_of_another_stage(staged, exported, tmp_path):
    run(staged[0], tmp_path, data=exported, **QUICK)
    other = replace(staged[1], start=str(tmp_path), batch_size=staged[0].batch_size,
                    global_batch=staged[0].global_batch, steps=staged[0].steps + 1)
    with pytest.raises(ValueError, match='another run than the one begun there: stage was 1 and '
                       'is 2; wanted the same, or another --out'):
        run(other, tmp_path, data=exported, **QUICK)


def test_what_differs_in_a_run_that_goes_on_is_told_and_holds(exact, tmp_path, caplog):
    run(exact, tmp_path, stop_at=1, **QUICK)
    run(replace(exact, batch_size=exact.batch_size // 2, global_batch=exact.batch_size),
        tmp_path, stop_at=2, **QUICK)
    assert 'other settings' not in caplog.text
    before = weights(tmp_path)
    run(replace(exact, weight_decay=1000.0), tmp_path, stop_at=3, **QUICK)
    assert 'goes on with other settings than it was begun with: weight_decay was ' in caplog.text
    assert 'and is 1000.0' in caplog.text
    norms = [float(weights(tmp_path)[key].norm() / before[key].norm())
             for key in before if before[key].ndim == 2 and before[key].norm() > 0]
    assert min(norms) < 0.9, 'the weights do not decay by what the configuration says now'


def test_hints_that_a_run_did_not_have_are_refused(exact, tmp_path):
    without = replace(exact, naming_weight=0.0)
    run(without, tmp_path, stop_at=1, **QUICK)
    with pytest.raises(ValueError, match=r'naming_weight was 0\.0 and is 0\.2: the state there'):
        run(exact, tmp_path, stop_at=2, **QUICK)
    assert run(without, tmp_path, stop_at=2, **QUICK) == 0


def test_hints_may_end(exact, tmp_path):
    run(exact, tmp_path, stop_at=1, **QUICK)
    run(replace(exact, naming_weight=0.0), tmp_path, stop_at=2, **QUICK)
    assert latest_state(tmp_path).name == 'state-0000002'


def test_other_data_and_another_start_are_told(staged, exported, tmp_path, caplog):
    training = replace(staged[0], steps=3)
    data = shutil.copytree(exported, tmp_path / 'data')
    run(training, tmp_path / 'out', data=data, stop_at=1, **QUICK)
    run(training, tmp_path / 'out', data=data, stop_at=2, **QUICK)
    assert 'other settings' not in caplog.text
    lines = (data / 'annotations.jsonl').read_text().splitlines()
    (data / 'annotations.jsonl').write_text('\n'.join([*lines[1:], lines[0]]) + '\n')
    start = shutil.copytree(training.start, tmp_path / 'start')
    run(replace(training, start=str(start)), tmp_path / 'out', data=data, **QUICK)
    assert 'content was' in caplog.text and 'start was' in caplog.text


def test_the_head_alone_asks_no_gradient_of_the_frozen_language_model(staged, exported):
    training = replace(staged[0], gradient_checkpointing=True)
    model, tokenizer, prompt = begin(training)
    encoder = Encoder(model.config, tokenizer, prompt)
    sample = open_source(training.sources[0], exported, encoder, training).sample(0)
    learner = train.prepare_learner(model, training, train.open_accelerator('cpu'))
    asked = []
    for layer in model.model.language_model.layers:
        layer.register_forward_hook(lambda _, given, out: asked.append(out.requires_grad))
    batch = encoder.collate([(sample, [])])
    learner.total(learner.means(learner(batch), batch.counts)).backward()
    assert asked and not any(asked)
    assert all(weights.grad is not None for weights in model.depth_head.parameters())


def test_a_field_that_a_state_of_before_does_not_tell_is_no_other_setting(tiny_training, caplog):
    room = RoomSource()
    now = json.dumps({**asdict(replace(tiny_training, sources=(room,))), 'content': []})
    before = json.loads(now)
    del before['sources'][0]['numbers']
    check_same_run(json.dumps(before), now)
    assert not caplog.text
    other = json.dumps({**asdict(replace(tiny_training, sources=(RoomSource(numbers=(1, 2)),))),
                        'content': []})
    check_same_run(json.dumps(before), other)
    assert 'sources was' in caplog.text
    caplog.clear()
    before['sources'][0]['questions'] += 1
    check_same_run(json.dumps(before), now)
    assert 'sources was' in caplog.text


def test_only_one_run_at_a_time_writes_into_a_folder(exact, tmp_path):
    hold = ('import sys, time; from depthvlm_ros.training.state import claim; '
            'kept = claim(sys.argv[1]); print("held", flush=True); time.sleep(60)')
    holder = subprocess.Popen([sys.executable, '-c', hold, str(tmp_path)], text=True,
                              stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == 'held\n'
        with pytest.raises(ValueError, match='another run that has not ended writes there'):
            run(exact, tmp_path, **QUICK)
    finally:
        holder.kill()
        holder.wait()
    run(replace(exact, steps=1), tmp_path, **QUICK)


def test_what_no_run_has_put_there_is_left_alone(exact, staged, exported, tmp_path):
    start = shutil.copytree(staged[0].start, tmp_path / 'start')
    with pytest.raises(ValueError, match='holds a checkpoint and no state of a run'):
        run(replace(staged[0], start=str(start)), start, data=exported, **QUICK)
    run(exact, tmp_path / 'out', stop_at=1, **QUICK)
    shutil.copytree(tmp_path / 'out' / 'state-0000001', tmp_path / 'out' / 'state-0000001-kept')
    (tmp_path / 'out' / 'state-notes.txt').write_text('mine')
    run(exact, tmp_path / 'out', stop_at=2, **QUICK)
    assert sorted(path.name for path in (tmp_path / 'out').glob('state-*')) == [
        'state-0000001-kept', 'state-0000002', 'state-notes.txt']


def test_a_finished_run_says_that_there_is_nothing_to_do(exact, tmp_path, caplog):
    with caplog.at_level('INFO'):
        run(replace(exact, steps=1), tmp_path, **QUICK)
        assert 'nothing to do' not in caplog.text
        run(replace(exact, steps=1), tmp_path, **QUICK)
    assert 'is at step 1 of 1 already, and step 1 was wanted: there is nothing to' in caplog.text


@pytest.mark.parametrize('spoil', [
    lambda state: (state / '__0_0.distcp').write_bytes(b'half'),
    lambda state: (state / '.metadata').write_bytes(b'')])
def test_a_damaged_state_is_named(exact, tmp_path, spoil):
    run(exact, tmp_path, stop_at=1, **QUICK)
    spoil(tmp_path / 'state-0000001')
    with pytest.raises(ValueError, match='state-0000001 is damaged, .*wanted another --out'):
        run(exact, tmp_path, **QUICK)


@pytest.mark.parametrize('lose', [
    lambda state: (state / '.metadata').unlink(), shutil.rmtree])
def test_a_run_whose_state_is_lost_keeps_its_checkpoint(exact, tmp_path, lose):
    run(exact, tmp_path, stop_at=1, **QUICK)
    kept = (tmp_path / 'model.safetensors').read_bytes()
    lose(tmp_path / 'state-0000001')
    with pytest.raises(ValueError, match='wanted another --out, which may --start from'):
        run(exact, tmp_path, **QUICK)
    assert (tmp_path / 'model.safetensors').read_bytes() == kept
    assert len((tmp_path / 'log.csv').read_text().splitlines()) == 2
    run(replace(exact, start=str(tmp_path), model={}), tmp_path / 'on', stop_at=1, **QUICK)


def test_a_run_that_ended_before_it_saved_begins_again(exact, tmp_path):
    (tmp_path / 'log.csv').write_text('step,seconds\n0,1.0\n')
    run(exact, tmp_path, stop_at=1, **QUICK)
    assert latest_state(tmp_path).name == 'state-0000001'


def test_all_of_a_checkpoint_may_be_read_by_those_who_may_read_its_configuration(exact, tmp_path):
    run(exact, tmp_path, stop_at=1, **QUICK)
    modes = {path.name: path.stat().st_mode for path in tmp_path.iterdir() if path.is_file()}
    assert modes['model.safetensors'] == modes['config.json'] == modes['tokenizer.json']


def test_no_folder_is_refused_before_anything_is_written(exact, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match='out is empty, wanted a folder'):
        run(exact, '', **QUICK)
    assert not [*tmp_path.iterdir()]


def test_a_state_without_its_last_file_does_not_count(exact, tmp_path):
    run(exact, tmp_path, stop_at=1, **QUICK)
    (tmp_path / 'state-0000009').mkdir()
    assert latest_state(tmp_path).name == 'state-0000001'


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_a_signal_ends_is_saved_and_goes_on_exactly(exact, tmp_path, monkeypatch,
                                                             number):
    def step_with_signal(*words):
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM if number == signal.SIGINT else signal.SIGINT)
        return train_step(*words)
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    run(exact, tmp_path / 'whole', **QUICK)
    with monkeypatch.context() as patch:
        patch.setattr(train, 'train_step', step_with_signal)
        assert run(exact, tmp_path / 'parts', **QUICK) == 128 + number
    assert latest_state(tmp_path / 'parts').name == 'state-0000001'
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert run(exact, tmp_path / 'parts', **QUICK) == 0
    assert_same(weights(tmp_path / 'whole'), weights(tmp_path / 'parts'))


@pytest.mark.parametrize('what', ['the checkpoint', 'the state'])
def test_a_disk_that_is_full_is_said_in_a_line(exact, tmp_path, what):
    run(exact, tmp_path / 'as it is', stop_at=1, **QUICK)
    weights = (tmp_path / 'as it is' / 'model.safetensors').stat().st_size
    state = max(file.stat().st_size
                for file in (tmp_path / 'as it is' / 'state-0000001').iterdir())
    assert weights < state
    limit = weights // 2 if what == 'the checkpoint' else (weights + state) // 2
    tmp_path /= 'full'
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
    try:
        with pytest.raises(OSError, match='step 1 could not be saved|File too large'):
            run(exact, tmp_path, stop_at=1, **QUICK)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert not list(tmp_path.glob('*.new')), 'it would stay full'


def test_a_tokenizer_that_cannot_be_written_leaves_nothing_on_the_disk(
        exact, tmp_path, monkeypatch):
    save = PreTrainedTokenizerFast.save_pretrained

    def save_to_full_disk(self, folder):
        save(self, folder)
        self.backend_tokenizer.save('/dev/full')    # the library's own error, as it is
    monkeypatch.setattr(PreTrainedTokenizerFast, 'save_pretrained', save_to_full_disk)
    with pytest.raises(OSError, match='tokenizer cannot be written .*No space left'):
        run(exact, tmp_path, stop_at=1, **QUICK)
    assert not list(tmp_path.glob('*.new')), 'it would stay full'


def test_a_gradient_that_is_not_finite_ends_it_with_what_to_do(staged, exported, tmp_path):
    path = tmp_path / 'x.yaml'
    path.write_text(yaml.safe_dump({
        'model': dict(staged[0].model), 'stage': 1, 'batch_size': 2, 'sources': [
            {'kind': 'annotated', 'annotations': 'annotations.jsonl', 'rgb_root': '.',
             'depth_root': '.'}]}))
    with pytest.raises(SystemExit, match='^train: the gradient norm is (nan|inf), wanted a finite '
                       'one: lower learning_rate'):
        main(['--config', str(path), '--out', str(tmp_path / 'out'), '--data', str(exported),
              '--start', staged[0].start, '--set', 'learning_rate=1.0e+30', '--set', 'warm_up=0',
              '--workers', '0', '--device', 'cpu', '--save-every', '1'])
    assert (tmp_path / 'out' / 'state-0000001').is_dir()


def test_settings_of_accelerates_own_do_not_scale_the_gradients(exact, tmp_path, monkeypatch):
    run(replace(exact, steps=1), tmp_path / 'one', **QUICK)
    monkeypatch.setenv('ACCELERATE_GRADIENT_ACCUMULATION_STEPS', '4')
    run(replace(exact, steps=1), tmp_path / 'other', **QUICK)
    assert rows(tmp_path / 'one')[0]['gradient_norm'] == rows(
        tmp_path / 'other')[0]['gradient_norm']


def test_an_error_of_a_process_that_reads_is_one_line(staged, tmp_path):
    (tmp_path / 'a.jsonl').write_text('{"messages": []}\n')
    path = tmp_path / 'x.yaml'
    path.write_text(yaml.safe_dump({'stage': 2, 'model': dict(staged[0].model), 'sources': [
        {'kind': 'chats', 'file': 'a.jsonl'}], 'batch_size': 1}))
    # A process that is forked from one with DDS's and OpenMP's threads may inherit their locks.
    ended = subprocess.run(
        [sys.executable, '-m', 'depthvlm_ros.training.train', '--config', path, '--out',
         tmp_path / 'out', '--data', tmp_path, '--start', staged[0].start, '--workers', '1',
         '--device', 'cpu'], cwd=Path(__file__).parents[2], capture_output=True, text=True,
        timeout=600)
    assert ended.returncode == 1
    said = ended.stderr[ended.stderr.index('train: '):]
    assert said.startswith('train: 100 records in a row cannot be used; the last: ')
    assert len(said.splitlines()) == 1


def test_what_is_wrong_with_the_data_is_said_in_a_line(tmp_path, capsys):
    path = tmp_path / 'x.yaml'
    path.write_text('stage: 1\nstart: nano\nsources: [{kind: annotated, annotations: gone.jsonl, '
                    'rgb_root: ., depth_root: .}]')
    with pytest.raises(SystemExit, match='train: .*gone.jsonl: no such file'):
        main(['--config', str(path), '--out', str(tmp_path / 'out'), '--device', 'cpu'])


def test_a_missing_source_is_named(staged, tmp_path):
    gone = replace(staged[0], sources=(AnnotatedSource('gone.jsonl', '.', '.'),))
    with pytest.raises(ValueError, match='gone.jsonl: no such file'):
        run(gone, tmp_path, **QUICK)
