# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0

import json
from types import SimpleNamespace

import cv2
from depthvlm_ros.benchmark import vqa
from depthvlm_ros.benchmark.results import Results
from depthvlm_ros.camera import Intrinsics
from depthvlm_ros.synthetic.export import export
import numpy as np
import pytest


@pytest.mark.parametrize(('answer', 'accepted', 'exact', 'contained'), [
    ('The red box.', ['red box'], True, True),
    ('It is a Red Box!', ['red box'], False, True),
    ('There are 12 boxes.', ['2'], False, False),
    ('about 2.5 m', ['2.5'], False, True),
    ('about 2.5 m', ['5'], False, False),
    ('boxes', ['box'], False, False),
    ('red blue box', ['red box'], False, False),
    ('blue', ['red', 'Blue'], True, True),
    ('', ['red'], False, False),
    ('anything', ['.'], False, False),
    ('', ['A'], False, False),
    ('The', ['A'], False, False),
    ('A.', ['a'], True, True),
    ('The answer is A.', ['A'], False, True),
    ('Option A: a cat', ['A'], False, True),
    ('A cat', ['A'], False, False),
    ('between 10-20 m', ['20'], False, True),
    ('-20 degrees', ['20'], False, False),
    ('-20', ['-20'], True, True),
    ('1,000 m', ['1000'], False, True),
    ('10, 20', ['1020'], False, False),
    ('[250,300]', ['[250, 300]'], True, True),
    ('A 2 m tall box', ['A'], False, False),
    ('The answer is A because', ['A'], False, True),
    ('A Labrador', ['A'], False, False),
    ('', ['.'], False, False),
    ('.5 m', ['5 m'], False, False),
    ('.5', ['0.5'], True, True),
    ('about -.5 m', ['-0.5 m'], False, True),
    ('wait...5', ['5'], False, True),
    ('\N{MINUS SIGN}5', ['5'], False, False),
    ('\N{MINUS SIGN}5', ['-5'], True, True),
    ('Cafe\N{COMBINING ACUTE ACCENT}', ['caf\N{LATIN SMALL LETTER E WITH ACUTE}'], True, True)])
def test_matching(answer, accepted, exact, contained):
    assert vqa.is_exact(answer, accepted) is exact
    assert vqa.is_contained(answer, accepted) is contained


class Parrot:
    """Answers every question with its own words, and counts its looks."""

    config = SimpleNamespace(canonical_fx=500.0)

    def __init__(self):
        self.looks = []

    def look(self, rgb, intrinsics):
        self.looks.append(intrinsics)
        return rgb

    def ask(self, view, question, max_tokens):
        return SimpleNamespace(text=question)


def test_questions_about_one_image_share_a_look(bench):
    bench.image('a.png', 6, 8)
    bench.image('b.png', 6, 8)
    asked = [{'image': image, 'question': question, 'answers': ['red'], 'kind': kind, **fx}
             for image, question, kind, fx in (
                 ('a.png', 'Red', 'x', {}), ('a.png', 'is it red', 'x', {}),
                 ('b.png', 'blue', 'y', {'fx': 30.0}), ('c.png', 'red', 'y', {}))]
    parrot = Parrot()
    result = vqa.measure(parrot, asked, bench.root)
    assert parrot.looks == [Intrinsics.centred(8, 6, 500.0), Intrinsics.centred(8, 6, 30.0)]
    assert result['kinds'] == {
        'x': {'exact': 0.5, 'contained': 1.0, 'asked': 2},
        'y': {'exact': 0.0, 'contained': 0.0, 'asked': 1},
        'all': {'exact': pytest.approx(1 / 3), 'contained': pytest.approx(2 / 3), 'asked': 3}}
    assert result['skipped'] == {'image': 1}


@pytest.mark.parametrize('line', [
    '{"image": "a.png", "question": "What?"}', '{"image": "a.png", "question": "What?", '
    '"answers": []}', '{"image": 3, "question": "What?", "answers": ["a"]}', '[]', '{',
    *(f'{{"image": "a", "question": "b", "answers": ["c"], {odd}}}' for odd in (
        '"kind": 3', '"kind": "all"', '"kind": "\\ud83d"', '"fx": [1]', '"fx": -1',
        '"fx": true', f'"fx": 1{"0" * 400}')),
    '{"image": "a", "question": "\\ud83d", "answers": ["c"]}',
    '{"image": "\\ud83d", "question": "b", "answers": ["c"]}',
    '{"image": "a", "question": "b", "answers": ["", "!"]}', '[' * 10**5])
def test_a_wrong_line_is_named(tmp_path, line):
    (tmp_path / 'q.jsonl').write_text(line)
    with pytest.raises(ValueError, match=r'q\.jsonl line 1'):
        vqa.read_questions(tmp_path / 'q.jsonl')


