"""Clients that do what clients do, in an order that the seed decides."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.errors import AIQueueError, QueueUnavailable
from aiqueue.models import BatchOptions
from aiqueue.orchestrator.orchestrator import AsyncAIJobOrchestrator
from aiqueue.orchestrator.submitting import PartSender
from aiqueue.testing.jobs import chat
from aiqueue.testing.simulation.network import Network, RemoteFault, SimulatedTransport
from aiqueue.testing.simulation.promises import Promises
from aiqueue.testing.simulation.world import World

_CHOSEN = [str(UUID(int=number)) for number in (1, 2, 3)]  # ids that callers choose, more than once
_NAMES = ("nightly", "hourly")  # batches, likewise
_KEYS = ("key-a", "key-b")
_MODELS = ("model-a", "model-a", "model-b")


class SimulatedClient:
    """One client process. ``busy`` counts what it has begun and not ended."""

    def __init__(self, world: World, network: Network, promises: Promises, name: str) -> None:
        self.world, self.promises, self.name = world, promises, name
        self.node = world.node(name)
        self._transport = SimulatedTransport(network, name)
        self.adapter = AsyncAIQueueAdapter(self._transport)
        self.made = AsyncAIJobOrchestrator(self.adapter)
        self.busy: dict[int, str] = {}
        self._begun = 0
        self._ready = asyncio.Event()

    def start(self) -> None:
        """Join the system."""
        self.world.loop.spawn(self.node, self._start())

    def begin(self, what: Callable[[SimulatedClient], Awaitable[None]], at_s: float) -> None:
        """Do something after a time."""
        self._begun += 1
        self.busy[self._begun] = what.__name__
        self.world.loop.spawn(self.node, self._do(what, self._begun, at_s))

    async def _start(self) -> None:
        while True:
            try:
                await self.adapter.start()
            except (QueueUnavailable, RemoteFault):
                await asyncio.sleep(0.5)
            else:
                self._ready.set()
                return

    async def _do(self, what: Callable[[SimulatedClient], Awaitable[None]], number: int, at_s: float) -> None:
        await asyncio.sleep(at_s)
        await self._ready.wait()
        world = self.world
        world.note(self.name, "begins", what.__name__, number)
        try:
            await what(self)
            world.note(self.name, "did", what.__name__, number)
        except (AIQueueError, RemoteFault) as error:
            world.note(self.name, "was told", what.__name__, number, type(error).__name__, str(error)[:90])
        except Exception as error:
            world.violated("client raised", what.__name__, repr(error))
        finally:
            if self.node.alive:
                del self.busy[number]

    # --- choices ---

    def _payload(self, text: str = "") -> dict[str, Any]:
        draws = self.world.draws
        draw = draws.random()
        kind = "bad" if draw < 0.1 else "poison" if draw < 0.13 and self.world.odds["poison"] else "ask"
        return chat(f"{text or kind}", model=draws.choice(_MODELS))

    def _options(self, **fields: Any) -> dict[str, Any]:
        draws = self.world.draws
        options: dict[str, Any] = {"timeout": draws.choice((500, 2_000)), "max_retries": draws.choice((0, 1, 2))}
        if draws.random() < 0.3:
            options["priority"] = draws.choice(("urgent", "low"))
        if draws.random() < 0.15:
            options["delay"] = draws.choice((0, 500, 3_000, 30_000))
        elif draws.random() < 0.15:
            options["run_at"] = datetime.fromtimestamp(self.world.wall() + draws.choice((-1, 5, 20)), UTC)
        if draws.random() < 0.1:
            options["expires_in"] = draws.choice((1, 1_000, 10_000))
        elif draws.random() < 0.1:
            options["deadline"] = datetime.fromtimestamp(self.world.wall() + draws.choice((1, 10)), UTC)
        if draws.random() < 0.1:
            options["on_gate"] = "fail"
        return options | fields

    def _some_job(self) -> str:
        return self.world.draws.choice(list(self.promises.acked) or _CHOSEN)

    def _some_batch(self) -> str:
        return self.world.draws.choice([*self.promises.batches, *_NAMES])

    def _batch(self, batch_id: str, how: str, job_ids: Sequence[str]) -> None:
        self.promises.batches.append(batch_id)
        self.promises.accepted(how, *job_ids)

    # --- jobs ---

    async def one(self) -> None:
        """Submit one job; mostly wait for it."""
        job_id = await self.adapter.submit_job(self._payload(), self._options())
        self.promises.accepted("submit_job", job_id)
        if self.world.draws.random() < 0.7:
            await self.adapter.wait(job_id)

    async def callback(self) -> None:
        """Submit a job and wait for its result in one call."""
        await self.adapter.submit_job_with_callback(self._payload(), self._options())

    async def many(self) -> None:
        """Submit a list and wait for all of it."""
        count = self.world.draws.randint(2, 5)
        ids = await self.adapter.submit_jobs([self._payload() for _ in range(count)], self._options())
        self.promises.accepted("submit_jobs", *ids)
        await self.adapter.wait_all(ids)

    async def flood(self) -> None:
        """Submit more jobs than the workers have slots, and wait for all of them."""
        ids = await self.adapter.submit_jobs([chat("at once") for _ in range(500)], {"max_retries": 2})
        self.promises.accepted("submit_jobs", *ids)
        await self.adapter.wait_all(ids)

    async def chosen_id(self) -> None:
        """Submit a job under an id that others choose too."""
        job_id = self.world.draws.choice(_CHOSEN)
        self.promises.accepted("job_id", await self.adapter.submit_job(chat("chosen"), {"job_id": job_id}))
        if self.world.draws.random() < 0.5:
            await self.adapter.wait(job_id)

    async def key(self) -> None:
        """Submit a job under a key that others use too."""
        key, delay = self.world.draws.choice(_KEYS), self.world.draws.choice((0, 0, 20_000))
        options = {"idempotency_key": key, "delay": delay, "max_retries": 0}
        text = self.world.draws.choice(("keyed", "bad keyed"))
        asked_at = self.world.loop.now
        job_id = await self.adapter.submit_job(chat(text), options)
        self.promises.accepted_with_key(key, f"{text} {delay}", job_id, asked_at)
        self.promises.accepted("key", job_id)

    async def key_later(self) -> None:
        """Use a key again while its job waits, and after it was a dead letter that was deleted."""
        delay = self.world.draws.choice((0, 90_000))
        options = {"idempotency_key": f"later-{delay}", "delay": delay, "max_retries": 0}
        for wait in (15.0, 0.0):
            asked_at = self.world.loop.now
            job_id = await self.adapter.submit_job(chat("bad keyed" if delay else "keyed"), options)
            self.promises.accepted_with_key(f"later-{delay}", "", job_id, asked_at)
            await asyncio.sleep(wait)

    async def cancel(self) -> None:
        """Cancel anybody's job."""
        await self.adapter.cancel_job(self._some_job())

    async def look(self) -> None:
        """Look jobs and statistics up."""
        await self.adapter.get_jobs([self._some_job(), self._some_job()])
        await self.adapter.get_system_stats()

    async def wait_for_other(self) -> None:
        """Wait for anybody's job."""
        await self.adapter.wait(self._some_job())

    # --- batches ---

    async def named_batch(self) -> None:
        """Submit a batch under a name that others use too."""
        count, batch_id = self.world.draws.randint(1, 4), self.world.draws.choice(_NAMES)
        options = self._options()
        if self.world.draws.random() < 0.3:
            count, options["job_id"] = 1, self.world.draws.choice(_CHOSEN)
        ids = await self.adapter.submit_jobs([self._payload() for _ in range(count)], options, batch_id=batch_id)
        self._batch(batch_id, "named batch", ids)
        await self.adapter.wait_all(ids)

    async def batch(self) -> None:
        """Submit a batch and do things to it."""
        draws = self.world.draws
        payloads = [self._payload() for _ in range(draws.randint(1, 6))]
        more = {"max_concurrency": draws.choice((None, 1, 2)), "fail_fast": draws.random() < 0.2}
        fan = await self.made.fan_out(payloads, self._options(), **more)
        self._batch(fan.batch_id, "batch", fan.job_ids)
        for _ in range(draws.randint(0, 3)):
            await asyncio.sleep(draws.choice((0.0, 0.5, 2.0)))
            await self._act(fan.batch_id, draws.choice(("cancel", "pause", "resume", "retry_failed", "retry_failed")))
        await self.made.wait_batch(fan.batch_id)
        async for _ in self.made.iter_results(fan.batch_id):
            pass

    async def failing_batch(self) -> None:
        """Retry a batch that failed twice at once, or stop it meanwhile."""
        draws = self.world.draws
        payloads = [self._payload("bad") for _ in range(draws.randint(2, 6))]
        fan = await self.made.fan_out(payloads, self._options(max_retries=0))
        self._batch(fan.batch_id, "batch", fan.job_ids)
        await self.made.wait_batch(fan.batch_id)
        acts = [self._act(fan.batch_id, "retry_failed") for _ in range(draws.randint(1, 2))]
        if draws.random() < 0.4:
            acts.append(self._act(fan.batch_id, "cancel", draws.choice((0.003, 0.006, 0.5))))
        await asyncio.gather(*acts, return_exceptions=True)
        await self.made.wait_batch(fan.batch_id)

    async def steer(self) -> None:
        """Do something to any batch."""
        await self._act(self._some_batch(), self.world.draws.choice(("cancel", "pause", "resume", "retry_failed")))

    async def open_batch(self) -> None:
        """Send a batch in parts; seal or drop it; perhaps another job waits for its jobs."""
        draws = self.world.draws
        batch_id = f"open-{len(self.promises.batches)}"
        sender = PartSender(self.adapter.session, batch_id, BatchOptions())
        ids = await sender.send([self._payload(), self._payload()])
        ids += await sender.send([self._payload()])
        if draws.random() < 0.5:
            job_id = await self.made.fan_in_job(ids, chat("{{results}}"), on_error="include")
            self.promises.accepted("fan-in of open batch", job_id)
        if draws.random() < 0.5:
            await asyncio.sleep(draws.choice((0.0, 1.0)))
            await sender.seal()
            self._batch(batch_id, "open batch", ids)
        else:
            await sender.drop()

    async def _act(self, batch_id: str, action: str, after_s: float = 0.0) -> None:
        await asyncio.sleep(after_s)
        if action == "cancel":
            asked_at = self.world.loop.now
            info = await self.made.cancel_batch_job(batch_id)
            if info.status in ("cancelled", "cancelling"):
                self.promises.cancelled(batch_id, asked_at)
        elif action == "pause":
            await self.made.pause_batch_job(batch_id)
        elif action == "resume":
            await self.made.resume_batch_job(batch_id)
        else:
            await self.made.retry_failed(batch_id)

    # --- chains and graphs ---

    async def chain(self) -> None:
        """Submit a chain, and try what failed again."""
        draws = self.world.draws
        steps = [self._payload() for _ in range(draws.randint(2, 4))]
        chain = await self.made.create_job_chain(steps, self._options(), stop_on_error=draws.random() < 0.7)
        self._batch(chain.chain_id, "chain", chain)
        if draws.random() < 0.3:
            await self.made.pause_batch_job(chain.chain_id)
        await self.made.wait_batch(chain.chain_id)
        if draws.random() < 0.5:
            await self._act(chain.chain_id, "retry_failed")
            await self.made.wait_batch(chain.chain_id)

    async def graph(self) -> None:
        """Submit a graph, and try what failed again while it runs."""
        draws = self.world.draws
        nodes = {
            "a": {"payload": self._payload()},
            "b": {"payload": self._payload()},
            "c": {
                "payload": chat("c"),
                "depends_on": ["a", "b"],
                "on_error": draws.choice(("fail", "skip", "include")),
            },
            "d": {"payload": chat("d"), "depends_on": ["b"], "on_error": "fail"},
        }
        graph = await self.made.submit_graph(nodes, {"max_retries": 0})
        self._batch(graph.graph_id, "graph", list(graph.values()))
        for _ in range(draws.randint(0, 2)):
            await asyncio.sleep(draws.choice((0.5, 2.0)))
            await self._act(graph.graph_id, "retry_failed")
        await self.made.wait_batch(graph.graph_id)

    async def fan_in(self) -> None:
        """Submit jobs that wait for anybody's, all for the same ones, and cancel the first of several."""
        needed = sorted({self._some_job() for _ in range(3)})
        made = []
        for _ in range(self.world.draws.randint(1, 3)):
            made.append(await self.made.fan_in_job(needed, chat("{{results}}"), on_error="include"))
            self.promises.accepted("fan-in", made[-1])
        if len(made) > 1:
            await self.adapter.cancel_job(made[0])
        for job_id in made:
            await self.adapter.wait(job_id)

    # --- the rest ---

    async def schedule(self) -> None:
        """Add a schedule that fires soon, and remove it."""
        draws = self.world.draws
        schedules = self.adapter.schedules
        overlap = draws.choice(("skip", "queue", "cancel_running"))
        info = await schedules.add(
            self._payload(), f"s{len(self.promises.acked)}", cron_expression="*/4 * * * * *", overlap=overlap
        )
        await asyncio.sleep(draws.choice((1.0, 6.0)))
        if draws.random() < 0.5:
            await schedules.pause(info.schedule_id)
        await schedules.remove(info.schedule_id)
