"""Clients and queues of other releases: one protocol apart they work together, further apart they say so."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import ray

from aiqueue import protocol, versions
from aiqueue.client import event_feed
from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.client.calls import CALL_S, QueueCalls
from aiqueue.client.ray_transport import RayTransport
from aiqueue.errors import AIQueueError, IncompatibleVersion, PayloadTooLarge, QueueUnavailable, StartError
from aiqueue.own_version import own_version
from aiqueue.protocol import ExchangeCall, Welcome
from aiqueue.service.answering import AnsweredCalls
from aiqueue.service.queue_service import QueueService
from aiqueue.testing.jobs import chat, settings
from aiqueue.versions import Version
from tests.tools.service_harness import ServiceHarness
from tests.tools.turns import until

OWN = own_version()
KNOWN_IN_0 = Welcome.__struct_fields__[: Welcome.__struct_fields__.index("version")]


class Answers(AnsweredCalls):
    """A queue; ``says`` is its version."""

    def __init__(self, service: QueueService, says: Version | None = None) -> None:
        self._service, self.says = service, says

    def _open(self) -> QueueService:
        return self._service

    async def hello(self, caller: bytes = b"") -> bytes:
        welcome = protocol.decode_welcome(await super().hello(caller))
        welcome.version = self.says or welcome.version
        return protocol.encode(welcome)


class Protocol0(Answers):
    """A queue of a release that had no versions."""

    async def hello(self) -> bytes:  # type: ignore[override]
        welcome = protocol.decode_welcome(await super().hello())
        return protocol.encode([getattr(welcome, name) for name in KNOWN_IN_0])


class Calls(QueueCalls):
    """Calls to one queue, and then perhaps to another; an error of the queue's own comes as that of Ray's transport."""

    def __init__(self, queue: AnsweredCalls) -> None:
        super().__init__()
        self.queue, self.made, self.lost = queue, list[str](), 0

    async def _carry(self, method: str, *args: object, limit_s: float = CALL_S) -> Any:
        self.made.append(method)
        if self.lost:
            self.lost -= 1
            raise QueueUnavailable("the queue actor is restarting")
        try:
            return await getattr(self.queue, method)(*args)
        except TypeError as error:
            raise AIQueueError(f"the queue failed on {method} (TypeError)") from error


@pytest.fixture
async def service() -> AsyncIterator[QueueService]:
    made = ServiceHarness(settings()).service
    yield made
    await made.close()


async def test_a_queue_is_met_once_before_all_else(service: QueueService) -> None:
    calls = Calls(Answers(service))
    await calls.stats()
    await calls.get_states(["a"])
    assert calls.made == ["hello", "stats", "get_states"]


async def test_a_new_client_works_with_a_queue_of_protocol_0(service: QueueService) -> None:
    calls = Calls(Protocol0(service))
    assert (await calls.hello()).version == Version()
    assert await calls.get_states(["a"]) == [""]


async def test_a_client_of_protocol_0_works_with_a_new_queue(service: QueueService) -> None:
    welcome_in_0 = msgspec.defstruct("Welcome", KNOWN_IN_0, array_like=True)
    answer = msgspec.msgpack.decode(await Answers(service).hello(), type=welcome_in_0)
    assert (answer.last_event, answer.max_retries) == (0, service.welcome().max_retries)


@pytest.mark.parametrize(
    ("says", "told"),
    [
        (
            Version(9, 8, "9.0.0", "3.11.7", "2.60.0"),
            "the queue protocol 9 .*understands 8 and newer: install aiqueue 9",
        ),
        (Version(), "the queue protocol 0 .*upgrade the queue"),
    ],
    ids=["too new", "too old"],
)
async def test_a_queue_that_is_too_far_apart_is_asked_nothing(
    monkeypatch: pytest.MonkeyPatch, service: QueueService, says: Version, told: str
) -> None:
    monkeypatch.setattr("aiqueue.client.calls.own_version", lambda: Version(OWN.protocol, OWN.protocol, OWN.release))
    calls = Calls(Answers(service, says))
    with pytest.raises(IncompatibleVersion, match=told):
        await AsyncAIQueueAdapter(calls).start()
    for _ in range(2):
        with pytest.raises(IncompatibleVersion):
            await calls.exchange(ExchangeCall("w", "pool", 1))
    assert set(calls.made) == {"hello"}


async def test_the_queue_that_comes_after_a_restart_is_met_anew(service: QueueService) -> None:
    calls = Calls(Answers(service))
    await calls.exchange(ExchangeCall("w", "pool", 0, running=[]))
    calls.queue, calls.lost = Answers(service, Version(9, 9, "9.0.0")), 1
    with pytest.raises(QueueUnavailable):
        await calls.exchange(ExchangeCall("w", "pool", 0, running=[]))
    with pytest.raises(IncompatibleVersion):
        await calls.exchange(ExchangeCall("w", "pool", 0, running=[]))
    assert calls.made == ["hello", "exchange", "exchange", "hello"]


async def test_what_a_client_may_submit_is_what_the_queue_that_it_met_last_says(service: QueueService) -> None:
    calls, other = Calls(Answers(service)), ServiceHarness(settings(max_payload_bytes=1_000)).service
    async with AsyncAIQueueAdapter(calls) as client:
        await client.submit_job(chat("x" * 2_000))
        calls.queue, calls.lost = Answers(other), 1
        await client.get_job_status("a")  # the first call after a restart, whatever it is
        with pytest.raises(PayloadTooLarge, match="over the limit of 1000"):
            await client.submit_job(chat("x" * 2_000))
    await other.close()


async def test_who_waits_for_a_job_or_an_event_is_told_when_another_queue_comes(
    monkeypatch: pytest.MonkeyPatch, service: QueueService, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(event_feed, "_POLL_S", 0.0)
    calls = Calls(Answers(service))
    async with AsyncAIQueueAdapter(calls) as client:
        waits = [asyncio.create_task(client.submit_job_with_callback(chat("a")))]
        stream = client.events(names=["job:completed"])
        await stream.open()
        waits.append(asyncio.ensure_future(anext(stream)))
        await until(lambda: calls.made.count("events") > 3)
        calls.queue, calls.lost = Answers(service, Version(9, 9, "9.0.0")), 1
        with caplog.at_level(logging.INFO, "aiqueue.client"):
            await asyncio.wait(waits, timeout=60)
    assert [type(wait.exception()) for wait in waits] == [IncompatibleVersion] * 2
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_queue_that_has_left_protocol_0_behind_tells_clients_and_workers_of_it(
    monkeypatch: pytest.MonkeyPatch, service: QueueService
) -> None:
    monkeypatch.setattr(versions, "OLDEST", 1)
    monkeypatch.setattr("aiqueue.service.answering.own_version", lambda: Version(2, 1, "0.3.0", "3.11.7", "2.60.0"))
    queue = Answers(service)
    for call in (queue.hello(), queue.exchange(protocol.encode(["w", "pool", 4]))):
        with pytest.raises(StartError, match=r"protocol 0 .*install aiqueue 0\.3\.0 here") as raised:
            await call
        assert type(raised.value) is StartError, "a release without IncompatibleVersion can't unpickle one"
    await queue.hello(versions.encode(Version(1)))
    with pytest.raises(IncompatibleVersion):
        await queue.hello(versions.encode(Version(9, 8)))


class Handle:
    """Ray's handle of an actor of protocol 0: it compares each call with the class before it sends it."""

    def __getattr__(self, method: str) -> Any:
        if method == "batch":
            raise AttributeError(f"'ActorHandle' object has no attribute '{method}'")
        return type("Method", (), {"remote": staticmethod(getattr(self, f"_{method}"))})

    def _hello(self) -> Any:
        return self._welcome()

    async def _welcome(self) -> bytes:
        return protocol.encode(Welcome(7, [], 1, ()))

    def _get_states(self) -> Any:
        raise AssertionError


async def test_a_call_that_the_queues_actor_does_not_have_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "get_actor", lambda name, namespace: Handle())
    transport = RayTransport("ns")
    assert (await transport.hello()).last_event == 7
    with pytest.raises(IncompatibleVersion, match="no call get_states as this process makes it"):
        await transport.get_states(["a"])
    with pytest.raises(IncompatibleVersion, match="no call batch as"):
        await transport._carry("batch", b"")
