"""The thread in which a model works: steps of the engine, and between them whatever else needs the model."""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import TypeVar

from aiqueue.llama.engine import BatchingEngine
from aiqueue.llama.requests import Generation, GenerationRequest
from aiqueue.llama.sequence import Sequence

_log = logging.getLogger(__name__)

T = TypeVar("T")


class EngineClosed(RuntimeError):
    """The model was closed while this waited for it."""


class Ticket:
    """A request that was handed in. ``future`` gets its Generation, also after ``cancel``, or its error.

    The future can't be cancelled itself: that would lose what was generated.
    """

    def __init__(self, thread: EngineThread) -> None:
        self._thread = thread
        self.future: Future[Generation] = Future()
        self.future.set_running_or_notify_cancel()
        self.sequence: Sequence | None = None  # set and read in the engine's thread

    def cancel(self) -> None:
        """End the request before the next step of the model. May be called from any thread, and too late."""
        self._thread.tell(self._cancel)

    def _cancel(self) -> None:
        if self.sequence is not None:
            self._thread.engine.cancel(self.sequence)

    def resolve(self, outcome: Generation | Exception) -> None:
        """Hand over the outcome."""
        if isinstance(outcome, Exception):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


class EngineThread:
    """Owns an engine. Its methods may be called from any thread."""

    def __init__(self, engine: BatchingEngine, *, name: str) -> None:
        self.engine = engine  #: to be touched in this thread only, except for reading its counts
        self._inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._work: deque[tuple[Future[object], Callable[[], object]]] = deque()
        self._closing = self._closed = False
        self._refusing = Lock()
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, request: GenerationRequest) -> Ticket:
        """Hand in a request. What is wrong with it is an error of the ticket's future."""
        ticket = Ticket(self)
        self.tell(lambda: self._add(request, ticket))
        return ticket

    def pin(self, tokens: tuple[int, ...]) -> Future[Generation]:
        """Have ``tokens`` read and remembered; the future ends when that is done."""
        ticket = Ticket(self)

        def add() -> None:
            try:
                self.engine.pin(tokens, ticket.resolve)
            except Exception as error:
                ticket.resolve(error)

        self.tell(add)
        return ticket.future

    def call(self, work: Callable[[], T]) -> Future[T]:
        """Have ``work`` done between two steps. Cancelling the future before it begins leaves it out."""
        future: Future[T] = Future()
        self.tell(lambda: self._work.append((future, work)))  # type: ignore[arg-type]  # each pair has a type of its own
        return future

    def tell(self, command: Callable[[], None]) -> None:
        """Have ``command``, which must be quick, run before the next step. Raises EngineClosed."""
        if self._closed:
            raise EngineClosed("the model was closed")
        self._inbox.put(command)
        if self._closed:  # meanwhile: it may be behind the thread's last look
            self._refuse_all()

    def close(self) -> None:
        """End the thread; what waits or runs ends with EngineClosed. Returns when the model is free."""
        with contextlib.suppress(EngineClosed):
            self.tell(self._stop)
        self._thread.join()

    def _stop(self) -> None:
        self._closing = True

    def _add(self, request: GenerationRequest, ticket: Ticket) -> None:
        try:
            ticket.sequence = self.engine.add(request, ticket.resolve)
        except Exception as error:
            ticket.resolve(error)

    def _run(self) -> None:
        try:
            while not self._closing:
                self._take_commands()
                if self._work:
                    self._do(*self._work.popleft())
                if self.engine.busy:
                    self._step()
        finally:
            self._refuse_all()

    def _step(self) -> None:
        try:
            self.engine.step()
        except Exception:
            # Whoever waited has been told; the next requests begin with an empty cache.
            _log.exception("a step of the model failed")

    def _take_commands(self) -> None:
        idle = not (self._work or self.engine.busy)
        try:
            while True:
                _carry_out(self._inbox.get(block=idle))
                idle = False
        except Empty:
            return

    def _do(self, future: Future[object], work: Callable[[], object]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(work())
        except Exception as error:
            future.set_exception(error)

    def _refuse_all(self) -> None:
        closed = EngineClosed("the model was closed")
        self._closed = True
        with self._refusing:
            while not self._inbox.empty():  # what was handed in meanwhile
                _carry_out(self._inbox.get())
            self.engine.fail_all(closed)
            while self._work:
                future, _ = self._work.popleft()
                if future.set_running_or_notify_cancel():
                    future.set_exception(closed)


def _carry_out(command: Callable[[], None]) -> None:
    try:
        command()
    except Exception:  # without this thread all who wait for the model would wait for ever
        _log.exception("a command to the model failed")
