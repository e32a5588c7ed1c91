"""The queue's side of each call: msgpack in, ``QueueService``, msgpack out."""

from __future__ import annotations

from abc import ABC, abstractmethod

from aiqueue import batch_protocol, protocol, versions
from aiqueue.engine.schedule_records import decode_call
from aiqueue.errors import IncompatibleVersion, StartError
from aiqueue.own_version import own_version
from aiqueue.service.queue_service import QueueService
from aiqueue.submit_format import receive_in_parts
from aiqueue.versions import Version
from aiqueue.waiting import in_parts


class AnsweredCalls(ABC):
    """What ``aiqueue.client.calls.QueueCalls`` asks.

    Nothing here awaits between reading a call and handing it on, except that a large submit is read in parts.
    """

    @abstractmethod
    def _open(self) -> QueueService:
        """Return the service that answers."""

    async def hello(self, caller: bytes = b"") -> bytes:
        """Take a Version, return a Welcome. Raises StartError for a caller too old or too new."""
        if refusal := versions.refusal(versions.decode(caller) if caller else Version(), own_version()):
            raise (IncompatibleVersion if caller else StartError)(refusal)  # each release can unpickle its own errors
        return protocol.encode(self._open().welcome())

    async def submit(self, groups: bytes, linger_s: float) -> bytes:
        """Take groups as ``submit_format`` packs them, return a SubmitReply when they are on disk."""
        received = await in_parts(receive_in_parts(groups))
        return protocol.encode(received.whole(await self._open().submit_and_linger(received.groups, linger_s)))

    async def exchange(self, call: bytes) -> bytes:
        """Take an ExchangeCall, return an ExchangeReply: a worker's long poll."""
        said = protocol.decode_exchange_call(call)
        if said.protocol < versions.OLDEST:
            raise StartError(versions.refusal(Version(said.protocol), own_version()))
        return protocol.encode(await self._open().exchange(said))

    async def events(self, call: bytes) -> bytes:
        """Take an EventsCall, return an EventsReply: a client process's long poll."""
        return protocol.encode(await self._open().events(protocol.decode_events_call(call)))

    async def get_jobs(self, ids: bytes, with_payload: bool) -> bytes:
        """Take job ids, return ``list[JobView | None]``."""
        return protocol.encode(await self._open().get_jobs(protocol.decode_ids(ids), with_payload=with_payload))

    async def list_dead_letters(self, call: bytes) -> bytes:
        """Take a DeadLettersCall, return a DeadLettersReply."""
        return protocol.encode(await self._open().dead_letters.find(protocol.decode_dead_letters_call(call)))

    async def delete_dead_letters(self, ids: bytes) -> bytes:
        """Take job ids, return the ids of those that were dead letters and are gone."""
        return protocol.encode(await self._open().dead_letters.delete(protocol.decode_ids(ids)))

    async def schedules(self, call: bytes) -> bytes:
        """Take a SchedulesCall, return a SchedulesReply."""
        return protocol.encode(await self._open().schedules.answer(decode_call(call)))

    async def get_states(self, ids: bytes) -> bytes:
        """Take job ids, return their states: of an unknown one an empty one."""
        return protocol.encode(await self._open().batches.states(protocol.decode_ids(ids)))

    async def batch(self, call: bytes) -> bytes:
        """Take a BatchCall, return a BatchView."""
        return protocol.encode(await self._open().batches.call(batch_protocol.decode_batch_call(call)))

    async def batch_results(self, call: bytes) -> bytes:
        """Take a ResultsCall, return a ResultsReply: a long poll where it says so."""
        return protocol.encode(await self._open().batches.results(batch_protocol.decode_results_call(call)))

    async def cancel(self, ids: bytes) -> bytes:
        """Take job ids, return ``list[CancelReply]``."""
        return protocol.encode(await self._open().cancel(protocol.decode_ids(ids)))

    async def stats(self) -> bytes:
        """Return Stats."""
        return protocol.encode(await self._open().counted_stats())

    async def pool_loads(self) -> bytes:
        """Return ``dict[str, PoolLoad]``, by pool."""
        return protocol.encode(self._open().pool_loads())

    async def lose_worker(self, worker_id: str, reason: str, crashed: bool) -> int:
        """Take back what a dead worker held."""
        return await self._open().lose_worker(worker_id, reason, crashed=crashed)

    async def announce(self, name: str, data: bytes) -> int:
        """Take a msgpack map, put an event about no job into the log and return its number."""
        return await self._open().announce(name, protocol.decode_any(data))

    async def commit_waits_s(self) -> float:
        """Return for how many seconds a commit has been waiting for the disk."""
        return self._open().commit_waits_s()
