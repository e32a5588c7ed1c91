"""Processes of protocol 0 among those of today: a cluster that is being upgraded."""

from __future__ import annotations

from typing import Any

from aiqueue.client.calls import CALL_S
from aiqueue.protocol import ExchangeCall, ExchangeReply, Welcome, decode_welcome, encode
from aiqueue.testing.simulation.network import Served, SimulatedTransport

OF_BEFORE = 0.15  #: of the lives of queues and workers
_KNOWN = Welcome.__struct_fields__[: Welcome.__struct_fields__.index("version")]


class ServedBefore(Served):
    """A life of a queue whose hello takes nothing and tells no version."""

    async def hello(self) -> bytes:  # type: ignore[override]  # as it was
        """Return what a Welcome was."""
        welcome = decode_welcome(await super().hello())
        return encode([getattr(welcome, name) for name in _KNOWN])


class TransportBefore(SimulatedTransport):
    """The way of a worker that says no hello, and names no protocol."""

    async def _call(self, method: str, *args: object, limit_s: float = CALL_S) -> Any:
        return await self._carry(method, *args, limit_s=limit_s)

    async def exchange(self, call: ExchangeCall) -> ExchangeReply:
        """As it was said then."""
        call.protocol = 0
        return await super().exchange(call)
