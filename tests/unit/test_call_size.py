"""No call and no answer has more than 32 MiB, whatever the sizes of jobs and results, and none is missing from one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from aiqueue import call_size, protocol, submit_format
from aiqueue.call_size import MAX_CALL_BYTES, count_within, parts_within, size_of_group
from aiqueue.client import event_feed, paging
from aiqueue.client.coalescer import SubmitCoalescer
from aiqueue.engine.effects import Rows
from aiqueue.errors import JobNotFound, PayloadTooLarge
from aiqueue.levels import AIJobPriority
from aiqueue.protocol import BatchSpec, ExchangeCall, ExchangeReply, JobHeader, Need, SubmitGroup, SubmitReply
from aiqueue.service import event_log
from aiqueue.testing.in_process import InProcessTransport, worker_beside
from aiqueue.testing.jobs import chat, completed, group, header, result, submission
from aiqueue.testing.jobs import settings as job_settings
from tests.tools.client_harness import ClientHarness
from tests.tools.fake_provider import FakeProvider
from tests.tools.service_harness import ServiceHarness
from tests.tools.turns import until
from tests.unit.service.test_event_log import event

MIB = 2**20
SIZES = st.lists(st.sampled_from([0, 10, 1_000, 100_000, 2 * MIB, 4 * MIB]), min_size=1, max_size=30)


@given(SIZES, st.integers(1, 8 * MIB), st.integers(1, 10))
def test_parts_keep_order_and_limits_and_leave_nothing_out(sizes: list[int], limit: int, most: int) -> None:
    parts = parts_within(sizes, lambda size: size, limit=limit, most=most)
    assert [size for part in parts for size in part] == sizes
    for part in parts:
        assert 1 <= len(part) <= most
        assert len(part) == 1 or sum(part) <= limit
        assert count_within(part, limit) == len(part)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=64)
HEADERS = st.builds(
    JobHeader,
    type=st.just("chat_completion"),
    provider=TEXTS,
    model=TEXTS.map(lambda text: text * 4),
    level=st.just(2),
    owner=st.just("client-1"),
    tags=st.lists(TEXTS, max_size=32).map(tuple),
    metadata=st.binary(max_size=500),
    idempotency_key=TEXTS,
)


@given(st.lists(HEADERS, min_size=1, max_size=4), st.binary(max_size=300), st.booleans())
def test_a_group_is_never_larger_than_it_is_counted(headers: list[JobHeader], metadata: bytes, linked: bool) -> None:
    first, *others = headers
    for each in others:  # jobs of a group share their options
        each.tags, each.metadata, each.idempotency_key = first.tags, first.metadata, ""
    if linked:
        for at, each in enumerate(headers):
            each.needs = tuple(Need(f"job-{n}", ("previous", "steps.0")) for n in range(at * 50))
    jobs = [submission(f"job-{at}", each, b"x" * 100 * at) for at, each in enumerate(headers)]
    sent = SubmitGroup(jobs, batch=BatchSpec("b", names=("a",) * 9) if linked else None, metadata=metadata)
    assert len(submit_format.encode_groups([sent])) <= size_of_group(sent)


class Recorder:
    """A transport that answers every submit at once and keeps the sizes of the calls."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.ids: list[str] = []

    async def submit(self, groups: Sequence[SubmitGroup], *, linger_s: float = 0.0) -> SubmitReply:
        self.sizes.append(len(submit_format.encode_groups(groups)))
        self.ids += [job.id for each in groups for job in each.jobs]
        await asyncio.sleep(0)
        return SubmitReply([None] * len(groups))