def test_an_untrained_model_on_exported_rooms(tiny_checkpoint, tmp_path, capsys):
    export(tmp_path, 1, width=64, height=48)
    code = vqa.main(['--annotations', str(tmp_path / 'vqa.jsonl'), '--limit', '3',
                     '--model', str(tiny_checkpoint), '--device', 'cpu', '--max-tokens', '4'])
    out = capsys.readouterr().out
    assert code == 0
    result = json.loads(out.splitlines()[-1])
    assert result['kinds']['all']['asked'] == 3
    assert result['kinds']['all']['exact'] == 0.0
    assert 'contained' in out.splitlines()[1]


def test_answers_are_kept_and_a_run_goes_on(tiny_checkpoint, tmp_path, capsys):
    export(tmp_path, 1, width=64, height=48)
    words = ['--annotations', str(tmp_path / 'vqa.jsonl'), '--model', str(tiny_checkpoint),
             '--device', 'cpu', '--max-tokens', '4', '--out', str(tmp_path / 'out.jsonl')]

    def run(*more):
        assert vqa.main([*words, *more]) == 0
        lines = (tmp_path / 'out.jsonl').read_text().splitlines()
        return json.loads(capsys.readouterr().out.splitlines()[-1]), lines
    result, lines = run('--limit', '3')
    assert result['kinds']['all']['asked'] == 3
    first = json.loads(lines[1])
    asked = json.loads((tmp_path / 'vqa.jsonl').read_text().splitlines()[0])
    assert (first['number'], first['image'], first['question']) == (
        0, asked['image'], asked['question'])
    assert isinstance(first['figures']['answer'], str)
    result, more = run('--limit', '5')
    assert result['kinds']['all']['asked'] == 5
    assert more[:4] == lines and len(more) == 6     # those of before were not asked again
    assert vqa.main([*words, '--max-tokens', '5']) == 2
    assert 'holds results of' in capsys.readouterr().err


def test_a_focal_length_that_is_none_skips_its_question(bench, capsys):
    bench.image('a.png', 6, 8)
    asked = [{'image': 'a.png', 'question': 'red', 'answers': ['red'], 'fx': fx}
             for fx in (1e12, 8.0)]
    result = vqa.measure(Parrot(), asked, bench.root)
    assert result['skipped'] == {'record': 1} and result['kinds']['all']['asked'] == 1
    assert 'fx is 1000000000000.0, wanted px' in capsys.readouterr().err


def test_a_skipped_question_is_asked_again(bench):
    bench.image('a.png', 6, 8)
    asked = [{'image': 'a.png', 'question': 'red', 'answers': ['red']}]
    results = Results(bench.root / 'out.jsonl', {})
    assert vqa.measure(Parrot(), asked, bench.root / 'no', results=results)['skipped'] == {
        'image': 1}
    found = vqa.measure(Parrot(), asked, bench.root, results=Results(bench.root / 'out.jsonl', {}))
    assert found == {'kinds': {'all': {'exact': 1.0, 'contained': 1.0, 'asked': 1}}, 'skipped': {}}


def test_what_is_accepted_alone_is_not_accepted_within_a_wrong_answer(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((48, 64, 3), np.uint8))
    asked = [{'image': 'a.png', 'fx': 60.0, 'kind': said, 'question': said,
              'answers': ['left of the ball'], 'exact_answers': ['left']}
             for said in ('Left.', 'The ball is left of it.', 'It is left of the ball.')]
    kinds = vqa.measure(Parrot(), asked, tmp_path, 8)['kinds']
    assert [(kinds[f['kind']]['exact'], kinds[f['kind']]['contained']) for f in asked] == [
        (1.0, 1.0), (0.0, 0.0), (0.0, 1.0)]


def test_exact_answers_are_strings(tmp_path):
    (tmp_path / 'q.jsonl').write_text(
        '{"image": "a", "question": "b", "answers": ["c"], "exact_answers": "c"}')
    with pytest.raises(ValueError, match="q.jsonl line 1: exact_answers is 'c'"):
        vqa.read_questions(tmp_path / 'q.jsonl')


def test_a_missing_model_is_told(tmp_path, capsys):
    (tmp_path / 'q.jsonl').write_text('{"image": "a", "question": "b", "answers": ["c"]}')
    assert vqa.main(['--annotations', str(tmp_path / 'q.jsonl'), '--model', '/no/model']) == 2
    assert '/no/model' in capsys.readouterr().err


@pytest.mark.parametrize('words', [['--limit', '-3'], ['--max-tokens', '0']])
def test_numbers_that_cannot_be_are_refused(capsys, words):
    with pytest.raises(SystemExit, match='2'):
        vqa.main(['--annotations', 'a.jsonl', *words])
    assert f'argument {words[0]}: {words[1]!r}, wanted >= ' in capsys.readouterr().err
