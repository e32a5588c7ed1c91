"""A provider that is not one: an HTTP server on loopback that speaks OpenAI's and Anthropic's wire formats.

For tests, benchmarks and load tests; the real clients talk to it. It answers ``/v1/chat/completions`` and
``/v1/messages`` (both also streamed), ``/v1/completions``, ``/v1/embeddings`` and ``/v1/models``, and misbehaves on
request: see ``script.py`` for what can be asked for by the name of the model. The last requests it received are kept,
and all are counted: in Python as ``requests`` and ``received``, over HTTP at ``/_log`` (``DELETE`` begins anew), there
without the headers, which hold keys.

In a test::

    with SimulatedServer() as provider:
        provider.script.add(Behaviour(status=429, retry_after="2"))
        ...  # OpenAI clients: base_url=provider.openai_url; Anthropic's: provider.anthropic_url

As a process: ``python -m aiqueue.testing.simulated_provider --port 8001``
"""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal

from aiqueue.testing import wire
from aiqueue.testing.loopback_http import ClientGone, Connection, HttpRequest
from aiqueue.testing.script import Behaviour, Script

Outcome = Literal["open", "answered", "broken", "client_gone"]

_ANTHROPIC_PATH = "/v1/messages"


@dataclass(slots=True)
class ReceivedRequest:
    """One request as it arrived, and how it ended: ``broken`` by a fault, or the client went away."""

    number: int  #: from 1, in order of arrival
    path: str
    body: dict[str, Any]
    headers: dict[str, str] = field(repr=False)
    outcome: Outcome = "open"

    @property
    def model(self) -> str:
        """The model it asks for."""
        return str(self.body.get("model", ""))


