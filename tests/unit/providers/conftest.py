"""A simulated provider, and requests to send to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from aiqueue.config import ProviderConfig
from aiqueue.providers.base import Provider, ProviderRequest
from aiqueue.providers.registry import open_provider
from aiqueue.testing.simulated_provider import SimulatedServer

#: A key without a known shape: only whoever knows it can take it out of a text.
CANARY = "canary-of-the-mine-42"


@pytest.fixture(scope="session")
def server_of_session() -> Iterator[SimulatedServer]:
    """The one server of all these tests."""
    with SimulatedServer() as server:
        yield server


@pytest.fixture
def server(server_of_session: SimulatedServer) -> SimulatedServer:
    """A server that has received nothing."""
    server_of_session.requests.clear()
    return server_of_session


@pytest.fixture
async def openai(server: SimulatedServer) -> AsyncIterator[Provider]:
    """A provider that speaks OpenAI's format to the server."""
    entry = ProviderConfig(kind="openai", base_url=server.openai_url, credential="KEY")
    provider = open_provider("oa", entry, {"KEY": CANARY})
    yield provider
    await provider.close()


@pytest.fixture
async def anthropic(server: SimulatedServer) -> AsyncIterator[Provider]:
    """A provider that speaks Anthropic's format to the server."""
    entry = ProviderConfig(kind="anthropic", base_url=server.anthropic_url, credential="KEY")
    provider = open_provider("an", entry, {"KEY": CANARY})
    yield provider
    await provider.close()


def request(type_: str, *, model: str = "sim", timeout_s: float = 30.0, **body: Any) -> ProviderRequest:
    """A request of ``type_`` with ``body``."""
    whole = {"type": type_, "provider": "p", "model": model, **body}
    return ProviderRequest(job_id="j", type=type_, model=model, body=whole, timeout_s=timeout_s)


def chat(content: Any = "hi there", **rest: Any) -> ProviderRequest:
    """A chat of one turn; ``messages`` in ``rest`` replaces it."""
    return request("chat_completion", **({"messages": [{"role": "user", "content": content}]} | rest))
