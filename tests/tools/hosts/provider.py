"""A provider outside of the hosts, which counts the calls for each job and knows from which host each came."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiqueue.testing import wire
from aiqueue.testing.script import Behaviour

# No breaker and no adapting gate: what is counted are calls that a host took with it.
_SETTINGS = """
[providers.{name}]
kind = "openai"
base_url = "{url}"
gate = {{ breaker_failures = 10000, adaptive = false }}
[pools.{name}]
providers = ["{name}"]
"""


@dataclass(slots=True)
class Call:
    """One call. Times are monotonic seconds."""

    job: str  #: the job's prompt, which is its id
    model: str
    caller: str  #: the address of the host
    began: float
    ended: float | None = None


class CountingProvider:
    """Answers OpenAI's chat calls after ``latency_s``, which may be changed. The prompt of a job must be its id."""

    def __init__(self, address: str, latency_s: float) -> None:
        self.latency_s = latency_s
        self._calls: list[Call] = []
        self._lock = threading.Lock()
        self._server = _Server((address, 0), _Handler)
        self._server.provider = self
        self.url = f"http://{address}:{self._server.server_address[1]}/v1"

    def settings(self, name: str, **pool: int) -> str:
        """Return the TOML of an entry for this provider, and of the pool that serves it."""
        return _SETTINGS.format(name=name, url=self.url) + "".join(f"{key} = {value}\n" for key, value in pool.items())

    def serve(self) -> None:
        """Answer until ``stop``."""
        self._server.serve_forever(poll_interval=0.05)

    def stop(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()

    def calls(self) -> list[Call]:
        """Return all calls so far, in order of arrival."""
        with self._lock:
            return list(self._calls)

    def counts(self) -> Counter[str]:
        """Count the calls of each job."""
        return Counter(call.job for call in self.calls())

    def in_flight(self, caller: str) -> set[str]:
        """Return the jobs for which a host is waiting for an answer."""
        return {call.job for call in self.calls() if call.ended is None and call.caller == caller}

    def answer(self, body: dict[str, object], caller: str) -> bytes:
        """Return the body that answers a request, in due time."""
        answer = wire.answer_to(body, Behaviour())
        messages = body["messages"]
        assert isinstance(messages, list)
        call = Call(str(messages[-1]["content"]), answer.model, caller, time.monotonic())
        with self._lock:
            self._calls.append(call)
            number = len(self._calls)
        threading.Event().wait(self.latency_s)
        call.ended = time.monotonic()
        return json.dumps(wire.chat_body(answer, number)).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads, block_on_close = True, False
    request_queue_size = 128
    provider: CountingProvider

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of callers that are gone."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        answer = self.server.provider.answer(body, str(self.client_address[0]))
        with suppress(OSError):  # the caller may be gone
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def counting_provider(address: str, *, latency_s: float) -> Iterator[CountingProvider]:
    """Serve on ``address`` while the block lasts."""
    provider = CountingProvider(address, latency_s)
    serving = threading.Thread(target=provider.serve, daemon=True)
    serving.start()
    try:
        yield provider
    finally:
        provider.stop()
        serving.join()
