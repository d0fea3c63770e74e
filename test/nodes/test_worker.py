# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
import threading
import time
from types import SimpleNamespace

from depthvlm_ros.nodes import worker
from depthvlm_ros.nodes.worker import (
    Ending,
    Frame,
    FrameRefusedError,
    ModelThread,
    Question,
    Worker,
)
import pytest


class Countdown:
    """A decoding of a given number of tokens."""

    def __init__(self, log, name, tokens, spend):
        self.log, self.name, self.left, self.spend = log, name, tokens, spend
        self.text, self.tokens, self.ended = '', 0, ''

    def step(self):
        self.spend()
        self.log.append(self.name)
        self.tokens += 1
        self.text += 'x'
        self.left -= 1
        self.ended = '' if self.left else 'stop'
        return bool(self.left)


class Bench:
    """
    A worker whose looks and steps are written down.

    :param spend: called with the seconds of each look and step.
    """

    def __init__(self, look_s=0.0, token_s=0.0, max_questions=4, spend=time.sleep):
        self.log, self.delivered, self.ended = [], [], []
        self.failed = []    # (what a step raised, how many questions had ended)
        self.look_s, self.token_s, self.spend = look_s, token_s, spend
        self.following = lambda frame: None     # called with each frame that was delivered
        self.gate, self.looking = threading.Event(), threading.Event()
        self.gate.set()
        self.thread = ModelThread()
        self.worker = Worker(
            self.look, self.begin, self.deliver, max_questions, self.thread,
            on_failed_step=lambda error: self.failed.append((str(error), len(self.ended))))

    def look(self, frames):
        (source,) = (frame.source for frame in frames)
        self.looking.set()
        assert self.gate.wait(60.0)
        self.spend(self.look_s)
        self.log.append(source)
        if isinstance(source, Exception):
            raise source
        return [f'seen {source}']

    def begin(self, seen, text, max_tokens):
        if text == 'fail':
            raise RuntimeError(text)
        return Countdown(self.log, text, max_tokens, lambda: self.spend(self.token_s))

    def deliver(self, frame):
        self.delivered.append(frame.source)
        self.following(frame)

    def question(self, text, frame, tokens=3, timeout_s=60.0):
        return Question(text, frame, tokens, time.monotonic() + timeout_s, self.ended.append)

    def keep_busy(self):
        """Be in the look at a frame, until the gate is set."""
        self.gate.clear()
        self.worker.submit(Frame('busy'))
        assert self.looking.wait(60.0)

    def until(self, condition, timeout_s=60.0):
        until_s = time.monotonic() + timeout_s
        while not condition() and time.monotonic() < until_s:
            time.sleep(0.002)
        assert condition()


@pytest.fixture
def make():
    benches = []

    def make_bench(**options):
        benches.append(Bench(**options))
        return benches[-1]
    yield make_bench
    for bench in benches:
        bench.gate.set()
        assert bench.worker.stop(60.0)
        bench.thread.run(None)


def test_a_newer_frame_replaces_the_one_that_waits(make):
    bench = make()
    bench.gate.clear()
    bench.worker.submit(Frame(0))
    bench.until(lambda: not bench.worker._waiting)
    for i in range(1, 5):
        bench.worker.submit(Frame(i))
    bench.gate.set()
    bench.until(lambda: len(bench.delivered) == 2)
    assert bench.delivered == [0, 4]
    assert bench.worker.dropped[None] == 3


def test_a_frame_of_a_question_is_looked_at_once_and_not_dropped(make):
    bench = make()
    bench.keep_busy()
    asked = Frame('asked')
    bench.worker.submit(asked)
    bench.worker.ask(bench.question('q', asked))
    bench.worker.submit(Frame('newer'))
    bench.gate.set()
    bench.until(lambda: bench.ended and len(bench.delivered) == 3)
    assert bench.delivered == ['busy', 'asked', 'newer']
    assert [entry for entry in bench.log if entry != 'q'] == ['busy', 'asked', 'newer']
    assert bench.worker.dropped[None] == 0


def test_a_question_about_a_frame_off_the_stream_delivers_nothing(make):
    bench = make()
    bench.worker.ask(bench.question('q', Frame('asked')))
    bench.until(lambda: bench.ended)
    assert bench.ended[0].ending is Ending.ANSWERED
    assert (bench.ended[0].words, bench.ended[0].tokens) == ('xxx', 3)
    assert bench.delivered == []


def test_without_words_only_the_look_is_taken(make):
    bench = make()
    bench.worker.ask(bench.question('', Frame('asked')))
    bench.until(lambda: bench.ended)
    assert bench.log == ['asked']
    assert bench.ended[0].ending is Ending.ANSWERED


def test_questions_take_turns(make):
    bench = make()
    bench.gate.clear()
    frame = Frame('f')
    for name in 'ab':
        bench.worker.ask(bench.question(name, frame, tokens=4))
    bench.gate.set()
    bench.until(lambda: len(bench.ended) == 2)
    assert bench.log[0] == 'f'
    assert sorted(bench.log[1:3]) == sorted(bench.log[3:5]) == ['a', 'b']


