"""``POST /ai/jobs`` at 32 connections, beside a route of the same deployment that does nothing."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from benchmarks.harness import PAYLOAD, Figure, system

_CONNECTIONS, _SECONDS, _ROUNDS = 32, 3.0, 3
_SETTLE_S = 3.0  # HAProxy is started anew when it learns of the replica, and closes the connections it had


def run() -> Iterator[Figure]:
    """Yield the figures."""
    with system(workers=0, http=True) as running:
        assert running.url
        time.sleep(_SETTLE_S)
        no_op, post = asyncio.run(_measure(running.url))
    yield Figure(name="HTTP no-op route", value=no_op, unit="req/s")
    yield Figure(name="HTTP POST /ai/jobs", value=post, unit="req/s")
    yield Figure(name="HTTP POST against the no-op", value=100 * post / no_op, unit="%", floor="50")


async def _measure(url: str) -> tuple[float, float]:
    body = json.dumps({"payload": PAYLOAD, "priority": "low"}).encode()
    no_op = b"GET /ai/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = (
        "POST /ai/jobs HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    rates: tuple[list[float], list[float]] = ([], [])
    for _ in range(_ROUNDS):  # in turns, so that a noisy moment of the machine hits both
        rates[0].append(await _rate(url, no_op, b"200"))
        rates[1].append(await _rate(url, head.encode() + body, b"202"))
    return sorted(rates[0])[_ROUNDS // 2], sorted(rates[1])[_ROUNDS // 2]


async def _rate(url: str, request: bytes, status: bytes) -> float:
    """Requests per second over all connections. Bare sockets: an HTTP client in Python would be what is measured."""
    ends_at = time.perf_counter() + _SECONDS
    counts = await asyncio.gather(*(_connection(url, request, status, ends_at) for _ in range(_CONNECTIONS)))
    return sum(counts) / _SECONDS


async def _connection(url: str, request: bytes, status: bytes, ends_at: float) -> int:
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    count = 0
    while time.perf_counter() < ends_at:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        answer = await reader.readexactly(length)
        assert head.split(b" ", 2)[1] == status, answer[:300]
        count += 1
    writer.close()
    return count
