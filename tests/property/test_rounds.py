"""Concurrent submits with ids, keys and batches from a small pool are answered as one after the other in some order."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import hypothesis.strategies as st
from hypothesis import example, given, settings
from msgspec.structs import replace

from aiqueue.protocol import BatchSpec, Submission, SubmitGroup, SubmitReply, decode_header
from aiqueue.testing.jobs import header, submission
from tests.tools.service_harness import ServiceHarness
from tests.tools.turns import turns

IDS, KEYS, BATCHES, BODIES = ("a", "b", "c"), ("", "k0", "k1"), ("", "", "batch"), (b"1", b"1", b"2")


class Sent(NamedTuple):
    """A group: ids of its jobs, key, batch and body."""

    ids: tuple[str, ...]
    key: str
    batch: str
    body: bytes

    def names(self) -> set[str]:
        return {*self.ids, self.key, self.batch} - {""}

    def group(self) -> SubmitGroup:
        of_all = header(batch_id=self.batch)
        jobs: list[Submission] = [submission(job_id, replace(of_all), self.body) for job_id in self.ids]
        jobs[0].header.idempotency_key = self.key
        return SubmitGroup(jobs, True, BatchSpec(self.batch) if self.batch else None)


sent = st.builds(
    Sent,
    st.lists(st.sampled_from(IDS), min_size=1, max_size=2, unique=True).map(tuple),
    *map(st.sampled_from, (KEYS, BATCHES, BODIES)),
)
calls = st.lists(st.lists(sent, min_size=1, max_size=3), min_size=1, max_size=4)
steps = st.lists(st.sampled_from(["hold", "release", "pause", "long pause", "call", "call", "call"]), max_size=16)


@dataclass
class OneByOne:
    """What a queue answers that does one thing after the other."""

    jobs: dict[str, tuple[str, str, bytes]] = field(default_factory=dict)
    keys: dict[str, tuple[str, tuple[object, ...]]] = field(default_factory=dict)
    batches: frozenset[str] = frozenset()

    def submit(self, one: Sent) -> tuple[str, OneByOne]:
        """Return the answer, and the queue afterwards."""
        first, body = one.ids[0], (len(one.ids), one.batch != "", one.body)
        used = self.keys.get(one.key) if one.key else None
        if used and used[0] != first:
            return (f"known {used[0]}" if used[1] == body else "idempotency_conflict"), self
        jobs = {job_id: (one.key if job_id == first else "", one.batch, one.body) for job_id in one.ids}
        if any(self.jobs.get(job_id, job) != job for job_id, job in jobs.items()):
            return "duplicate_job", self
        fresh = jobs.keys() - self.jobs.keys()
        if fresh and one.batch in self.batches:
            return "duplicate_batch", self
        keys = {one.key: (first, body)} if one.key and first in fresh else {}
        batches = {one.batch} if fresh and one.batch else set[str]()
        return "", OneByOne(self.jobs | jobs, self.keys | keys, self.batches | batches)


def explained(queue: OneByOne, waiting: Sequence[Sequence[tuple[Sent, str]]]) -> bool:
    """Tell whether there is an order in which one after the other is answered so."""
    if not any(waiting):
        return True
    for number, call in enumerate(waiting):
        ahead: set[str] = set()  # groups of a call that share a name keep their order
        for at, (one, answer) in enumerate(call):
            if ahead.isdisjoint(one.names()):
                given_, after = queue.submit(one)
                rest = [*waiting[:number], [*call[:at], *call[at + 1 :]], *waiting[number + 1 :]]
                if given_ == answer and explained(after, rest):
                    return True
            ahead |= one.names()
    return False


def answers_of(call: Sequence[Sent], reply: SubmitReply) -> list[tuple[Sent, str]]:
    known = [f"known {reply.known[at]}" if at in reply.known else "" for at in range(len(call))]
    refused = [refusal.kind if refusal else "" for refusal in reply.groups]
    return [(one, a or b) for one, a, b in zip(call, known, refused, strict=True)]


async def run(sent: list[list[Sent]], how: list[str]) -> list[list[tuple[Sent, str]]]:
    """Let callers submit at once, on a disk that hangs now and then; check what is on it at each answer."""
    queue = ServiceHarness()

    async def caller(call: list[Sent]) -> list[tuple[Sent, str]]:
        reply = await queue.service.submit_and_linger([one.group() for one in call], 0.0)
        answers = answers_of(call, reply)
        promised = {job_id for one, answer in answers if not answer for job_id in one.ids}
        promised |= set(reply.known.values())
        assert promised <= queue.memory.jobs(promised).keys(), "answered and not on disk"
        return answers

    under_way: list[asyncio.Task[list[tuple[Sent, str]]]] = []
    todo = list(sent)
    for step in how:
        if step == "call" and todo:
            under_way.append(asyncio.create_task(caller(todo.pop(0))))
        elif step == "hold":
            queue.memory.hold()
        elif step == "release":
            queue.memory.release()
        else:
            await turns(3 if step == "pause" else 60)
    under_way += [asyncio.create_task(caller(call)) for call in todo]
    await turns(3)
    queue.memory.release()
    answers = await asyncio.gather(*under_way)
    stored = queue.memory.jobs(IDS).values()
    used = Counter(decode_header(job.header).idempotency_key for job in stored)
    assert all(count == 1 for key, count in used.items() if key), "one job a key"
    assert queue.service.stats().adapter.total_jobs == len(stored)
    await queue.service.close()
    return answers


AGAIN_LONGER = [[Sent(("a",), "k0", "", b"1"), Sent(("a", "b"), "k0", "", b"1")], [Sent(("b",), "k0", "", b"1")]]


@settings(max_examples=300)
@given(sent=calls, how=steps)
@example(sent=AGAIN_LONGER, how=[])  # a longer list does not take the key of its first job, which is known
def test_submits_at_once_are_answered_as_one_after_the_other(sent: list[list[Sent]], how: list[str]) -> None:
    answers = asyncio.run(run(sent, how))
    assert explained(OneByOne(), answers), answers
