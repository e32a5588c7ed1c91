"""The client for programs without an event loop."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import Queue
from typing import Any

import pytest

from aiqueue.client.listeners import JobEvent
from aiqueue.client.sync_adapter import AIQueueAdapter
from aiqueue.errors import AuthenticationFailed, JobNotFound, QueueUnavailable, StartError, ValidationError
from aiqueue.orchestrator.sync_orchestrator import AIJobOrchestrator
from aiqueue.protocol import Welcome
from aiqueue.providers.base import ProviderRequest
from aiqueue.testing.jobs import chat
from aiqueue.views import JobInfo
from tests.tools.client_harness import ClientHarness
from tests.tools.turns import turns, until
from tests.unit.client.test_loop_thread import in_thread

WAIT_S = 10.0  # a limit, not a delay


class Inside:
    """A transport whose queue is made on the loop that first asks for it: the adapter's own."""

    def __init__(self) -> None:
        self._system: ClientHarness | None = None

    @property
    def system(self) -> ClientHarness:
        assert self._system is not None
        return self._system

    async def hello(self) -> Welcome:
        if self._system is None:
            self._system = ClientHarness()
        return await self._system.transport.hello()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.system.transport, name)


class Connected:
    """An adapter, and its queue on the adapter's loop."""

    def __init__(self) -> None:
        self.inside = Inside()
        self.adapter = AIQueueAdapter(self.inside)  # type: ignore[arg-type]
        self.adapter.start()

    @property
    def system(self) -> ClientHarness:
        return self.inside.system

    def work(self) -> None:
        self.adapter._run(self.system.work())

    def until(self, condition: Any) -> None:
        self.adapter._run(until(condition))

    def close(self) -> None:
        if self.adapter._home.is_alive():
            self.adapter._run(self.system.__aexit__())
            self.adapter.stop()


@pytest.fixture
def connected() -> Iterator[Connected]:
    """Return an adapter whose queue has no worker yet."""
    made = Connected()
    yield made
    made.close()


def test_calls_block_until_their_answer_is_there(connected: Connected) -> None:
    adapter = connected.adapter
    job_id = adapter.submit_job(chat("Hi"), {"priority": 15})
    info = adapter.get_job_status(job_id)
    assert info is not None
    assert (info.status, info.priority) == ("queued", "urgent")
    assert adapter.get_stats().queued_jobs == 1
    assert adapter.get_jobs([job_id, "nobody"])[1] is None
    assert adapter.cancel_job(job_id).status == "cancelled"
    assert adapter.wait(job_id).status == "cancelled"
    adapter.ping()


def test_errors_are_the_same_as_the_asynchronous_ones(connected: Connected) -> None:
    def refuse(request: ProviderRequest) -> None:
        raise AuthenticationFailed("Provider sim: 401", status=401)

    with pytest.raises(ValidationError):
        connected.adapter.submit_job({})
    with pytest.raises(JobNotFound):
        connected.adapter.wait("nobody")
    connected.system.provider.behave = refuse
    connected.work()
    with pytest.raises(AuthenticationFailed) as caught:
        connected.adapter.submit_job_with_callback(chat())
    assert caught.value.status == 401


def test_many_threads_share_one_adapter_and_its_calls(connected: Connected) -> None:
    connected.work()
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda n: connected.adapter.submit_job_with_callback(chat(str(n))), range(200)))
    assert [result.raw["echo"]["messages"][0]["content"] for result in results] == [str(n) for n in range(200)]
    assert connected.adapter.get_stats().completed_jobs == 200


def test_a_callback_runs_in_the_callers_thread_and_may_call_the_adapter(connected: Connected) -> None:
    threads: list[threading.Thread] = []

    def note(result: object) -> None:
        threads.append(threading.current_thread())
        connected.adapter.get_stats()

    connected.work()
    connected.adapter.submit_job_with_callback(chat(), callback=note)
    assert threads == [threading.current_thread()]


def test_ends_are_told_one_by_one(connected: Connected) -> None:
    told: list[JobInfo] = []
    connected.work()
    job_ids = connected.adapter.submit_jobs([chat()] * 5)
    infos = connected.adapter.wait_all(job_ids, told.append)
    assert [info.job_id for info in infos] == job_ids
    assert {info.job_id for info in told} == set(job_ids)


