# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0

import csv
import logging

from depthvlm_ros.training.logs import COLUMNS, RunLog
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def write_steps(folder, first, *steps):
    log = RunLog(folder, first, 100)
    for step in steps:
        log.advance()
        log.write({'step': step, **dict.fromkeys(COLUMNS[2:], 0.5)})
    log.close()
    with open(folder / 'log.csv', newline='') as file:
        return [int(row['step']) for row in csv.DictReader(file)]


def test_rows_beyond_the_state_that_a_run_goes_on_from_are_dropped(tmp_path):
    assert write_steps(tmp_path, 0, 0, 20, 40) == [0, 20, 40]
    assert write_steps(tmp_path, 30, 35) == [0, 20, 35]


def test_rows_that_were_not_written_whole_are_left_out(tmp_path):
    write_steps(tmp_path, 0, 0, 20)
    with open(tmp_path / 'log.csv', 'a') as file:
        file.write('x,1\n' + '21,' * 30 + '\n22,1,2\n' + '\0' * 40)
    assert write_steps(tmp_path, 30, 35) == [0, 20, 35]


def test_tensorboard_has_the_steps_of_a_run_that_goes_on(tmp_path):
    write_steps(tmp_path, 0, 0, 20, 40)
    write_steps(tmp_path, 30, 35)
    events = EventAccumulator(str(tmp_path / 'tensorboard'))
    events.Reload()
    assert [event.step for event in events.Scalars('depth')] == [0, 20, 35]
    assert {event.value for event in events.Scalars('depth')} == {0.5}


def test_every_record_skipped_is_named_until_there_are_too_many(tmp_path, caplog):
    log = RunLog(tmp_path, 0, 100, active=False)
    with caplog.at_level(logging.WARNING):
        log.skip(f'record {n}' for n in range(30))
    assert 'skipped: record 19' in caplog.text and 'record 20' not in caplog.text
    assert 'are only counted' in caplog.text
    assert not (tmp_path / 'log.csv').exists()