class SimulatedServer:
    """The simulated provider, in a thread of its own. Use it as a context manager, or call ``start`` and ``stop``."""

    def __init__(self, script: Script | None = None, *, port: int = 0, keep: int = 100_000) -> None:
        self.script = script or Script()
        self.requests: list[ReceivedRequest] = []  #: the last ones, ``keep`` at least
        self.received = 0  #: all of them
        self._keep = keep
        self.port = port  #: 0 until started: a free one
        self._changed = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="simulated-provider", daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    def __enter__(self) -> SimulatedServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def openai_url(self) -> str:
        """What OpenAI clients take as ``base_url``."""
        return f"{self.anthropic_url}/v1"

    @property
    def anthropic_url(self) -> str:
        """What Anthropic clients take as ``base_url``."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen. Returns when clients can connect; raises OSError if the port is taken."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()

    def stop(self) -> None:
        """Close all connections and end the thread."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def wait_until(self, condition: Callable[[list[ReceivedRequest]], bool], *, timeout_s: float = 10.0) -> None:
        """Block until ``condition`` holds for the requests so far. Raises TimeoutError.

        In an ``async`` test: ``await asyncio.to_thread(provider.wait_until, ...)``.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: condition(self.requests), timeout_s):
                raise TimeoutError(f"the requests so far are {self.requests}")

    # From here on: in the server's thread.

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=2**20)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        connection = Connection(reader, writer)
        try:
            while (request := await connection.next_request()) and await self._handle(connection, request):
                pass
        except asyncio.CancelledError:
            return  # the server stops; raised further, asyncio's streams would log it as an error
        finally:
            self._tasks.discard(task)
            connection.close()

    async def _handle(self, connection: Connection, request: HttpRequest) -> bool:
        """Answer one request; return whether the connection can go on."""
        if request.path == "/_log":
            await self._show_log(connection, request)
            return True
        if request.path == "/v1/models":
            await connection.send_json(200, wire.models_body(), {})
            return True
        body = json.loads(request.body or b"{}")
        received = ReceivedRequest(self.received + 1, request.path, body, request.headers)
        self._note(received, "open")
        try:
            whole = await _Reply(connection, received, self._behaviour(received, request.body)).give()
        except (ClientGone, ConnectionError):
            self._note(received, "client_gone")
            return False
        self._note(received, "answered" if whole else "broken")
        return whole

    def _behaviour(self, received: ReceivedRequest, body: bytes) -> Behaviour:
        try:
            return self.script.take(received.model, body)
        except ValueError as error:
            return Behaviour(status=400, message=str(error))

    def _note(self, received: ReceivedRequest, outcome: Outcome) -> None:
        with self._changed:
            if outcome == "open":
                self.received += 1
                self.requests.append(received)
                if len(self.requests) >= 2 * self._keep:
                    del self.requests[: self._keep]
            received.outcome = outcome
            self._changed.notify_all()

    async def _show_log(self, connection: Connection, request: HttpRequest) -> None:
        if request.method == "DELETE":
            with self._changed:
                self.requests.clear()
                self.received = 0
        log = [
            {"number": seen.number, "path": seen.path, "model": seen.model, "outcome": seen.outcome, "body": seen.body}
            for seen in self.requests
        ]
        await connection.send_json(200, {"count": self.received, "requests": log}, {})


@dataclass(frozen=True, slots=True)
class _Reply:
    """One request and what is to be done with it. ``give`` returns False if it broke the connection."""

    connection: Connection
    received: ReceivedRequest
    behaviour: Behaviour

    async def give(self) -> bool:
        await self.connection.wait(self.behaviour.latency_s)
        if self.behaviour.fault == "hang":
            await self.connection.wait(None)
        if self.behaviour.fault == "reset":
            self.connection.reset()
            return False
        if self.behaviour.status >= 400:
            return await self._error(self.behaviour.status)
        if self.behaviour.fault == "error_body":
            return await self._error(200)
        if self.received.body.get("stream"):
            return await self._stream()
        return await self._whole()

    async def _whole(self) -> bool:
        answer = wire.answer_to(self.received.body, self.behaviour)
        await self.connection.wait(self.behaviour.token_delay_s * len(answer.words))
        body = self._body(answer)
        if body is None:
            return await self._error(404)
        if self.behaviour.fault == "no_choices":
            body = {name: value for name, value in body.items() if name not in ("choices", "data", "content")}
        content = b"<html>not JSON" if self.behaviour.fault == "malformed" else json.dumps(body).encode()
        cut = self.behaviour.fault == "cut"
        await self.connection.send(200, content, self._headers(), share=0.5 if cut else 1.0)
        return not cut

    def _body(self, answer: wire.Answer) -> wire.Json | None:
        number = self.received.number
        match self.received.path:
            case "/v1/chat/completions":
                return wire.chat_body(answer, number)
            case "/v1/completions":
                return wire.completion_body(answer, number)
            case "/v1/embeddings":
                return wire.embeddings_body(self.received.body)
            case path if path == _ANTHROPIC_PATH:
                return wire.message_body(answer, number)
        return None

    async def _stream(self) -> bool:
        events = list(self._events(wire.answer_to(self.received.body, self.behaviour)))
        self.connection.start_stream(self._headers())
        for event in self._with_fault(events):
            await self.connection.send_part(event)
            await self.connection.wait(self.behaviour.token_delay_s)
        if self.behaviour.fault == "cut":
            return False
        await self.connection.send_part(b"")
        return True

    def _with_fault(self, events: list[bytes]) -> list[bytes]:
        half = events[: len(events) // 2]
        match self.behaviour.fault:
            case "cut":
                return half
            case "malformed":
                return [*half, b"data: {not JSON\n\n"]
            case "no_choices":
                return events[-1:]  # the end, of nothing
        return events

    def _events(self, answer: wire.Answer) -> Iterator[bytes]:
        if self.received.path == _ANTHROPIC_PATH:
            return wire.message_events(answer, self.received.number)
        usage = bool((self.received.body.get("stream_options") or {}).get("include_usage"))
        return wire.chat_events(answer, self.received.number, usage=usage)

    async def _error(self, status: int) -> bool:
        shown = status if status >= 400 else 500
        message = self.behaviour.message or f"simulated error {shown}"
        anthropic = self.received.path == _ANTHROPIC_PATH
        body = wire.error_body(shown, self.received.number, message, anthropic=anthropic)
        await self.connection.send_json(status, body, self._headers())
        return True

    def _headers(self) -> dict[str, str]:
        name = "request-id" if self.received.path == _ANTHROPIC_PATH else "x-request-id"
        headers = {name: f"req_{self.received.number}"}
        if self.behaviour.retry_after is not None:
            headers["retry-after"] = self.behaviour.retry_after
        return headers


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: a free one, which is printed")
    provider = SimulatedServer(port=parser.parse_args().port)
    provider.start()
    print(f"OpenAI: {provider.openai_url}  Anthropic: {provider.anthropic_url}", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        provider.stop()


if __name__ == "__main__":
    main()
