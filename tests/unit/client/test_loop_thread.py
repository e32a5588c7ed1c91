"""Calls of the blocking client have an answer or StartError, however its loop's thread comes to its end."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from aiqueue.client import loop_thread
from aiqueue.client.loop_thread import LoopThread
from aiqueue.errors import StartError
from tests.unit.cli.conftest import Beside

WAIT_S = 30.0  # a limit, not a delay


async def nothing() -> None: ...


async def answer(value: int = 1) -> int:
    return value


async def answer_after(event: asyncio.Event) -> int:
    await event.wait()
    return 1


async def set_event(event: asyncio.Event) -> None:
    event.set()


@pytest.fixture
def home() -> Iterator[LoopThread]:
    """Return a loop in a thread of its own."""
    made = LoopThread("test")
    yield made
    made.end(nothing)


def in_thread(call: Any, *args: Any) -> Future[Any]:
    """Return what a call returns in a thread that keeps no program from its end: it may block for ever."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(call(*args))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def test_calls_beside_stop_are_answered_or_refused() -> None:
    queue = Beside()
    try:
        for _ in range(20):
            adapter = queue.join("", None).adapter
            stop, call = in_thread(adapter.stop), in_thread(adapter.get_stats)
            stop.result(WAIT_S)
            assert isinstance(call.exception(WAIT_S), StartError | None)
    finally:
        queue.close()


def test_a_call_that_comes_when_the_end_has_begun_is_refused_at_once(home: LoopThread) -> None:
    begun, let_go = threading.Event(), threading.Event()

    async def last() -> None:
        begun.set()
        await asyncio.to_thread(let_go.wait)

    end = in_thread(home.end, last)
    assert begun.wait(WAIT_S)
    with pytest.raises(StartError, match="stopped"):
        in_thread(home.run, answer()).result(WAIT_S)
    let_go.set()
    end.result(WAIT_S)


def test_an_end_from_several_threads_is_one_end(home: LoopThread) -> None:
    ran: list[str] = []

    async def last() -> None:
        ran.append(threading.current_thread().name)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(home.end, [last] * 4)) == [None] * 4
    home.end(last)
    assert ran == ["test"]
    assert not home.is_alive()


def test_an_end_that_fails_ends_the_thread_all_the_same() -> None:
    home = LoopThread("test")

    async def last() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        home.end(last)
    assert not home.is_alive()
    with pytest.raises(StartError):
        home.run(answer())


def test_an_adapter_that_is_stopped_again_says_nothing() -> None:
    queue = Beside()
    with queue.join("", None).adapter as adapter:
        adapter.stop()
    queue.close()


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, asyncio.CancelledError, GeneratorExit])
def test_what_one_call_raises_comes_to_its_caller_and_ends_no_other(
    home: LoopThread, error: type[BaseException]
) -> None:
    async def fail() -> None:
        raise error

    async def wait() -> int:
        await asyncio.to_thread(failed.wait)
        return 2

    failed = threading.Event()
    other = home.begin(wait())
    # Of another class too: a future has one of its own for what was cancelled.
    assert type(in_thread(home.run, fail()).exception(WAIT_S)).__name__ == error.__name__
    failed.set()
    assert other.result(WAIT_S) == 2
    assert in_thread(home.run, answer(3)).result(WAIT_S) == 3


def test_a_call_that_does_not_let_itself_be_cancelled_is_told_of_the_end(
    home: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_thread, "_FINISH_S", 0.01)
    begun = threading.Event()

    async def go_on() -> None:
        begun.set()
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue

    call = in_thread(home.run, go_on())
    assert begun.wait(WAIT_S)
    home.end(nothing)
    assert isinstance(call.exception(WAIT_S), StartError)


def test_a_call_that_the_end_cuts_off_is_told_of_it(home: LoopThread, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_thread, "_FINISH_S", 0.01)
    begun = threading.Barrier(4)

    async def wait() -> None:
        await asyncio.to_thread(begun.wait)
        await asyncio.Event().wait()

    async def wait_for_others() -> None:
        await asyncio.gather(wait(), asyncio.Event().wait())

    calls = [in_thread(home.run, wait()), in_thread(home.run, wait_for_others()), home.begin(wait())]
    begun.wait(WAIT_S)
    home.end(nothing)
    for call in calls:
        with pytest.raises(StartError, match="stopped"):
            call.result(WAIT_S)


def test_a_call_whose_own_caller_cancels_it_beside_the_end_is_cancelled(
    home: LoopThread, caplog: pytest.LogCaptureFixture
) -> None:
    begun, cancelled = threading.Event(), threading.Event()

    async def wait() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    call = home.begin(wait())
    assert begun.wait(WAIT_S)

    async def last() -> None:
        call.cancel()
        await asyncio.to_thread(cancelled.wait, WAIT_S)

    home.end(last)
    assert call.cancelled()
    gc.collect()
    # Other tests leave tasks that are collected now, and logged.
    assert "never retrieved" not in caplog.text


@pytest.mark.parametrize("how", ["run", "end"])
def test_a_call_in_the_loops_own_thread_is_refused(home: LoopThread, how: str) -> None:
    async def call_again() -> Any:
        return home.run(answer()) if how == "run" else home.end(nothing)

    with pytest.raises(StartError, match="own thread, which would wait for itself"):
        in_thread(home.run, call_again()).result(WAIT_S)
    assert home.run(answer()) == 1


def test_a_call_may_be_begun_in_the_loops_own_thread(home: LoopThread) -> None:
    begun: Future[Future[int]] = Future()

    def go_on(first: Future[int]) -> None:
        try:
            begun.set_result(home.begin(answer(first.result() + 1)))
        except StartError as error:
            begun.set_exception(error)

    let_go = asyncio.Event()
    first = home.begin(answer_after(let_go))
    first.add_done_callback(go_on)  # that is called in the loop's thread
    home.run(set_event(let_go))
    assert begun.result(WAIT_S).result(WAIT_S) == 2


PROGRAM = """
import builtins
from aiqueue.client.loop_thread import LoopThread
from aiqueue.errors import StartError

async def answer(): ...

class Holder:
    def __init__(self):
        self.home = LoopThread("test")

    def __del__(self):
        try:
            {call}
        except StartError as error:
            print(error, flush=True)

builtins.kept = Holder()  # until the very end
"""


@pytest.mark.parametrize("call", ["self.home.run(answer())", "self.home.end(answer)"])
def test_a_call_when_the_program_has_all_but_ended_is_refused(call: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(call=call)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (run.returncode, run.stdout) == (0, "the program is ending, and the adapter's thread with it\n"), run.stderr
