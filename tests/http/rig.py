"""A whole system without Ray behind the HTTP application, for tests of what streams."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.http_config import HttpConfig
from serve.app import create_app
from tests.tools.asgi_streams import SocketClient, SseClient
from tests.tools.client_harness import ClientHarness


class Rig(ClientHarness):
    """A queue, a client, and the application in front of another client."""

    app: Any
    adapter: AsyncAIQueueAdapter
    http: httpx.AsyncClient

    def sse(self, address: str, **headers: str) -> SseClient:
        """Return a reader of a stream; not open yet."""
        return SseClient(self.app, address, {name.replace("_", "-"): value for name, value in headers.items()})

    def socket(self, **headers: str) -> SocketClient:
        """Return a WebSocket; not open yet."""
        return SocketClient(self.app, "/ai/ws", headers)

    def parked(self) -> list[str]:
        """Return the clients whose long polls wait at the queue."""
        return list(self.queue.service._log._parked)

    def followers(self) -> bool:
        """Tell whether the application's client has a stream open."""
        return bool(self.app.state.adapter._feed.subscriptions)

    @asynccontextmanager
    async def serving(self, **options: Any) -> AsyncIterator[None]:
        """Serve over ASGI while the block lasts."""
        self.app = create_app(lambda: AsyncAIQueueAdapter(self.transport), HttpConfig(), **options)
        async with (
            self.app.router.lifespan_context(self.app),
            httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://127.0.0.1") as self.http,
        ):
            yield
