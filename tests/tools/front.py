"""HAProxy as a system runs it, without Ray: Serve's own configuration, changed by ours, and servers behind it."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import uvicorn
from ray.serve._private.common import RequestProtocol
from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
from ray.serve.config import HTTPOptions
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.haproxy_config import HEADERS_S, changed, error_files
from serve.island import _haproxy
from tests.tools.pool_events import eventually

SECRET = "5" * 64
WAIT_S = 20.0


def serves_config(folder: Path, port: int, *server_ports: int | None) -> str:
    """Return what Ray's own template makes, with our application or before any is known."""
    config = HAProxyConfig(
        http_options=HTTPOptions(host="127.0.0.1", port=port),
        socket_path=str(folder / "s"),
        server_state_base=str(folder),
        server_state_file=str(folder / "server-state"),
        metrics_socket_path=str(folder / "m"),
    )
    api = HAProxyApi(cfg=config, config_file_path=str(folder / "haproxy.cfg"))
    servers = [ServerConfig(name=f"r{at}", host="127.0.0.1", port=at) for at in server_ports if at is not None]
    if servers:
        backend = BackendConfig(
            name="http-aiqueue", path_prefix="/", app_name="aiqueue", servers=servers, protocol=RequestProtocol.HTTP
        )
        api.set_backend_configs({backend.name: backend})
    api._generate_config_file_internal()
    return (folder / "haproxy.cfg").read_text()


@contextmanager
def haproxy(folder: Path, *server_ports: int | None, headers_s: float = HEADERS_S) -> Iterator[str]:
    """Run HAProxy with the changed configuration; return its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = changed(serves_config(folder, port, *server_ports), secret=SECRET, folder=folder, headers_s=headers_s)
    (folder / "haproxy.cfg").write_text(text)
    for name, answer in error_files().items():
        (folder / name).write_bytes(answer)
    process = subprocess.Popen([_haproxy(), "-db", "-f", str(folder / "haproxy.cfg")], stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: (folder / "s").exists() or process.poll() is not None, "HAProxy is up", WAIT_S)
        assert process.poll() is None, "HAProxy refused the configuration"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@contextmanager
def served(app: ASGIApp) -> Iterator[int]:
    """Serve an application as a replica does, with the path that HAProxy looks at; return its port."""

    async def with_health(scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("path") != "/-/healthz":
            await app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"success"})

    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(with_health, log_level="critical"))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
        thread.start()
        try:
            yield int(listening.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def front(app: ASGIApp, *, headers_s: float = HEADERS_S) -> Iterator[str]:
    """Run HAProxy in front of an application; return its URL once requests get through."""
    with (
        tempfile.TemporaryDirectory(prefix="aq-", dir="/tmp") as folder,  # short: sockets lie in it
        served(app) as port,
        haproxy(Path(folder), port, headers_s=headers_s) as url,
    ):
        live = f"{url}/ai/live"
        eventually(lambda: httpx.get(live, trust_env=False).is_success, "HAProxy finds the application", WAIT_S)
        yield url


def sent(url: str, request: bytes) -> bytes:
    """Return the first answer to these bytes; empty if the connection is closed without one."""
    address = httpx.URL(url)
    with socket.create_connection((address.host, address.port or 0), timeout=WAIT_S) as connection:
        connection.sendall(request)
        found = bytearray()
        with suppress(ConnectionResetError):  # what was sent was not read to its end
            while not _is_whole(found) and (piece := connection.recv(65_536)):
                found += piece
    return bytes(found)


def _is_whole(answer: bytes | bytearray) -> bool:
    head, separator, body = answer.lower().partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")), None)
    return bool(separator) and ((length is not None and len(body) >= length) or b" 101 " in head[:16])
