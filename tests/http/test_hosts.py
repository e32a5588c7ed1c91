"""The front answers to names it was told, loopback names and addresses: a name an attacker rebinds to it gets 421."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiqueue.http_config import HttpConfig
from serve.app import create_app
from serve.hosts import HostGuard
from tests.http.conftest import chat, is_problem
from tests.http.fakes import DictAdapter
from tests.http.rig import Rig
from tests.tools.asgi_streams import SocketClient

NAMED = HttpConfig(hosts=("AI.Example.com", "*.svc.cluster.local"), origins=("https://tools.example.com",))
SERVED = [
    "localhost",
    "LOCALHOST:8000",
    "localhost.",
    "app.localhost:1",
    "127.0.0.1:8000",
    "127.9.9.9",
    "10.1.2.3:65535",
    "[::1]:8000",
    "[::1]",
    "[fe80::1%25eth0]:80",
    "[::ffff:10.0.0.1]",
    "ai.example.com",
    "ai.example.com.:443",
    "aiqueue-serve-svc.default.svc.cluster.local:8000",
]
MISDIRECTED = [
    "evil.example",
    "evil.example:8000",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "evillocalhost",
    "ai.example.com.evil.example",
    "xai.example.com",
    "svc.cluster.local",
    "evilsvc.cluster.local",
    "0x7f.0.0.1",
    "127.1",
    "2130706433",
]
MALFORMED = [
    "",
    " ",
    "localhost:",
    "localhost:x",
    "localhost:99999",
    "localhost:80:80",
    "localhost..",
    "user@localhost",
    "localhost@evil.example",
    "evil.example#@localhost",
    "localhost/evil.example",
    "http://localhost",
    "localhost, evil.example",
    "evil.example localhost",
    "[::1",
    "::1",
    "[::1]evil.example",
    "[localhost]",
    "[v1.a]",
    "[fe80::1%]",
    "local\x00host",
    "löcalhost",
    "a" * 300,
]


async def ask(
    host: str | bytes | None, http: HttpConfig = NAMED, path: str = "/ai/live", **more: Any
) -> httpx.Response:
    """Return the answer to a request with this Host and other headers."""
    return (await ask_raw([] if host is None else [host], http, path, **more))[0]


async def ask_raw(
    hosts: Iterable[str | bytes],
    http: HttpConfig = NAMED,
    path: str = "/ai/live",
    *,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    version: str = "1.1",
    body: bytes = b"",
) -> tuple[httpx.Response, DictAdapter]:
    """Return the answer, and the queue behind it."""
    adapter = DictAdapter()
    app = create_app(lambda: adapter, http)
    named = [(b"host", host if isinstance(host, bytes) else host.encode("utf-8")) for host in hosts]
    sent: list[dict[str, Any]] = []
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": version,
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [*named, *((name.encode(), value.encode()) for name, value in (headers or {}).items())],
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 1),
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    async with app.router.lifespan_context(app):
        await app(scope, receive, send)
    start = sent[0]
    content = b"".join(message.get("body", b"") for message in sent[1:])
    return httpx.Response(start["status"], headers=start["headers"], content=content), adapter


@pytest.mark.parametrize("host", SERVED)
async def test_a_name_of_this_server_is_served(host: str) -> None:
    assert (await ask(host)).status_code == 200


@pytest.mark.parametrize("path", ["/ai/live", "/ai/jobs", "/docs", "/openapi.json", "/no/such/path", "/ai/live/"])
@pytest.mark.parametrize("host", MISDIRECTED)
async def test_a_foreign_name_is_misdirected_on_every_path(host: str, path: str) -> None:
    response = await ask(host, path=path)
    assert is_problem(response, 421, "misdirected_request")
    assert "http.hosts" in response.json()["detail"]


@pytest.mark.parametrize("host", MALFORMED)
async def test_a_host_that_is_none_is_refused(host: str) -> None:
    assert is_problem(await ask(host), 400, "invalid_host")


async def test_no_host_or_two_are_refused_except_none_from_http_1_0() -> None:
    assert is_problem(await ask(None), 400, "invalid_host")
    assert (await ask(None, version="1.0")).status_code == 200  # a probe: browsers always send one
    assert is_problem((await ask_raw(["localhost", "localhost"]))[0], 400, "invalid_host")
    assert is_problem((await ask_raw(["localhost", "evil.example"]))[0], 400, "invalid_host")


@pytest.mark.parametrize("name", ["x-forwarded-host", "forwarded", "x-host", "x-original-host"])
async def test_forwarded_names_are_not_trusted(name: str) -> None:
    value = "host=localhost" if name == "forwarded" else "localhost"
    assert (await ask("evil.example", headers={name: value})).status_code == 421
    assert (await ask("localhost", headers={name: "evil.example"})).status_code == 200


async def test_a_target_with_a_host_of_its_own_is_refused() -> None:
    response = await ask("localhost", path="http://evil.example/ai/live")
    assert is_problem(response, 400, "invalid_host")


async def test_every_name_is_served_where_the_settings_say_so() -> None:
    assert (await ask("anything.example", HttpConfig(hosts=("*",)))).status_code == 200
    assert (await ask("gpu-box:8000", HttpConfig(host="gpu-box"))).status_code == 200  # what it is bound to is its name


@pytest.mark.parametrize("hosts", [("http://a.example",), ("a.example:80",), ("a b",), ("",), ("*evil",), ("a.*",)])
def test_a_setting_that_is_no_name_is_refused(hosts: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="hosts"):
        HttpConfig(hosts=hosts)


@pytest.mark.parametrize("origin", ["tools.example.com", "https://tools.example.com/", "*", "null", ""])
def test_a_setting_that_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(ValueError, match="origins"):
        HttpConfig(origins=(origin,))


def post(origin: str, host: str = "127.0.0.1:8000") -> Any:
    body = httpx.Request("POST", "http://x", json={"payload": chat()}).content
    headers = {"content-type": "application/json", "origin": origin}
    return ask_raw([host], path="/ai/jobs", method="POST", headers=headers, body=body)


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://localhost.evil.example",
        "null",
        "",
        "http://127.0.0.2.evil.example",
        "http://6.6.6.6",  # an address is foreign unless it is this very one
        "http://[2001:db8::1]",
        "https://tools.example.com:444",
        "http://tools.example.com",
        "http://127.0.0.1@evil.example",
        "http://evil.example/@localhost",
        "file://localhost",
    ],
)
async def test_a_page_of_another_site_submits_nothing(origin: str) -> None:
    response, adapter = await post(origin)
    assert is_problem(response, 403, "foreign_origin")
    assert not adapter.jobs
    response, adapter = await ask_raw(["localhost"], headers={"origin": origin})
    assert response.status_code == 403  # a stream would take a place


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://localhost:3000", "127.0.0.1:8000"),
        ("http://[::1]:3000", "127.0.0.1:8000"),
        ("https://ai.example.com", "ai.example.com:8000"),
        ("https://tools.example.com", "127.0.0.1:8000"),
        ("http://10.1.2.3:8000", "10.1.2.3:8000"),
        ("http://10.1.2.3:80", "10.1.2.3"),
        ("https://10.1.2.3", "10.1.2.3"),
    ],
)
async def test_a_page_of_this_server_may_submit(origin: str, host: str) -> None:
    response, adapter = await post(origin, host)
    assert response.status_code == 202
    assert len(adapter.jobs) == 1


async def test_what_a_page_of_another_site_embeds_is_refused_and_a_link_is_followed() -> None:
    embedded = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
    assert is_problem(await ask("localhost", headers=embedded), 403, "foreign_origin")
    assert (await ask("localhost", headers=embedded | {"sec-fetch-mode": "navigate"})).status_code == 200
    form = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert (await ask("localhost", path="/ai/jobs", method="POST", headers=form)).status_code == 403
    assert (await ask("localhost", headers={"sec-fetch-site": "same-origin"})).status_code == 200


async def test_a_redirect_names_no_host() -> None:
    response = await ask("ai.example.com:8443", path="/ai/live/")
    assert response.status_code == 307
    assert response.headers["location"] == "/ai/live"


@pytest.mark.parametrize("path", ["/ai/ws", "/socket.io/"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example", "origin": "http://evil.example"}, 421),
        ({"host": "evil.example"}, 421),
        ({"host": "localhost", "origin": "http://evil.example"}, 403),
        ({"host": "localhost", "origin": "null"}, 403),
        ({"host": ""}, 400),
    ],
)
async def test_a_socket_of_a_foreign_page_or_name_is_refused(
    rig: Rig, path: str, headers: dict[str, str], status: int
) -> None:
    async with SocketClient(rig.app, path, headers) as socket:
        assert socket.opened["type"] == "websocket.http.response.start"
        assert socket.opened["status"] == status
    async with SocketClient(rig.app, path, headers, denial=False) as socket:
        assert (socket.opened["type"], socket.opened["code"]) == ("websocket.close", 1008)


@pytest.mark.parametrize("origin", ["http://localhost:3000", "http://127.0.0.1"])
async def test_a_socket_of_a_page_of_this_server_is_opened(rig: Rig, origin: str) -> None:
    async with rig.socket(origin=origin) as socket:
        assert socket.opened["type"] == "websocket.accept"


NAME = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?){0,3}", fullmatch=True)
ODD = st.text(st.characters(max_codepoint=255), max_size=30)
HOSTS = st.one_of(
    ODD,
    NAME,
    st.tuples(NAME, st.integers(0, 70_000)).map(lambda pair: f"{pair[0]}:{pair[1]}"),
    st.tuples(st.sampled_from(SERVED + MISDIRECTED), ODD).map("".join),
    st.tuples(ODD, st.sampled_from(SERVED + MISDIRECTED)).map("".join),
    st.ip_addresses().map(str),
)


@given(hosts=st.lists(HOSTS.map(lambda host: host.encode("latin-1")), max_size=2))
def test_any_host_reaches_the_application_only_if_its_name_was_told(hosts: list[bytes]) -> None:
    reached: list[Any] = []
    sent: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope)

    async def send(message: Any) -> None:
        sent.append(message)

    guard = HostGuard(application, hosts=("told.example",))
    scope = {"type": "http", "method": "GET", "path": "/", "http_version": "1.1"}
    asyncio.run(guard({**scope, "headers": [(b"host", host) for host in hosts]}, None, send))  # type: ignore[arg-type]
    if reached:
        (host,) = hosts
        name = host.decode("ascii").rpartition(":")[0] if host.rpartition(b":")[2].isdigit() else host.decode("ascii")
        told = name.lower().removesuffix(".")
        is_local = told == "localhost" or told.endswith(".localhost")
        assert told == "told.example" or is_local or not set(told) - set("0123456789abcdef.:[]") or "%" in told
    else:
        assert sent[0]["status"] in (400, 421)
