# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0

from depthvlm_ros.benchmark.annotations import RecordError
from depthvlm_ros.training.config import TrainingConfig
from depthvlm_ros.training.jsonlines import JsonLines
from depthvlm_ros.training.mixture import (
    accumulations,
    epoch_size,
    Mixture,
    split_shares,
    step_batches,
)
import pytest


class Numbered:
    """A source whose samples are (its name, number); some cannot be used."""

    def __init__(self, name, length, broken=()):
        self.name, self.length, self.broken = name, length, broken

    def __len__(self):
        return self.length

    def sample(self, index):
        if index in self.broken:
            raise RecordError('image', f'{self.name} {index}')
        return self.name, index


class Endless:
    def sample(self, index):
        return 'endless', index


def drawn(mixture):
    return [mixture[i][0] for i in range(len(mixture))]


def test_an_epoch_takes_every_record_of_the_sources_without_share_once():
    sources, shares = [Numbered('a', 30), Numbered('b', 10), Numbered('q', 7)], [None, None, 0.2]
    total = epoch_size(sources, shares)
    assert total == 50
    samples = drawn(Mixture(sources, shares, total, seed=1))
    assert sorted(n for name, n in samples if name == 'a') == list(range(30))
    assert sorted(n for name, n in samples if name == 'b') == list(range(10))
    chats = [n for name, n in samples if name == 'q']
    assert len(chats) == 10 and sorted(chats[:7]) == list(range(7))  # then from the start
    assert [n for name, n in samples if name == 'a'] != list(range(30))


@pytest.mark.parametrize(('lengths', 'shares'), [
    ([20, 9, 16], [0.1, None, 0.3]), ([33, 125, 9, 134], [0.15, 0.15, None, 0.1])])
def test_no_record_is_lost_to_rounding(lengths, shares):
    sources = [Numbered(str(number), length) for number, length in enumerate(lengths)]
    total = epoch_size(sources, shares)
    samples = drawn(Mixture(sources, shares, total, seed=0))
    whole = shares.index(None)
    assert {n for name, n in samples if name == str(whole)} == set(range(lengths[whole]))


def test_the_seed_says_all():
    sources = [Numbered('a', 30), Numbered('b', 10)]
    one, same, other = (drawn(Mixture(sources, [None, None], 40, seed)) for seed in (1, 1, 2))
    assert one == same != other


def test_a_second_turn_is_in_another_order():
    samples = drawn(Mixture([Numbered('a', 20)], [None], 40, seed=1))
    assert sorted(samples[:20]) == sorted(samples[20:])
    assert samples[:20] != samples[20:]


def test_rooms_come_in_order_and_without_end():
    samples = drawn(Mixture([Endless(), Numbered('a', 5)], [0.5, None], 20, seed=1))
    assert [n for name, n in samples if name == 'endless'] == list(range(10))
    assert sum(name == 'a' for name, _ in samples) == 10


def test_a_record_that_cannot_be_used_gives_way_and_is_told():
    mixture = Mixture([Numbered('a', 6, broken=(2, 4))], [None], 6, seed=1)
    results = [mixture[i] for i in range(6)]
    assert all(n not in (2, 4) for (_, n), _ in results)
    told = {text for _, skipped in results for text in skipped}
    assert told == {'image: a 2', 'image: a 4'}
    with pytest.raises(ValueError, match='100 records in a row cannot be used; the last: image'):
        Mixture([Numbered('a', 6, broken=range(6))], [None], 6, seed=1)[0]


@pytest.mark.parametrize(('sources', 'shares', 'expected'), [
    ([Endless(), Numbered('b', 1)], [None, 0.25], [0.75, 0.25]),
    ([Numbered('a', 30), Numbered('b', 10), Endless()], [None, None, 0.2], [0.6, 0.2, 0.2]),
    ([Numbered('a', 30), Endless()], [0.3, 0.7], [0.3, 0.7])])
def test_what_shares_leave_goes_to_the_others(sources, shares, expected):
    assert split_shares(sources, shares) == pytest.approx(expected)


@pytest.mark.parametrize(('sources', 'shares', 'said'), [
    ([Numbered('a', 1)], [0.5], 'add up to 0.5, wanted 1'),
    ([Numbered('a', 1), Numbered('b', 1)], [1.0, None], 'add up to 1, wanted less than 1 beside'),
    ([Endless(), Numbered('b', 1)], [None, 1.0], 'add up to 1, wanted less than 1 beside rooms'),
    ([Numbered('a', 1), Numbered('b', 1), Endless()], [0.7, 0.7, None], 'add up to 1.4'),
    ([Endless(), Numbered('b', 1)], [None, None], 'wanted a share: they have no end')])
def test_shares_that_do_not_add_up_are_refused(sources, shares, said):
    with pytest.raises(ValueError, match=said):
        split_shares(sources, shares)


@pytest.mark.parametrize('share', [1.0, 1.5])
def test_an_epoch_of_nothing_but_shares_is_refused(share):
    with pytest.raises(ValueError, match=f'add up to {share}, wanted less than 1'):
        epoch_size([Numbered('a', 1), Numbered('b', 1)], [None, share])


def test_an_endless_epoch_is_refused():
    with pytest.raises(ValueError, match='an epoch has no length: wanted steps'):
        epoch_size([Endless()], [None])


@pytest.mark.parametrize('processes', [1, 2, 3])
def test_processes_part_a_step_between_them(processes):
    training = TrainingConfig(batch_size=2, global_batch=12)
    taken = [list(step_batches(range(1, 3), training, rank, processes))
             for rank in range(processes)]
    assert all(len(batches) == 2 * accumulations(training, processes) for batches in taken)
    for step in (0, 1):
        per_step = accumulations(training, processes)
        seen = sorted(position for batches in taken
                      for batch in batches[step * per_step:(step + 1) * per_step]
                      for position in batch)
        assert seen == list(range(12 * (step + 1), 12 * (step + 2)))


def test_a_global_batch_that_cannot_be_parted_is_refused():
    with pytest.raises(ValueError, match='global_batch is 12, wanted a multiple of batch_size x '
                                         'processes = 2 x 4'):
        accumulations(TrainingConfig(batch_size=2, global_batch=12), 4)


def test_json_lines_are_read_where_they_lie(tmp_path):
    path = tmp_path / 'a.jsonl'
    path.write_text('{"a": "ä"}\n\n{"a": 2}\nnot json\n')
    lines = JsonLines(path)
    assert len(lines) == 3 and lines[0] == {'a': 'ä'} and lines[1] == {'a': 2}
    with pytest.raises(ValueError, match='a.jsonl line 4: not JSON'):
        lines[2]
    path.write_text('\n')
    with pytest.raises(ValueError, match='is empty, wanted at least one record'):
        JsonLines(path)
