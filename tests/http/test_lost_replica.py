"""A replica that dies with requests, beside one that lives: which clients see it, through HAProxy as it runs."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from serve.haproxy_config import SYSTEM_HEADER, system_mark
from tests.tools.front import SECRET, haproxy
from tests.tools.pool_events import eventually

_REQUESTS = 40


class Replica(ThreadingHTTPServer):
    """It answers, or takes a request and closes the connection without a word, as one that is killed does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.dying = False
        self.lost = Counter[str]()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Replica

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.server.dying and self.path != "/-/healthz":
            self.server.lost[self.command] += 1
            self.close_connection = True
            return
        self.send_response(200)
        self.send_header(SYSTEM_HEADER, system_mark(SECRET))
        self.send_header("content-length", "5")
        self.end_headers()
        self.wfile.write(b"whole")

    do_GET = do_POST = _answer

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def two_replicas() -> Iterator[tuple[str, list[Replica]]]:
    """Serve two behind HAProxy, both of which have answered; return its URL."""
    replicas = [Replica(), Replica()]
    threads = [threading.Thread(target=each.serve_forever) for each in replicas]
    for thread in threads:
        thread.start()
    try:
        ports = [int(each.server_address[1]) for each in replicas]
        with TemporaryDirectory(prefix="aq-", dir="/tmp") as folder, haproxy(Path(folder), *ports) as url:
            eventually(lambda: httpx.get(url, trust_env=False).status_code == 200, "HAProxy serves", 20)
            yield url, replicas
    finally:
        for each, thread in zip(replicas, threads, strict=True):
            each.shutdown()
            thread.join()
            each.server_close()


def test_what_may_be_sent_again_is_answered_by_the_other_replica() -> None:
    with two_replicas() as (url, replicas), httpx.Client(base_url=url, trust_env=False) as client:
        replicas[0].dying = True
        answers = Counter[int]()
        for number in range(_REQUESTS):
            answers[client.get("/").status_code] += 1
            answers[client.post("/", json={}, headers={"Idempotency-Key": f"k{number}"}).status_code] += 1
    assert replicas[0].lost["GET"] + replicas[0].lost["POST"], "the replica that dies was asked nothing"
    assert answers == {200: 2 * _REQUESTS}


def test_a_post_without_a_key_that_a_replica_took_with_it_is_not_sent_again() -> None:
    told = Counter[str]()
    with two_replicas() as (url, replicas), httpx.Client(base_url=url, trust_env=False) as client:
        replicas[0].dying = True
        for _ in range(_REQUESTS):
            try:
                told[str(client.post("/", json={}).status_code)] += 1
            except httpx.RemoteProtocolError:  # what HAProxy does with a connection that it had used before
                told["no answer"] += 1
    assert replicas[0].lost["POST"], "the replica that dies was asked nothing"
    assert told["no answer"] + told["503"] == replicas[0].lost["POST"]
    assert told["200"] == _REQUESTS - replicas[0].lost["POST"]