@settings(max_examples=20, deadline=None)
@given(st.lists(SIZES, min_size=1, max_size=6))
def test_any_mix_of_groups_is_sent_whole_in_calls_within_the_limit(mix: list[list[int]]) -> None:
    recorder = Recorder()
    groups = [
        group(*(submission("", header(), b"x" * size) for size in part))
        for sizes in mix
        for part in parts_within(sizes, lambda size: size, limit=20 * MIB, most=1_000)
    ]

    async def send() -> None:
        sender = SubmitCoalescer(recorder, lambda events: None)  # type: ignore[arg-type]
        await asyncio.gather(*map(sender.submit, groups))

    asyncio.run(send())
    assert max(recorder.sizes) <= MAX_CALL_BYTES
    assert sorted(recorder.ids) == sorted(job.id for each in groups for job in each.jobs)


async def test_a_thousand_large_jobs_of_a_list_go_in_several_calls() -> None:
    recorder, jobs = Recorder(), [submission("", header(), b"x" * 3 * MIB) for _ in range(30)]
    sender = SubmitCoalescer(recorder, lambda events: None)  # type: ignore[arg-type]
    await asyncio.gather(*(sender.submit(group(job)) for job in jobs))
    assert max(recorder.sizes) <= MAX_CALL_BYTES
    assert [len(part) for part in paging.parts_of(jobs)] == [6] * 5


async def test_a_group_too_large_to_be_accepted_whole_is_refused_and_says_what_to_do() -> None:
    recorder = Recorder()
    sender = SubmitCoalescer(recorder, lambda events: None)  # type: ignore[arg-type]
    jobs = [submission("", header(), b"x" * 4 * MIB) for _ in range(9)]
    with pytest.raises(PayloadTooLarge, match=r"jobs: have \d+ bytes together.*submit_batch_job"):
        await sender.submit(group(*jobs))
    assert not recorder.sizes


class Counted(ClientHarness):
    """A client whose calls are weighed."""

    async def __aenter__(self) -> Counted:
        self.answers: list[int] = []
        call: Callable[..., Any] = self.transport._call

        async def weighed(method: str, answer: Any) -> Any:
            given = await call(method, answer)
            self.answers.append(len(protocol.encode(given)))
            return given

        self.transport._call = weighed  # type: ignore[method-assign]
        return self


@pytest.fixture
async def counted() -> AsyncIterator[Counted]:
    """Return a client and a queue without a worker."""
    async with Counted() as made:
        yield made


async def ended(queue: ServiceHarness, ids: Sequence[str], size: int) -> None:
    """Let jobs end with results of ``size`` bytes."""
    for job_id in ids:
        await queue.claim(1)
        outcome = completed(job_id)
        outcome.result = msgspec.json.encode(result("x" * size))
        await queue.exchange(outcome, slots=0)


async def test_large_results_come_in_pages_and_all_of_them(counted: Counted) -> None:
    adapter = await counted.client()
    ids = await adapter.submit_jobs([chat()] * 12)
    await ended(counted.queue, ids, 5 * MIB)
    counted.answers.clear()
    found = await adapter.get_jobs(["nobody", *ids, "nobody"])
    assert [info and info.job_id for info in found] == [None, *ids, None]
    answers = [info.result.response for info in found if info and info.result]
    assert [len(str(each.choices[0].message.content)) for each in answers if each] == [5 * MIB] * 12
    assert max(counted.answers) <= 2 * call_size.PART_BYTES
    assert len(counted.answers) > 3
    assert [info.job_id for info in await adapter.wait_all(ids)] == ids
    assert max(counted.answers) <= MAX_CALL_BYTES


async def test_waiting_for_many_jobs_asks_in_pages_and_once(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "JOBS_AT_ONCE", 100)
    monkeypatch.setattr(event_feed, "JOBS_AT_ONCE", 100)
    adapter = await counted.client()
    ids = await adapter.submit_jobs([chat()] * 950)
    waiting = asyncio.create_task(adapter.wait_all(ids))
    await counted.polled()  # an end that overtakes its job's look-up is looked up again
    await counted.work(slots=100)
    assert [info.job_id for info in await waiting] == ids
    assert counted.transport.calls["get_jobs"] == 10
    with pytest.raises(JobNotFound, match="nobody"):
        await adapter.wait_all([*ids, "nobody"])
    assert not adapter._started(adapter._feed)._waiting