@pytest.mark.parametrize("error", [LookupError, asyncio.CancelledError, GeneratorExit])
def test_who_is_told_of_ends_runs_in_the_callers_thread_and_may_call_the_adapter(
    connected: Connected, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    told: list[tuple[threading.Thread, str]] = []

    def look(info: JobInfo) -> None:
        again = connected.adapter.get_job_status(info.job_id)
        told.append((threading.current_thread(), again.status if again else "unknown"))
        raise error("of one end")

    connected.work()
    job_ids = connected.adapter.submit_jobs([chat()] * 3)
    assert [info.job_id for info in connected.adapter.wait_all(job_ids, look)] == job_ids
    assert told == [(threading.current_thread(), "completed")] * 3
    assert caplog.text.count(f"{error.__name__}: of one end") == 3


@pytest.mark.parametrize(
    "call",
    [
        lambda adapter: adapter.wait_all([], print),
        lambda adapter: AIJobOrchestrator(adapter).submit_batch_job([chat()]),
        lambda adapter: next(AIJobOrchestrator(adapter).map([chat()], run_id="r")),
    ],
)
def test_a_call_that_waits_is_refused_in_the_adapters_own_thread(connected: Connected, call: Any) -> None:
    async def call_it() -> None:
        call(connected.adapter)

    with pytest.raises(StartError, match="own thread, which would wait for itself"):
        in_thread(connected.adapter.run, call_it()).result(WAIT_S)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_who_is_told_of_an_end_may_end_the_program(connected: Connected, error: type[BaseException]) -> None:
    def end(info: JobInfo) -> None:
        raise error

    job_id = connected.adapter.submit_job(chat())
    connected.adapter.cancel_job(job_id)
    both = [job_id, connected.adapter.submit_job(chat())]  # of which one never ends
    with ThreadPoolExecutor(1) as pool:
        assert isinstance(pool.submit(connected.adapter.wait_all, both, end).exception(WAIT_S), error)
    connected.adapter.ping()


def test_a_listener_may_call_the_adapter_and_one_that_raises_stops_no_other(
    connected: Connected, caplog: pytest.LogCaptureFixture
) -> None:
    heard: Queue[str] = Queue()

    @connected.adapter.on("job:completed")
    def stumble(event: JobEvent) -> None:
        raise ZeroDivisionError

    @connected.adapter.on("job:completed")
    def leave(event: JobEvent) -> None:
        raise SystemExit("is no way to end the program from here")

    @connected.adapter.on("job:completed")
    def look(event: JobEvent) -> None:
        info = connected.adapter.get_job_status(event.job_id)
        heard.put(info.status if info else "unknown")

    connected.work()
    connected.adapter.submit_job(chat())
    connected.adapter.submit_job(chat())
    assert [heard.get(timeout=WAIT_S) for _ in range(2)] == ["completed", "completed"]
    assert "ZeroDivisionError" in caplog.text
    assert "SystemExit" in caplog.text


def test_a_listener_that_was_taken_off_hears_no_more(connected: Connected) -> None:
    heard: Queue[str] = Queue()
    off: list[JobEvent] = []
    connected.adapter.on("job:completed", off.append)
    connected.adapter.on("job:completed", lambda event: heard.put(event.job_id))
    connected.adapter.off("job:completed", off.append)
    connected.adapter.off("job:completed", print)
    connected.work()
    job_id = connected.adapter.submit_job(chat())
    assert heard.get(timeout=WAIT_S) == job_id
    assert off == []


def test_coroutine_functions_are_awaited_one_after_the_other_and_one_that_raises_stops_no_other(
    connected: Connected, caplog: pytest.LogCaptureFixture
) -> None:
    heard: Queue[tuple[str, str]] = Queue()

    @connected.adapter.on("job:completed")
    async def stumble(event: JobEvent) -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    @connected.adapter.on("job:completed")
    async def note(event: JobEvent) -> None:
        heard.put(("begins", event.job_id))
        await asyncio.sleep(0)
        info = connected.adapter.get_job_status(event.job_id)
        heard.put((info.status if info else "unknown", event.job_id))

    connected.work()
    job_ids = [connected.adapter.submit_job(chat()) for _ in range(2)]
    seen = [heard.get(timeout=WAIT_S) for _ in range(4)]
    assert [what for what, _ in seen] == ["begins", "completed"] * 2
    assert {job_id for _, job_id in seen} == set(job_ids)
    assert seen[0][1] == seen[1][1]
    assert "ZeroDivisionError" in caplog.text


def test_a_listener_put_on_for_once_hears_once_and_can_be_taken_off_before(connected: Connected) -> None:
    heard: Queue[str] = Queue()
    once: Queue[str] = Queue()
    off: list[JobEvent] = []

    @connected.adapter.once("job:submitted")
    def note_once(event: JobEvent) -> None:
        once.put(event.job_id)

    connected.adapter.once("job:submitted", off.append)
    connected.adapter.off("job:submitted", off.append)
    connected.adapter.on("job:submitted", lambda event: heard.put(event.job_id))
    job_ids = [connected.adapter.submit_job(chat()) for _ in range(3)]
    assert [heard.get(timeout=WAIT_S) for _ in range(3)] == job_ids
    assert once.get(timeout=WAIT_S) == job_ids[0]
    assert once.empty()
    assert off == []
    connected.adapter.off("job:submitted", note_once)


def test_other_threads_that_wait_are_told_when_the_adapter_stops(connected: Connected) -> None:
    job_id = connected.adapter.submit_job(chat())
    with ThreadPoolExecutor(2) as pool:
        waits = [
            pool.submit(connected.adapter.wait, job_id),
            pool.submit(connected.adapter.submit_job_with_callback, chat()),
        ]
        connected.until(lambda: connected.system.queue.service._log._parked)
        connected.adapter._run(turns(50))
        connected.adapter._run(connected.system.__aexit__())
        connected.adapter.stop()
        for wait in waits:
            with pytest.raises(QueueUnavailable):
                wait.result(WAIT_S)


def test_an_adapter_is_a_context_manager_that_ends_its_thread() -> None:
    inside = Inside()
    with AIQueueAdapter(inside) as adapter:  # type: ignore[arg-type]
        adapter.submit_job(chat())
        adapter._run(inside.system.__aexit__())
    assert not adapter._home.is_alive()
    with pytest.raises(StartError, match="stopped"):
        adapter.get_stats()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_is_told_to_make_an_adapter_of_its_own() -> None:
    """The thread that would answer is not there."""
    with AIQueueAdapter(inside := Inside()) as adapter:  # type: ignore[arg-type]
        ours, theirs = os.pipe()
        child = os.fork()
        if not child:
            signal.alarm(round(WAIT_S))  # nothing else would end it
            try:
                adapter.get_stats()
            except StartError as error:
                os.write(theirs, str(error).encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        os.close(theirs)
        with open(ours, encoding="utf-8") as said:
            assert "make a new one here" in said.read()
        adapter._run(inside.system.__aexit__())
