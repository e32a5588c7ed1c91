"""What keeps two systems apart, without Ray: the secret, the mark, HAProxy's configuration and the ports."""

from __future__ import annotations

import base64
import hashlib
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from aiqueue.http_config import HttpConfig
from serve.app import create_app
from serve.haproxy_config import SECRET_HEADER, SYSTEM_HEADER, changed, system_mark
from tests.http.fakes import DictAdapter
from tests.tools.front import SECRET, front, haproxy, serves_config

_WEBSOCKET = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # of RFC 6455


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return an empty folder with a path short enough for sockets, which pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="aq-", dir="/tmp") as path:
        yield Path(path)


class Behind(BaseHTTPRequestHandler):
    """What HAProxy takes for a replica: it answers what the path says, with or without a mark."""

    protocol_version = "HTTP/1.1"
    secrets: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        self.secrets.append(self.headers.get(SECRET_HEADER))
        status, _, mark = self.path.strip("/").partition("/")
        self.send_response(200 if status == "-" else int(status))
        if mark:
            self.send_header(SYSTEM_HEADER, mark)
        if status == "101":
            self.send_header("connection", "upgrade")
            self.send_header("upgrade", "websocket")
            accept = hashlib.sha1((self.headers["sec-websocket-key"] + _WEBSOCKET).encode()).digest()
            self.send_header("sec-websocket-accept", base64.b64encode(accept).decode())
            self.end_headers()
            self.close_connection = True
            return
        self.send_header("content-length", "5")
        self.end_headers()
        with suppress(ConnectionError):  # the proxy may have seen enough
            self.wfile.write(b"plain")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def behind() -> Iterator[int]:
    """Serve ``Behind``; return its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Behind)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_answers_that_are_not_our_replicas_leave_the_proxy_as_503_with_a_problem_body(folder: Path) -> None:
    mine = system_mark(SECRET)
    with behind() as port, haproxy(folder, port) as url, httpx.Client(base_url=url, trust_env=False) as client:
        Behind.secrets.clear()
        for path in ("404", "405", "500", "200", f"404/{system_mark('another')}", f"202/{system_mark('another')}"):
            answer = client.get(f"/{path}")
            assert answer.status_code == 503, path
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["retry-after"] == "1"
            assert answer.json()["status"] == 503
        for status in (200, 404, 500):
            answer = client.get(f"/{status}/{mine}")
            assert (answer.status_code, answer.text) == (status, "plain")
            assert SYSTEM_HEADER not in answer.headers
        assert set(Behind.secrets) == {SECRET}, "a request came without the secret of the system"


@pytest.mark.parametrize("mark", ["", "/" + system_mark("another")])
@pytest.mark.parametrize("status", [101, 403, 426, 400])
def test_an_upgrade_answered_by_another_systems_replica_is_503(folder: Path, status: int, mark: str) -> None:
    with behind() as port, haproxy(folder, port) as url:
        with (
            pytest.raises(InvalidStatus) as refused,
            connect(f"{url.replace('http', 'ws')}/{status}{mark}", proxy=None),
        ):
            pass
        with connect(f"{url.replace('http', 'ws')}/101/{system_mark(SECRET)}", proxy=None, close_timeout=0):
            pass  # one of its own gets through
    assert refused.value.response.status_code == 503
    assert refused.value.response.headers["content-type"] == "application/problem+json"
    assert refused.value.response.headers["retry-after"] == "1"


def test_a_socket_opens_through_the_proxy_and_is_refused_where_there_is_none() -> None:
    app = create_app(DictAdapter, HttpConfig(), secret=SECRET)
    with front(app) as url:
        ours = url.replace("http", "ws")
        with connect(f"{ours}/ai/ws", proxy=None) as opened:
            assert opened.response.status_code == 101
            assert SYSTEM_HEADER not in opened.response.headers
        with pytest.raises(InvalidStatus) as refused, connect(f"{ours}/ai/jobs", proxy=None):
            pass
    assert refused.value.response.status_code == 403
    assert refused.value.response.headers["content-type"] == "application/problem+json"


def test_a_proxy_that_knows_no_application_yet_does_not_listen(folder: Path) -> None:
    with haproxy(folder, None) as url, pytest.raises(httpx.ConnectError):
        httpx.get(url, trust_env=False)


def test_a_proxy_listens_on_one_port_only(folder: Path) -> None:
    for server_port in (None, 1):
        text = changed(serves_config(folder, 4000, server_port), secret=SECRET, folder=folder)
        binds = [line.split()[1] for line in text.splitlines() if line.split()[:1] == ["bind"]]
        assert [bind for bind in binds if not bind.startswith("unix@")] == ["127.0.0.1:4000"] * (server_port or 0)
        assert "514" not in text, "requests are logged to a port that anyone may listen on"


@pytest.mark.parametrize("path", ["/-/routes", "/-/ROUTES", "/-/routes?x=1"])
def test_the_names_of_applications_are_shown_to_nobody(folder: Path, path: str) -> None:
    with behind() as port, haproxy(folder, port) as url:
        answer = httpx.get(url + path, headers={"host": "evil.example"}, trust_env=False)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert "aiqueue" not in answer.json()["detail"]


def test_another_template_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="does not know"):
        changed("global\n", secret=SECRET, folder=folder)


def test_a_server_that_is_gone_is_answered_for_with_a_problem_body(folder: Path) -> None:
    with haproxy(folder, 1) as url:
        answer = httpx.get(url, trust_env=False)
    assert (answer.status_code, answer.json()["code"]) == (503, "queue_unavailable")
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize("secret", [None, "wrong"])
async def test_a_request_past_the_systems_own_proxy_is_refused(secret: str | None) -> None:
    app = create_app(DictAdapter, HttpConfig(), secret=SECRET)
    headers = {} if secret is None else {SECRET_HEADER: secret}
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client,
    ):
        refused = await client.get("/ai/live", headers=headers)
        served = await client.get("/ai/live", headers={SECRET_HEADER: SECRET})
    assert (refused.status_code, refused.json()["code"]) == (421, "not_our_proxy")
    assert SYSTEM_HEADER not in refused.headers
    assert (served.status_code, served.headers[SYSTEM_HEADER]) == (200, system_mark(SECRET))