async def test_a_cancel_of_ended_jobs_reads_no_results(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = await counted.client()
    ids = await adapter.submit_jobs([chat()] * 3)
    await ended(counted.queue, ids[:2], 1_000)
    monkeypatch.setattr(counted.queue.service, "get_jobs", lambda *_, **__: pytest.fail("results were read"))
    replies = await counted.queue.service.cancel([*ids, "nobody"])
    assert [reply.status for reply in replies] == ["completed", "completed", "cancelled", ""]


async def test_dead_letters_are_listed_in_pages_of_bounded_size(counted: Counted) -> None:
    adapter = await counted.client()
    ids = await adapter.submit_jobs([chat()] * 9, {"max_retries": 0})
    await _dead(counted.queue, ids, 3 * MIB)
    found = await adapter.dead_letters.find(limit=20)
    assert sorted(info.job_id for info in found) == sorted(ids)
    assert max(counted.answers) <= 2 * call_size.PART_BYTES


async def _dead(queue: ServiceHarness, ids: Sequence[str], size: int) -> None:
    seqs = [queue.memory.jobs([job_id])[job_id].seq for job_id in ids]
    body = msgspec.json.encode(result("x" * size))
    queue.memory.commit(
        Rows(states=[(seq, "dead_letter", b"", 9.0) for seq in seqs], results=[(seq, body) for seq in seqs])
    )


@pytest.mark.parametrize("drains", [False, True])
async def test_a_worker_reports_large_results_in_several_calls_and_all_of_them(drains: bool) -> None:
    async with ClientHarness() as harness:
        adapter = await harness.client()
        ids = await adapter.submit_jobs([chat()] * 12)
        harness.provider.text = "x" * 3 * MIB
        harness.provider.hold()
        transport, provider = harness.transport, {"sim": harness.provider}
        async with worker_beside(transport, provider, slots=12, max_result_bytes=16 * MIB) as loop:
            await until(lambda: len(harness.provider.calls) == 12)
            stopping = asyncio.create_task(loop.stop(grace_s=60.0)) if drains else None
            harness.provider.release()
            assert [info.status for info in await adapter.wait_all(ids)] == ["completed"] * 12
            if stopping:
                await stopping
        assert max(len(protocol.encode(call)) for call in transport.sent) <= 2 * call_size.PART_BYTES
        assert max(len(call.outcomes) for call in transport.sent) > 1


def test_an_answer_that_lingers_is_bounded() -> None:
    waiter: Any = asyncio.new_event_loop().create_future()
    group_of = event_log._Lingering("client-a", {f"job-{n}" for n in range(9)}, waiter)
    taken = []
    for number in range(9):
        told = event(number)
        told.result = b"x" * MIB
        taken.append(group_of.takes(told))
    assert taken == [True] * 3 + [False] * 6
    assert waiter.done()
    assert len(group_of.events) == 3


class Weighed:
    """A service whose answers to workers are weighed."""

    def __init__(self, *, cache_bytes: int) -> None:
        self.queue = ServiceHarness(job_settings(cache_bytes=cache_bytes, heartbeat_s=3_600.0))
        self.transport = InProcessTransport(self.queue.service)
        self.provider = FakeProvider()
        self.answers: list[int] = []
        real = self.queue.service.exchange

        async def weighed(call: ExchangeCall) -> ExchangeReply:
            reply = await real(call)
            self.answers.append(len(protocol.encode(reply)))
            return reply

        self.queue.service.exchange = weighed  # type: ignore[method-assign]

    async def work(self, slots: int) -> list[str]:
        """Let a worker run all there is; return what it ran, in order."""
        live = self.queue.service._engine.core.live
        async with worker_beside(self.transport, {"sim": self.provider}, slots=slots):
            await until(lambda: not live)
        return [call.job_id for call in self.provider.calls]


@pytest.mark.parametrize("cache_bytes", [0, 30 * MIB, 2**30])
@pytest.mark.parametrize("slots", [1, 8, 64])
async def test_a_worker_is_given_large_payloads_in_several_answers_and_all(slots: int, cache_bytes: int) -> None:
    weighed = Weighed(cache_bytes=cache_bytes)
    sizes = [4 * MIB - 100, 10, 3 * MIB, 10, 10, 10, 4 * MIB - 100, 2 * MIB, 10] * 3
    ids = [f"job-{number:02}" for number in range(len(sizes))]
    for job_id, size in zip(ids, sizes, strict=True):
        body = msgspec.json.encode(chat("x" * size))
        await weighed.queue.service.submit([group(submission(job_id, payload=body))])
    assert sorted(await weighed.work(slots)) == ids
    assert max(weighed.answers) <= call_size.PART_BYTES + 1_000
    views = await weighed.queue.service.get_jobs(ids)
    assert [view and view.attempt for view in views] == [1] * len(ids)


async def test_a_job_that_is_larger_than_a_part_goes_alone() -> None:
    weighed = Weighed(cache_bytes=2**30)
    large = msgspec.json.encode(chat("x" * 20 * MIB))
    for job_id, body in (("a", b"{}"), ("large", large), ("b", b"{}")):
        await weighed.queue.service.submit([group(submission(job_id, payload=body))])
    reply = await weighed.queue.service.exchange(ExchangeCall("w", "pool", 8, number=1))
    assert ([claim.job_id for claim in reply.claims], reply.more) == (["a"], True)
    reply = await weighed.queue.service.exchange(ExchangeCall("w", "pool", 8, running=[("a", 1)], number=2))
    assert ([claim.job_id for claim in reply.claims], reply.more) == (["large"], True)
    held = [("a", 1), ("large", 1)]
    reply = await weighed.queue.service.exchange(ExchangeCall("w", "pool", 8, running=held, number=3))
    assert ([claim.job_id for claim in reply.claims], reply.more) == (["b"], False)
    assert max(weighed.answers) <= MAX_CALL_BYTES


async def test_inputs_count_and_those_that_no_call_can_carry_fail_their_job_and_no_other() -> None:
    weighed = Weighed(cache_bytes=0)
    await weighed.queue.submit(*(f"parent-{number}" for number in range(10)))
    await ended(weighed.queue, [f"parent-{number}" for number in range(10)], 4 * MIB)

    def child(name: str, parents: int) -> SubmitGroup:
        needs = tuple(Need(f"parent-{number}", (f"steps.s{number}",)) for number in range(parents))
        job = submission(
            name, replace(header(batch_id=name), needs=needs, on_error="fail"), msgspec.json.encode(chat())
        )
        return SubmitGroup([job], batch=BatchSpec(name))

    children = [child("one", 1), child("two", 2), child("ten", 10), child("more", 1)]
    assert await weighed.queue.service.submit(children) == [None] * 4
    weighed.answers.clear()
    assert sorted(await weighed.work(8)) == ["more", "one", "two"]
    assert max(weighed.answers) <= MAX_CALL_BYTES
    (view,) = await weighed.queue.service.get_jobs(["ten"])
    assert view is not None
    assert view.failure is not None
    assert (view.status, view.failure.kind) == ("failed", "inputs_too_large")
    assert "32 MiB" in view.failure.message


async def test_urgent_jobs_go_first_where_an_answer_has_no_room_for_all() -> None:
    weighed = Weighed(cache_bytes=2**30)
    body = msgspec.json.encode(chat("x" * 5 * MIB))
    for name, level in (("z-low", "low"), ("a-low", "low"), ("m-urgent", "urgent"), ("b-medium", "medium")):
        job = submission(name, header(AIJobPriority(level)), body)
        await weighed.queue.service.submit([group(job)])
    assert await weighed.work(8) == ["m-urgent", "b-medium", "z-low", "a-low"]