def test_a_short_question_is_not_held_up_by_a_long_one(make):
    bench = make(token_s=0.002)
    frame = Frame('f')
    bench.worker.ask(bench.question('long', frame, tokens=10**6))
    bench.until(lambda: bench.log.count('long') > 3)
    bench.worker.ask(bench.question('short', frame, tokens=3))
    bench.until(lambda: bench.ended)
    assert [question.text for question in bench.ended] == ['short']
    first = bench.log.index('short')
    assert bench.log[first:first + 5] == ['short', 'long', 'short', 'long', 'short']


def test_each_token_is_told_with_the_words_so_far(make):
    bench, told = make(), []
    question = bench.question('q', Frame('f'), tokens=3)
    question.on_token = lambda question: told.append((question.words, question.ending))
    bench.worker.ask(question)
    bench.until(lambda: bench.ended)
    assert told == [('x', None), ('xx', None), ('xxx', None)]


def test_a_question_that_is_given_up_ends_before_its_next_token(make):
    bench = make()
    question = bench.question('q', Frame('f'), tokens=10**6)
    question.given_up = lambda: question.tokens >= 5
    bench.worker.ask(question)
    bench.until(lambda: bench.ended)
    assert (question.ending, question.tokens, question.words) == (Ending.CANCELLED, 5, 'xxxxx')


def test_giving_up_holds_in_mid_look(make):
    bench = make()
    bench.gate.clear()
    question = bench.question('q', Frame('f'))
    bench.worker.ask(question)
    assert bench.looking.wait(60.0)
    question.given_up = lambda: True
    bench.worker.end_overdue(time.monotonic())
    assert question.ending is Ending.CANCELLED


def test_a_stream_under_load_leaves_answers_their_share_and_no_more(make, monkeypatch):
    now_s, frames = [0.0], 100
    monkeypatch.setattr(worker, 'time', SimpleNamespace(monotonic=lambda: now_s[0]))

    def spend(seconds):
        now_s[0] += seconds
    bench = make(look_s=0.05, token_s=0.002, spend=spend)
    bench.gate.clear()
    # One always waits.
    bench.following = lambda frame: bench.worker.submit(Frame(frame.source + 1))
    bench.worker.ask(bench.question('q', Frame('asked'), tokens=10**6))
    bench.worker.submit(Frame(0))
    bench.gate.set()
    bench.until(lambda: len(bench.delivered) > frames)
    bench.following = lambda frame: None
    tokens = bench.log[bench.log.index(0):bench.log.index(frames)].count('q')
    # 0.15 of 50 ms between two frames, in tokens of 2 ms that are begun before it is over.
    assert tokens == 4 * frames


def test_a_refused_frame_and_a_failed_look_end_its_questions(make):
    bench = make()
    refusal, failure = FrameRefusedError('too short'), RuntimeError('memory')
    for error, ending in ((refusal, Ending.FRAME_REFUSED), (failure, Ending.FAILED)):
        bench.ended.clear()
        bench.worker.ask(bench.question('q', Frame(error)))
        bench.until(lambda: bench.ended)
        assert (bench.ended[0].ending, bench.ended[0].error) == (ending, error)


def test_a_failing_decoding_ends_its_question_alone(make):
    bench = make()
    frame = Frame('f')
    bench.worker.ask(bench.question('fail', frame))
    bench.worker.ask(bench.question('good', frame))
    bench.until(lambda: len(bench.ended) == 2)
    endings = {question.text: question.ending for question in bench.ended}
    assert endings == {'fail': Ending.FAILED, 'good': Ending.ANSWERED}


def test_what_failed_an_answer_is_told_once_the_question_has_ended(make):
    bench = make()
    bench.worker.ask(bench.question('fail', Frame('a')))
    bench.until(lambda: bench.failed)
    assert bench.failed == [('fail', 1)]


def test_more_questions_than_may_be_open_are_refused(make):
    bench = make(max_questions=2)
    bench.gate.clear()
    frame = Frame('f')
    taken = [bench.worker.ask(bench.question(str(i), frame)) for i in range(3)]
    assert taken == [True, True, False]


def test_a_late_question_ends_even_in_mid_look_and_frees_its_place(make):
    bench = make(max_questions=1)
    bench.gate.clear()
    bench.worker.ask(bench.question('q', Frame('f'), timeout_s=0.0))
    bench.worker.end_overdue(time.monotonic())
    assert [question.ending for question in bench.ended] == [Ending.TIMEOUT]
    assert bench.worker.ask(bench.question('next', Frame('g')))
    bench.gate.set()
    bench.until(lambda: len(bench.ended) == 2)
    assert bench.ended[1].ending is Ending.ANSWERED
    assert 'q' not in bench.log


