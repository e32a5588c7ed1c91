"""Jobs that are put in the place of failed ones while a deletion, a retry or retention reads what there is of them."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from aiqueue.batch_protocol import BatchCall
from aiqueue.ids import id_of, next_try_of
from aiqueue.protocol import BatchSpec, SubmitGroup
from aiqueue.testing.jobs import completed, failed, final, group, header, submission
from tests.tools.service_harness import ServiceHarness
from tests.tools.turns import until

_LIMIT_S = 60.0  # for a read that nothing lets go on
_FIRST = id_of("run", "row", "0")
_NEXT = next_try_of(_FIRST)


class Held:
    """Holds up the first read of one kind, once it has read, or ``before`` that. Made while nothing reads."""

    def __init__(
        self,
        queue: ServiceHarness,
        name: str,
        is_meant: Callable[[Any], bool] = lambda asked: True,
        *,
        before: bool = False,
    ) -> None:
        self._reached, self._go_on, self._lock = threading.Event(), threading.Event(), threading.Lock()
        read = getattr(queue.journal, name)

        def held(asked: Any) -> Any:
            found = None if before else read(asked)
            with self._lock:
                is_first = is_meant(asked) and not self._reached.is_set()
                if is_first:
                    self._reached.set()
            if is_first:
                self._go_on.wait(_LIMIT_S)
            return read(asked) if before else found

        setattr(queue.journal, name, held)

    @property
    def is_reached(self) -> bool:
        """Whether the read is held up, or was."""
        return self._reached.is_set()

    async def meanwhile(self) -> None:
        """Wait until the read is held up."""
        await until(self._reached.is_set)

    def go_on(self) -> None:
        self._go_on.set()


def batch(batch_id: str, job_id: str) -> SubmitGroup:
    return SubmitGroup([submission(job_id, header(max_retries=0, batch_id=batch_id))], True, batch=BatchSpec(batch_id))


async def fail_first(queue: ServiceHarness, **fields: Any) -> None:
    """Let the job fail that ``map`` made for a row."""
    assert await queue.service.submit([batch("first", _FIRST)]) == [None]
    assert await queue.claim() == [_FIRST]
    await queue.exchange(failed(_FIRST, **fields), slots=0)


async def try_again(queue: ServiceHarness) -> None:
    """Let ``map`` put another job in its place, which completes."""
    assert await queue.service.submit([batch("next", _NEXT)]) == [None]
    queue.clock.advance(1.0)
    assert await queue.claim() == [_NEXT]
    await queue.exchange(completed(_NEXT), slots=0)


async def test_a_dead_letter_that_map_tries_again_while_its_deletion_reads_is_kept(queue: ServiceHarness) -> None:
    await fail_first(queue)
    held = Held(queue, "keys_of_only")
    deletion = asyncio.create_task(queue.service.dead_letters.delete([_FIRST]))
    await held.meanwhile()
    await try_again(queue)
    held.go_on()
    assert await deletion == [_FIRST]
    assert (await queue.view(_FIRST)).status == "failed"


async def test_a_failed_job_that_map_tries_again_while_retention_reads_is_kept(queue: ServiceHarness) -> None:
    await fail_first(queue, failure=final())
    queue.clock.advance(90_000.0)
    held = Held(queue, "states", lambda asked: _NEXT in asked)
    forgetting = asyncio.create_task(queue.forget_old())
    await held.meanwhile()
    await try_again(queue)
    held.go_on()
    await forgetting
    assert (await queue.view(_FIRST)).status == "failed"


@pytest.mark.parametrize("completes", [False, True])
async def test_a_failed_job_that_map_tries_again_while_its_retry_reads_does_not_run_twice(
    queue: ServiceHarness, completes: bool
) -> None:
    await fail_first(queue, failure=final())
    held = Held(queue, "states", lambda asked: _NEXT in asked)
    retry = asyncio.create_task(queue.service.batches.call(BatchCall("first", "retry_failed")))
    await held.meanwhile()
    if completes:
        await try_again(queue)
    else:
        assert await queue.service.submit([batch("next", _NEXT)]) == [None]
    held.go_on()
    assert (await retry).changed == 0
    assert list(queue.service._engine.core.live) == ([] if completes else [_NEXT])


async def redrive(queue: ServiceHarness, job_id: str, successor: str) -> None:
    again = replace(header(max_retries=0), redriven_from=job_id, idempotency_key=f"redrive:{job_id}")
    assert await queue.service.submit([group(submission(successor, again))]) == [None]


async def test_a_redrive_that_is_redriven_while_a_deletion_of_the_first_one_reads_keeps_the_key(
    queue: ServiceHarness,
) -> None:
    sent = replace(header(max_retries=0), idempotency_key="key")
    assert await queue.service.submit([group(submission("first", sent))]) == [None]
    await queue.exchange(*map(failed, await queue.claim()), slots=0)
    await redrive(queue, "first", "second")
    await queue.exchange(*map(failed, await queue.claim()), slots=0)
    held = Held(queue, "keys", lambda asked: list(asked) == ["key"])
    deletion = asyncio.create_task(queue.service.dead_letters.delete(["first"]))
    await held.meanwhile()
    await redrive(queue, "second", "third")
    held.go_on()
    assert await deletion == ["first"]
    reply = await queue.service.submit_and_linger([group(submission("again", sent))], 0.0)
    assert reply.known == {0: "first"}
    assert list(queue.service._engine.core.live) == ["third"]


@pytest.mark.parametrize("others", [[], ["other", "other 2"]], ids=["alone", "beside one whose way is longer"])
async def test_a_redrive_that_lived_when_a_deletion_looked_keeps_the_key_though_it_fails_and_is_redriven(
    queue: ServiceHarness, others: list[str]
) -> None:
    sent = replace(header(max_retries=0), idempotency_key="key")
    assert await queue.service.submit([group(submission("first", sent))]) == [None]
    for job_id in others[:1]:
        assert await queue.service.submit([group(submission(job_id, header(max_retries=0)))]) == [None]
    await queue.exchange(*map(failed, await queue.claim(4)), slots=0)
    for before, again in itertools.pairwise(others):
        await redrive(queue, before, again)
        await queue.exchange(*map(failed, await queue.claim(4)), slots=0)
    await redrive(queue, "first", "second")
    assert await queue.claim() == ["second"]
    states = Held(queue, "states", lambda asked: {*asked} & {"second", *others[1:]}, before=True)
    keys = Held(queue, "keys", lambda asked: list(asked) == ["key"])
    deletion = asyncio.create_task(queue.service.dead_letters.delete(["first", *others[:1]]))
    await until(lambda: states.is_reached or keys.is_reached or deletion.done())
    await queue.exchange(failed("second"), slots=0)
    states.go_on()
    await until(lambda: keys.is_reached or deletion.done())
    await redrive(queue, "second", "third")
    keys.go_on()
    assert await deletion == ["first", *others[:1]]
    reply = await queue.service.submit_and_linger([group(submission("again", sent))], 0.0)
    assert reply.known == {0: "first"}
    assert list(queue.service._engine.core.live) == ["third"]
