# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0

from depthvlm_ros.benchmark.annotations import dataset_of, Record, RecordError
from depthvlm_ros.benchmark.results import key_of, print_table, Results, summarise
import pytest


def record(line, dataset='nyuv2.jsonl'):
    return key_of(Record(dataset_of(dataset), dataset, line, f'{line}.png'))


def figures(delta1, pixels=9):
    return {'delta1': delta1, 'pixels': pixels}


@pytest.mark.parametrize('name', ['out.jsonl', 'out[4b].jsonl'])
def test_what_another_process_found_counts_too(tmp_path, name):
    settings = {'model': 'm'}
    first = Results(tmp_path / name, settings)
    second = Results(tmp_path / name, settings, rank=1)
    first.add(record(0), figures(1.0))
    second.add(record(1), figures(0.5))
    second.add(record(2), error=RecordError('image', 'broken'))
    again = Results(tmp_path / name, settings)
    assert [again.is_done(record(i)) for i in range(4)] == [True, True, False, False]
    assert len(again.of([record(i) for i in range(4)])) == 3


def test_no_skip_replaces_figures(tmp_path):
    path = tmp_path / 'out.jsonl'
    Results(path, {}).add(record(0), figures(1.0))
    Results(path, {}, rank=1).write(    # as an earlier run left it there
        {**record(0), 'skipped': 'image', 'why': 'broken'})
    entry, = Results(path, {}).of([record(0)])
    assert entry['figures'] == figures(1.0)


def test_results_there_are_refused_where_told(tmp_path):
    Results(tmp_path / 'out.jsonl', {}).add(record(0), figures(1.0))
    with pytest.raises(ValueError, match=r'out\.jsonl: holds results'):
        Results(tmp_path / 'out.jsonl', {}, resume=False)


def test_a_file_without_results_is_no_reason_to_refuse(tmp_path):
    Results(tmp_path / 'out.jsonl', {})     # as another process has just begun it
    results = Results(tmp_path / 'out.jsonl', {}, rank=1, resume=False)
    results.add(record(0), figures(1.0))
    assert results.is_done(record(0))


@pytest.mark.parametrize('content', ['{"a": 1}', '{"a": 1\n', 'words\n', '[1, 2]\n', '5\n'])
def test_a_file_of_something_else_is_left_alone(tmp_path, content):
    path = tmp_path / 'out.jsonl'
    path.write_text(content)
    with pytest.raises(ValueError, match=r'out\.jsonl: holds'):
        Results(path, {})
    assert path.read_text() == content


def test_a_file_that_is_no_text_is_left_alone_and_named(tmp_path):
    path = tmp_path / 'model.safetensors'
    path.write_bytes(b'\x80\xff\n')
    with pytest.raises(ValueError, match='model.safetensors: holds lines that are no results'):
        Results(path, {})
    assert path.read_bytes() == b'\x80\xff\n'


def test_images_then_datasets_are_averaged(tmp_path, capsys):
    results = Results(None, {})
    records = [record(0), record(1), record(2), record(0, 'waymo.jsonl'), record(0, 'ddad.jsonl')]
    results.add(records[0], figures(1.0))
    results.add(records[1], figures(0.0, pixels=0))
    results.add(records[2], error=RecordError('empty', 'nothing'))
    results.add(records[3], figures(0.2))
    results.add(records[4], error=RecordError('image', 'broken'))
    summary = summarise(results.of(records), ['delta1'])
    assert summary['datasets']['NYUv2'] == {
        'delta1': 0.5, 'images': 2, 'skipped': {'empty': 1}, 'nothing_compared': 1}
    assert summary['datasets']['DDAD']['delta1'] is None
    assert summary['average'] == {'delta1': pytest.approx(0.35)}
    print_table(summary, ['delta1'])
    table = capsys.readouterr().out
    assert '0.350' in table and '1 empty' in table and '(1 with nothing to compare' in table
