# Copyright 2026 the depthvlm_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The one thread that owns the model.

It looks at the newest frame of each lane (a newer one replaces one still waiting; what waits of
several lanes is looked at together) and decodes answers token by token in between, so that
neither stalls the other. It knows nothing of ROS: what it is to do, and whom to tell, are
functions that it is given.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
import enum
import logging
import queue
import threading
import time
from typing import Any

# While frames keep coming, decoding gets this share of the time that looking takes.
ANSWER_SHARE = 0.15


class FrameRefusedError(ValueError):
    """A frame that cannot be looked at, through no fault of the model."""


class HangError(TimeoutError):
    """The model has not come back in time, and is left."""


class Ending(enum.Enum):
    """How a question ended."""

    ANSWERED = 'answered'
    FRAME_REFUSED = 'frame refused'
    FAILED = 'failed'
    TIMEOUT = 'timeout'
    CANCELLED = 'cancelled'
    STOPPED = 'stopped'


@dataclass(eq=False)
class Frame:
    """
    An image on its way through the worker.

    :param source: the image; the worker does not touch it.
    :param lane: of which one frame waits at most: its camera.
    """

    source: Any
    lane: Any = None
    seen: Any = None                        # what the look function returned
    error: Exception | None = None          # or what it raised
    streamed: bool = False                  # submitted for the stream
    rate_limited: bool = False              # not submitted: too soon after another
    delivered: bool = False                 # and given to the stream
    questions: int = 0                      # open questions about it

    @property
    def looked_at(self) -> bool:
        """Tell whether the model has had its pass over the frame."""
        return self.seen is not None or self.error is not None


@dataclass(eq=False)
class Question:
    """
    A question about a frame, open until its ending is told, which happens exactly once.

    :param text: the words; empty where only the frame's depth is wanted.
    :param frame: the frame it is about.
    :param max_tokens: most tokens to decode.
    :param deadline_s: when it times out, on time.monotonic.
    :param on_end: called with the question, once, from whichever thread ends it.
    :param on_token: called with the question after each token, on the worker's thread.
    :param given_up: tells whether nobody wants the answer any more; asked before each token, from
        any thread.
    """

    text: str
    frame: Frame
    max_tokens: int
    deadline_s: float
    on_end: Callable[[Question], None]
    on_token: Callable[[Question], None] = lambda question: None
    given_up: Callable[[], bool] = lambda: False
    decoding: Any = None
    ending: Ending | None = None
    error: Exception | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def words(self) -> str:
        """Return the words so far."""
        return '' if self.decoding is None else self.decoding.text

    @property
    def tokens(self) -> int:
        """Return the number of tokens so far."""
        return 0 if self.decoding is None else self.decoding.tokens

    def end(self, ending: Ending, error: Exception | None = None) -> bool:
        """End the question; return False where it had ended before."""
        with self._lock:
            if self.ending is not None:
                return False
            self.ending, self.error = ending, error
        self.on_end(self)
        return True


class ModelThread:
    """
    One thread for all workers of a process, one after the other.

    Memory allocators and numeric libraries keep something for every thread that ever used them,
    so that a new thread with each activation would let the process grow.
    """

    def __init__(self):
        self._functions: queue.SimpleQueue = queue.SimpleQueue()
        threading.Thread(target=self._run, name='depthvlm model', daemon=True).start()

    def run(self, function: Callable[[], None] | None) -> None:
        """Run a function after those before it; None ends the thread."""
        self._functions.put(function)

    def _run(self) -> None:
        while (function := self._functions.get()) is not None:
            function()
            del function    # what it holds shall not wait for the next one


