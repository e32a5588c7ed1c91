"""The thread in which a model works leaves none who waits without an answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from queue import SimpleQueue

import pytest

from aiqueue.llama.engine import BatchingEngine, EngineOptions
from aiqueue.llama.engine_thread import EngineClosed, EngineThread
from aiqueue.llama.requests import GenerationRequest
from tests.tools.fake_backend import FakeBackend

_LIMIT_S = 10.0  # what is waited for comes at once


@pytest.fixture
def engine() -> BatchingEngine:
    return BatchingEngine(FakeBackend(), EngineOptions(parallel=4, prompt_tokens=8))


@pytest.fixture
def thread(engine: BatchingEngine) -> Iterator[EngineThread]:
    thread = EngineThread(engine, name="test")
    yield thread
    thread.close()


def request() -> GenerationRequest:
    return GenerationRequest(tokens=(1, 2, 3), max_tokens=4)


def fails(*_: object) -> None:
    raise KeyError("sequence")


def test_a_command_that_fails_ends_no_other(thread: EngineThread) -> None:
    thread.tell(fails)
    assert thread.submit(request()).future.result(_LIMIT_S).tokens
    assert thread.call(lambda: 7).result(_LIMIT_S) == 7


def test_an_end_that_can_not_be_told_hurts_no_other_request(engine: BatchingEngine, thread: EngineThread) -> None:
    def add_one() -> None:
        engine.add(request(), fails)

    thread.tell(add_one)
    others = [thread.submit(request()) for _ in range(3)]
    assert [len(ticket.future.result(_LIMIT_S).tokens) for ticket in others] == [4, 4, 4]


def test_a_failure_of_the_model_is_told_to_all_though_one_can_not_be_told(engine: BatchingEngine) -> None:
    ends: list[object] = []
    for on_end in (ends.append, fails, ends.append):
        engine.add(request(), on_end)
    engine.fail_all(MemoryError("no memory"))
    assert [type(end) for end in ends] == [MemoryError, MemoryError]


def test_a_request_that_comes_behind_the_last_look_of_a_model_that_closes_is_refused(
    engine: BatchingEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(SimpleQueue[Callable[[], None]]):
        """A queue whose first caller is held up on its way into it until the thread has ended."""

        first = True

        def put(self, item: Callable[[], None], block: bool = True, timeout: float | None = None) -> None:
            if self.first:
                self.first = False
                thread.close()
            super().put(item)

    monkeypatch.setattr("aiqueue.llama.engine_thread.SimpleQueue", Late)
    thread = EngineThread(engine, name="test")
    ticket = thread.submit(request())
    with pytest.raises(EngineClosed):
        ticket.future.result(_LIMIT_S)
    with pytest.raises(EngineClosed):
        thread.submit(request())
