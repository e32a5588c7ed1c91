"""Which names this server answers to, and pages of which sites may use it.

A page of any site can make a browser send requests to this machine. Two checks keep such pages out, in front of all
routes, sockets and documentation:

- ``Host`` must be a name that the settings give, a loopback name or an address. An attacker can point a name of their
  own at this machine (DNS rebinding), and the browser then takes both for one site; an address can't be pointed
  elsewhere.
- ``Origin`` must be a loopback name, one of those names, this very address, or an origin that the settings give. It is
  never enough that it equals a Host that was sent.

Headers that proxies add (``X-Forwarded-Host`` …) are not read: any client can send them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Awaitable, Iterable
from typing import NamedTuple
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aiqueue.errors import AIQueueError
from serve.http_errors import refuse

_MAX_HOST = 255 + len(":65535")
_SHOWN = 100  # characters of a name that an error repeats
_HOST = re.compile(
    r"(?:\[(?P<v6>[0-9a-f:.]+(?:%(?:25)?[0-9a-z._~-]+)?)\]|(?P<name>[0-9a-z_.-]+?)\.?)(?::(?P<port>[0-9]{1,5}))?"
)
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_LOOKED_AT = frozenset({b"host", b"origin", b"sec-fetch-site", b"sec-fetch-mode"})
_MAX_SERVED = 1_000  # hosts that are remembered; with addresses and wildcards there is no end of them
_READS = frozenset({"GET", "HEAD"})


class MisdirectedRequest(AIQueueError):
    """The request's Host is not a name of this server."""

    kind = "misdirected_request"
    http_status = 421


class InvalidHost(AIQueueError):
    """The request names no host, several, or something that is none."""

    kind = "invalid_host"
    http_status = 400


class ForeignOrigin(AIQueueError):
    """A page of another site sent the request."""

    kind = "foreign_origin"
    http_status = 403


class _Host(NamedTuple):
    name: str  #: in lower case, without brackets and trailing dot
    port: str
    is_address: bool


class HostGuard:
    """ASGI middleware: lets a request or a socket pass if its Host and its Origin are ours.

    ``hosts`` are names; ``*.example.com`` stands for all names below ``example.com``, ``*`` for all names there are.
    """

    def __init__(self, app: ASGIApp, *, hosts: Iterable[str] = (), origins: Iterable[str] = ()) -> None:
        self._app = app
        told = {host.lower().removesuffix(".") for host in hosts}
        self._names = frozenset(told)
        self._suffixes = tuple(sorted(name[1:] for name in told if name.startswith("*.")))
        self._any = "*" in told
        self._origins = frozenset(origin.lower() for origin in origins)
        self._served: dict[bytes, _Host] = {}  # what was let pass before: a client sends the same each time

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            self._check(scope)
        except AIQueueError as error:
            await refuse(error, scope, receive, send)
            return

        def send_on(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start" and 300 <= message["status"] < 400:
                _name_no_host(message)
            return send(message)

        await self._app(scope, receive, send_on)

    def _check(self, scope: Scope) -> None:
        hosts: list[bytes] = []
        origin: bytes | None = None
        site = mode = b""
        for name, value in scope["headers"]:
            if name not in _LOOKED_AT:
                continue
            if name == b"host":
                hosts.append(value)
            elif name == b"origin":
                origin = value
            elif name == b"sec-fetch-site":
                site = value
            else:
                mode = value
        host = self._served_host(hosts, scope)
        if origin is not None:
            self._check_origin(origin.decode("latin-1").lower(), host)
        elif site == b"cross-site" and not (mode == b"navigate" and scope.get("method") in _READS):
            raise ForeignOrigin("a page of another site embeds this request (Sec-Fetch-Site: cross-site)")

    def _served_host(self, hosts: list[bytes], scope: Scope) -> _Host | None:
        """Return the host that the request names; None for an HTTP/1.0 probe, which need not name one."""
        if not hosts and scope.get("http_version") == "1.0":
            return None
        if len(hosts) != 1:
            raise InvalidHost(f"the request has {len(hosts)} Host headers; it needs one")
        if not scope["path"].startswith("/"):
            raise InvalidHost("the request's target must be a path; name the host in the Host header alone")
        if (known := self._served.get(hosts[0])) is not None:
            return known
        text = hosts[0].decode("latin-1")
        host = _parse(text)
        if host is None:
            raise InvalidHost(f"Host {text[:_SHOWN]!r} is not a host name or address with an optional port")
        if not (host.is_address or self._is_ours(host.name)):
            raise MisdirectedRequest(
                f"this server does not answer to the name {host.name[:_SHOWN]!r}; whoever runs it can add the name to "
                "the setting http.hosts"
            )
        if len(self._served) < _MAX_SERVED:
            self._served[hosts[0]] = host
        return host

    def _is_ours(self, name: str) -> bool:
        if name in self._names or name == "localhost" or name.endswith(".localhost"):
            return True
        return self._any or bool(self._suffixes and name.endswith(self._suffixes))

    def _check_origin(self, origin: str, host: _Host | None) -> None:
        if origin in self._origins:
            return
        scheme, separator, authority = origin.partition("://")
        page = _parse(authority) if separator and scheme in _DEFAULT_PORTS else None
        if page is None or not self._is_own_page(page, scheme, host):
            raise ForeignOrigin(
                f"pages of {origin[:_SHOWN]!r} may not use this server; whoever runs it can add the origin to the "
                "setting http.origins"
            )

    def _is_own_page(self, page: _Host, scheme: str, host: _Host | None) -> bool:
        if not page.is_address:
            # A server told to answer to every name knows none as its own.
            return self._is_ours(page.name) and (not self._any or page == host or page.name.endswith("localhost"))
        if _is_loopback(page.name):
            return True
        default = _DEFAULT_PORTS[scheme]
        return host is not None and (page.name, page.port or default) == (host.name, host.port or default)


def _parse(text: str) -> _Host | None:
    """Return the parts of ``host[:port]``; None for anything else.

    >>> _parse("Example.com.:80")
    _Host(name='example.com', port='80', is_address=False)
    >>> _parse("[::1]")
    _Host(name='::1', port='', is_address=True)
    >>> _parse("user@localhost") is None
    True
    """
    found = _HOST.fullmatch(text.lower()) if len(text) <= _MAX_HOST and text.isascii() else None
    if found is None or int(found["port"] or 0) > 65_535:
        return None
    name = found["v6"] or found["name"]
    try:
        ipaddress.ip_address(name.replace("%25", "%"))
    except ValueError:
        return None if found["v6"] or ".." in f".{name}." else _Host(name, found["port"] or "", is_address=False)
    return _Host(name, found["port"] or "", is_address=True)


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.replace("%25", "%")).is_loopback


def _name_no_host(start: Message) -> None:
    """Make the target of a redirect a path: the framework builds it with the Host that was sent."""
    start["headers"] = [(name, _path_of(value) if name == b"location" else value) for name, value in start["headers"]]


def _path_of(location: bytes) -> bytes:
    parts = urlsplit(location.decode("latin-1"))
    target = parts._replace(scheme="", netloc="").geturl() or "/"
    return ("/" + target.lstrip("/")).encode("latin-1")  # two slashes at the start would name a host again