class Worker:
    """
    Works on the model's thread.

    :param look: takes frames, returns for each what was seen, or an exception: FrameRefusedError
        where it cannot be looked at; anything else is a failure of the model, raised too.
    :param begin: takes (seen, text, max_tokens), returns a decoding with step(), text, tokens.
    :param deliver: takes a frame of the stream that was looked at, failed ones too.
    :param max_questions: how many questions may be open at once.
    :param thread: what it runs on.
    :param together: most frames that are looked at together.
    :param on_failed_step: takes what a step of an answer raised; the question has ended.
    """

    def __init__(self, look: Callable[[list[Frame]], list], begin: Callable[[Any, str, int], Any],
                 deliver: Callable[[Frame], None], max_questions: int, thread: ModelThread,
                 together: int = 1,
                 on_failed_step: Callable[[Exception], None] = lambda error: None):
        self.dropped: Counter = Counter()       # of each lane
        self._look, self._begin, self._deliver = look, begin, deliver
        self._max_questions, self._together = max_questions, together
        self._on_failed_step = on_failed_step
        self._waiting: dict[Any, Frame] = {}    # of each lane; who waits longest is first
        self._questions: deque[Question] = deque()
        self._answer_budget_s = 0.0
        self._stopping = False
        self._condition = threading.Condition()
        self._ended = threading.Event()
        self._step_began_s: float | None = None
        self._under_way = 1     # frames of the step
        thread.run(self._run)

    def submit(self, frame: Frame) -> None:
        """Take a frame of the stream in place of one that still waits."""
        with self._condition:
            older = self._waiting.get(frame.lane)
            if older is not None and not older.questions:
                older.streamed = False      # somebody may ask about it yet
                self.dropped[frame.lane] += 1
            frame.streamed = True
            self._waiting[frame.lane] = frame   # a lane keeps its place
            self._condition.notify()

    def ask(self, question: Question) -> bool:
        """Take a question; return False where too many are open, or the worker has stopped."""
        with self._condition:
            if self._stopping or self.open_questions >= self._max_questions:
                return False
            question.frame.questions += 1
            self._questions.append(question)
            self._condition.notify()
            return True

    def end_overdue(self, now_s: float) -> None:
        """End the questions that are late or given up, even while a pass is under way."""
        with self._condition:
            questions = list(self._questions)
        for question in questions:
            if question.given_up():
                question.end(Ending.CANCELLED)
            elif question.deadline_s <= now_s:
                question.end(Ending.TIMEOUT)

    def step_s(self) -> float:
        """
        Return for how long the step under way has been going on, 0 where there is none.

        A look at several frames counts as so many passes: their share of it is returned.
        """
        began_s = self._step_began_s
        return 0.0 if began_s is None else (time.monotonic() - began_s) / self._under_way

    def fail_questions(self, error: Exception) -> None:
        """End all questions as failed, as when the model has not come back."""
        with self._condition:
            questions = list(self._questions)
        for question in questions:
            question.end(Ending.FAILED, error)

    def forget_waiting(self) -> None:
        """Drop the frames that wait, as when time jumps back or the stream is paused."""
        with self._condition:
            self.dropped.update(self._waiting.keys())
            for frame in self._waiting.values():
                frame.streamed = False      # a question may still want it, the stream does not
            self._waiting.clear()

    def stop(self, timeout_s: float) -> bool:
        """
        End all questions, and the work after the step that is under way.

        :return: whether it ended within timeout_s.
        """
        with self._condition:
            self._stopping = True
            self._waiting.clear()
            questions = list(self._questions)
            self._condition.notify()
        for question in questions:
            question.end(Ending.STOPPED)
        return self._ended.wait(timeout_s)

    @property
    def open_questions(self) -> int:
        """Return how many questions are open."""
        return sum(question.ending is None for question in list(self._questions))

    def _run(self) -> None:
        try:
            self._work()
        finally:
            self._ended.set()

    def _work(self) -> None:
        while (work := self._next()) is not None:
            step, subject = work
            self._under_way = len(subject) if isinstance(subject, list) else 1
            self._step_began_s = time.monotonic()
            try:
                step(subject)
            except Exception as error:  # out of the functions it was given: this thread goes on
                logging.getLogger(__name__).exception('a function given to the worker failed')
                if isinstance(subject, Question):
                    subject.end(Ending.FAILED, error)
            self._step_began_s = None
            del work, step, subject     # a frame's cache is large, and this thread may wait long

    def _next(self) -> tuple[Callable[[Any], None], Any] | None:
        """Return what to do next and on what, or None to stop."""
        with self._condition:
            while not self._stopping:
                self._clear_ended()
                for question in self._questions:
                    if not question.frame.looked_at:
                        return self._look_at, [question.frame]
                budget_left = not self._waiting or self._answer_budget_s > 0
                if self._questions and budget_left:
                    self._questions.rotate(-1)
                    return self._step, self._questions[-1]
                if self._waiting:
                    return self._look_at, list(self._waiting.values())[:self._together]
                self._condition.wait()
        return None

    def _clear_ended(self) -> None:
        """Forget questions that have ended; their frames' caches go with them."""
        for question in [q for q in self._questions if q.ending is not None]:
            self._questions.remove(question)
            frame = question.frame
            frame.questions -= 1
            replaced = self._waiting.get(frame.lane) is not frame
            if frame.streamed and replaced and not frame.looked_at and not frame.questions:
                frame.streamed = False      # it was kept for the question alone
                self.dropped[frame.lane] += 1

    def _look_at(self, frames: list[Frame]) -> None:
        """Give frames their pass, and deliver those that are of the stream."""
        self._no_longer_waiting(frames)
        start_s = time.monotonic()
        unseen = [frame for frame in frames if not frame.looked_at]
        try:
            found = self._look(unseen) if unseen else []
        except Exception as error:  # whatever the model raises, others go on
            found = [error.with_traceback(None)] * len(unseen)
        for frame, seen in zip(unseen, found):
            if isinstance(seen, Exception):
                frame.error = seen
            else:
                frame.seen = seen
        self._no_longer_waiting(frames)     # submitted meanwhile, delivered here and only here
        for frame in frames:
            if frame.streamed and not frame.delivered:
                frame.delivered = True
                self._deliver(frame)
        self._answer_budget_s = ANSWER_SHARE * (time.monotonic() - start_s)

    def _no_longer_waiting(self, frames: list[Frame]) -> None:
        with self._condition:
            for frame in frames:
                if self._waiting.get(frame.lane) is frame:
                    del self._waiting[frame.lane]

    def _step(self, question: Question) -> None:
        """Bring a question one token further, or to its end."""
        if question.given_up():
            question.end(Ending.CANCELLED)
            return
        error = question.frame.error
        if error is not None:
            refused = isinstance(error, FrameRefusedError)
            question.end(Ending.FRAME_REFUSED if refused else Ending.FAILED, error)
            return
        if not question.text:
            question.end(Ending.ANSWERED)
            return
        start_s, tokens = time.monotonic(), question.tokens
        try:
            if question.decoding is None:
                question.decoding = self._begin(
                    question.frame.seen, question.text, question.max_tokens)
            going = question.decoding.step()
        except Exception as error:  # whatever the model raises, others go on
            question.end(Ending.FAILED, error.with_traceback(None))     # which holds much
            self._on_failed_step(error)
            return
        self._answer_budget_s -= time.monotonic() - start_s
        if question.tokens > tokens and question.ending is None:
            question.on_token(question)
        if not going:
            question.end(Ending.ANSWERED)