def test_stop_ends_every_question_once_and_within_its_time(make):
    bench = make()
    bench.gate.clear()
    bench.worker.ask(bench.question('q', Frame('f')))
    assert bench.looking.wait(60.0)
    assert not bench.worker.stop(0.1), 'the look hangs'
    assert [question.ending for question in bench.ended] == [Ending.STOPPED]
    assert not bench.worker.ask(bench.question('late', Frame('g')))
    bench.gate.set()
    assert bench.worker.stop(60.0)
    assert len(bench.ended) == 1


def test_forgotten_frames_are_not_looked_at(make):
    bench = make()
    bench.gate.clear()
    bench.worker.submit(Frame('first'))
    bench.until(lambda: not bench.worker._waiting)
    bench.worker.submit(Frame('old'))
    bench.worker.forget_waiting()
    bench.gate.set()
    bench.worker.submit(Frame('new'))
    bench.until(lambda: len(bench.delivered) == 2)
    assert bench.delivered == ['first', 'new']


def test_a_frame_asked_about_before_it_is_submitted_is_delivered_once():
    bench = Bench()
    bench.gate.clear()
    frame = Frame('one')
    assert bench.worker.ask(bench.question('a', frame))
    assert bench.looking.wait(60.0)
    bench.worker.submit(frame)      # while its pass is under way
    bench.gate.set()
    bench.until(lambda: bench.ended)
    bench.worker.submit(Frame('two'))
    bench.until(lambda: 'two' in bench.delivered)
    assert bench.delivered == ['one', 'two']
    assert bench.worker.stop(60.0)


def test_the_thread_goes_on_when_a_questions_own_function_fails():
    bench = Bench()
    broken = bench.question('a', Frame('one'))
    broken.given_up = lambda: 1 / 0
    assert bench.worker.ask(broken)
    bench.until(lambda: bench.ended)
    assert bench.ended == [broken] and broken.ending is Ending.FAILED
    whole = bench.question('b', Frame('two'))
    assert bench.worker.ask(whole)
    bench.until(lambda: whole.ending is not None)
    assert whole.ending is Ending.ANSWERED
    assert bench.worker.stop(60.0)


def test_workers_one_after_the_other_share_their_thread(make):
    thread, seen = ModelThread(), []
    for number in range(3):
        worker = Worker(lambda frames: [seen.append(threading.get_ident())], None,
                        lambda frame: None, 1, thread)
        worker.submit(Frame(number))
        until_s = time.monotonic() + 60.0
        while len(seen) <= number and time.monotonic() < until_s:
            time.sleep(0.002)
        assert worker.stop(60.0)
    assert len(seen) == 3 and len(set(seen)) == 1
    thread.run(None)


def test_how_long_a_step_takes_is_known_while_it_goes_on(make):
    bench = make()
    assert bench.worker.step_s() == 0.0
    bench.gate.clear()
    bench.worker.submit(Frame('f'))
    assert bench.looking.wait(60.0)
    first_s = bench.worker.step_s()
    bench.until(lambda: bench.worker.step_s() > first_s > 0)
    bench.gate.set()
    bench.until(lambda: bench.worker.step_s() == 0.0)


def test_questions_fail_with_the_reason_while_the_model_hangs(make):
    bench = make()
    bench.gate.clear()
    bench.worker.ask(bench.question('q', Frame('f')))
    assert bench.looking.wait(60.0)
    error = TimeoutError('hangs')
    bench.worker.fail_questions(error)
    assert [(q.ending, q.error) for q in bench.ended] == [(Ending.FAILED, error)]


def test_a_frame_kept_for_a_question_that_ends_before_its_pass_is_dropped(make):
    bench = make()
    bench.keep_busy()
    kept = Frame('kept')
    bench.worker.submit(kept)
    bench.worker.ask(bench.question('q', kept, timeout_s=0.0))
    bench.worker.submit(Frame('newer'))
    bench.worker.end_overdue(time.monotonic())
    bench.gate.set()
    bench.until(lambda: 'newer' in bench.delivered)
    assert bench.delivered == ['busy', 'newer']
    assert bench.worker.dropped[None] == 1


def test_a_frame_that_was_replaced_is_answered_about_but_not_delivered(make):
    bench = make()
    bench.keep_busy()
    old = Frame('old')
    bench.worker.submit(old)
    bench.worker.submit(Frame('newer'))
    bench.worker.ask(bench.question('q', old))      # by one who had it before the newer one came
    bench.gate.set()
    bench.until(lambda: bench.ended and 'newer' in bench.delivered)
    assert bench.ended[0].ending is Ending.ANSWERED
    assert (bench.delivered, bench.worker.dropped[None]) == (['busy', 'newer'], 1)


def test_a_forgotten_frame_is_answered_about_but_not_delivered(make):
    bench = make()
    bench.keep_busy()
    old = Frame('old')
    bench.worker.submit(old)
    bench.worker.ask(bench.question('q', old))
    bench.worker.forget_waiting()
    bench.gate.set()
    bench.until(lambda: bench.ended)
    assert bench.ended[0].ending is Ending.ANSWERED
    assert (bench.delivered, bench.worker.dropped[None]) == (['busy'], 1)
