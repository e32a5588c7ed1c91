"""What clients do with dead letters, and all that a client may do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from aiqueue.testing.jobs import chat
from aiqueue.testing.simulation.clients import SimulatedClient

_SOON_S = (0.0, 0.001, 0.002, 0.004, 0.3)  # while other calls are under way


async def dead_letters(client: SimulatedClient) -> None:
    """Redrive or delete dead letters."""
    world, promises = client.world, client.promises
    successors = dict(promises.history.successors)
    found = await client.adapter.dead_letters.find(limit=10)
    for info in found:
        successor = successors.get(info.job_id)
        if successor is not None and info.batch_id and promises.history.headers[successor].batch_id == info.batch_id:
            world.violated("dead letter that was retried is listed", info.job_id[-12:])
    ids = [info.job_id for info in found[: world.draws.randint(1, 3)]]
    if ids and world.draws.random() < 0.6:
        promises.accepted("redrive", *await client.adapter.dead_letters.redrive(ids))
    elif ids:
        await _delete(client, ids)


async def dead_letters_of_batch(client: SimulatedClient) -> None:
    """Redrive and delete dead letters of a batch while it is retried."""
    draws = client.world.draws
    payloads = [chat("down") for _ in range(draws.randint(1, 3))]
    fan = await client.made.fan_out(payloads, {"timeout": 2_000, "max_retries": 0})
    client._batch(fan.batch_id, "batch", fan.job_ids)
    await client.made.wait_batch(fan.batch_id)
    acts: list[Awaitable[object]] = [_redrive(client, fan.job_ids) for _ in range(draws.randint(0, 2))]
    acts += [client._act(fan.batch_id, "retry_failed", draws.choice(_SOON_S)) for _ in range(draws.randint(0, 2))]
    if draws.random() < 0.5:
        acts.append(_delete(client, fan.job_ids[:1], draws.choice(_SOON_S)))
    draws.shuffle(acts)
    await asyncio.gather(*acts, return_exceptions=True)
    await client.made.wait_batch(fan.batch_id)


async def _redrive(client: SimulatedClient, ids: Sequence[str]) -> None:
    await asyncio.sleep(client.world.draws.choice(_SOON_S))
    for job_id in ids:
        client.promises.accepted("redrive", *await client.adapter.dead_letters.redrive([job_id]))


async def _delete(client: SimulatedClient, ids: Sequence[str], after_s: float = 0.0) -> None:
    await asyncio.sleep(after_s)
    deleted = await client.adapter.dead_letters.delete(ids)
    client.promises.thrown_away.update(dict.fromkeys(deleted, client.world.loop.now))


#: What a client may do, the common things more often.
ACTS: tuple[Callable[[SimulatedClient], Awaitable[None]], ...] = (
    *(SimulatedClient.one, SimulatedClient.one, SimulatedClient.many, SimulatedClient.callback),
    *(SimulatedClient.chosen_id, SimulatedClient.key, SimulatedClient.key, SimulatedClient.cancel),
    *(SimulatedClient.look, SimulatedClient.wait_for_other, SimulatedClient.named_batch, SimulatedClient.batch),
    *(SimulatedClient.batch, SimulatedClient.failing_batch, SimulatedClient.steer, SimulatedClient.open_batch),
    *(SimulatedClient.chain, SimulatedClient.graph, SimulatedClient.fan_in, dead_letters),
    *(SimulatedClient.schedule, SimulatedClient.key_later, dead_letters_of_batch),
)
