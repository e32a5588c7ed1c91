"""What we change in the configuration that Serve writes for HAProxy.

Serve's template says nothing true of an application that it does not know yet, shares no secret with the replicas and
listens on more ports than a system needs. It can't be set otherwise, so the text is changed before HAProxy reads it:
see ``docs/decisions/011-front.md``. No Ray, no third-party package: this runs each time that HAProxy starts.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path

SECRET_HEADER = "x-aiqueue-proxy"  #: a request that carries the system's secret came through its own proxy
SYSTEM_HEADER = "x-aiqueue-system"  #: an answer that carries the system's mark came from one of its own replicas
DRAIN_HEADER = "x-aiqueue-drain"  #: with `drain_token`: the request ends a replica's streams
DRAIN_PATH = "/-/aiqueue/drain"
DRAINING = "proc.aiqueue_draining"  #: HAProxy's variable; true while new requests are refused
HEADERS_S = 10.0  #: for a request's headers to arrive
_OURS = re.compile(r"backend http-aiqueue(?:-.+)?")
_APPLICATION = re.compile(r"^backend (?!default_backend$)", re.MULTILINE)
_SECTION = re.compile(r"^(?:global|defaults|frontend .*|backend .*|listen .*)$")
_MAX_HEADERS, _MAX_HEAD = 100, 16_384  # of a request; lines, bytes
_BUFFER = 65_536  # bytes; what does not fit is answered by HAProxy before any rule of ours
_MAX_LINES = 1_000
_METHODS = "GET HEAD POST PUT PATCH DELETE OPTIONS TRACE QUERY"
_REFUSALS: Sequence[tuple[int, str, str, str, str]] = (  # status, code, text, HAProxy's condition, more headers
    (414, "target_too_long", f"the path and query may have {_MAX_HEAD} bytes", f"{{ url_len gt {_MAX_HEAD} }}", ""),
    (
        431,
        "headers_too_large",
        f"a request may have {_MAX_HEADERS} headers",
        f"{{ req.hdr_cnt gt {_MAX_HEADERS} }}",
        "",
    ),
    (
        431,
        "headers_too_large",
        f"a request's headers may have {_MAX_HEAD} bytes",
        f"{{ req.hdrs,length gt {_MAX_HEAD} }}",
        "",
    ),
    (501, "not_implemented", "no such method is known here", f"!{{ method {_METHODS} }}", ""),
    (400, "bad_request", "a WebSocket is opened with GET", "aiqueue_upgrade !{ method GET }", ""),
    (
        426,
        "upgrade_required",
        "a WebSocket must be of version 13",
        "aiqueue_upgrade !{ req.hdr(sec-websocket-version) 13 }",
        " hdr sec-websocket-version 13",
    ),
)
# How uvicorn and websockets begin when they could not read a request; they do not know of our mark.
_UNREADABLE = ("Invalid HTTP request received.", "Failed to open a WebSocket connection")
_TEXTS: Mapping[int, tuple[str, str, bool]] = {
    400: ("bad_request", "the request is not valid HTTP", False),
    408: ("request_timeout", "the request did not arrive in time", True),
    503: (
        "queue_unavailable",
        "the server can't answer just now; send the request again, with the same idempotency key if it makes jobs",
        True,
    ),
}


def is_ours(application: str) -> bool:
    """Return True if a HAProxy with our configuration treats this Serve application as one of ours."""
    return _OURS.fullmatch(f"backend http-{application.replace('#', '-')}") is not None


def system_mark(secret: str) -> str:
    """Return the mark of the system whose secret this is; the secret can't be found from it."""
    return hashlib.sha256(b"aiqueue system " + secret.encode()).hexdigest()[:24]


def drain_token(secret: str) -> str:
    """Return the token that makes a replica end its streams: only a process with the secret can make it."""
    return hashlib.sha256(b"aiqueue drain " + secret.encode()).hexdigest()


def changed(config: str, *, secret: str, folder: Path, headers_s: float = HEADERS_S) -> str:
    """Return Serve's configuration as a system of ours needs it; ``folder`` has the files of `error_files`.

    Raises ValueError if it lacks what is to be changed: the template of another Ray.
    """
    lines = list(_changed_lines(config, secret, folder, headers_s))
    missing = {"stats socket", "bind"} - {word for word in ("stats socket", "bind") if any(word in x for x in lines)}
    if missing or not any(line == "frontend http_frontend" for line in lines):
        raise ValueError("Ray Serve wrote an HAProxy configuration that aiqueue does not know")
    return "\n".join(lines) + "\n"


def _changed_lines(config: str, secret: str, folder: Path, headers_s: float) -> Iterator[str]:
    section, known = "", _APPLICATION.search(config) is not None
    for line in config.splitlines():
        words = line.split()
        if _SECTION.match(line):
            section = line
            yield line
            yield from _added(section, secret, folder, headers_s)
        elif words[:1] == ["bind"]:
            yield _bind(section, line, folder, known=known)
        elif words[:1] == ["tune.bufsize"]:
            yield f"    tune.bufsize {_BUFFER}"
            yield f"    tune.http.maxhdr {_MAX_LINES}"
        elif section == "global" and words[:1] == ["log"]:
            continue  # a datagram a request, to a port that anyone may listen on
        elif words[:2] == ["stats", "socket"]:
            yield line.replace("mode 666", "mode 600")
        elif words[:1] == ["errorfile"]:
            continue  # ours stand in the same section
        elif section == "backend default_backend" and words[:2] == ["http-request", "return"]:
            yield f"    http-request return {_NOTHING_HERE}"
        else:
            yield line


_CONTENT_TYPE = "application/problem+json"


def _added(section: str, secret: str, folder: Path, headers_s: float) -> Iterator[str]:
    """Return the lines that a section of the configuration begins with."""
    if section == "global":
        yield f"    set-var {DRAINING} bool(false)"
    elif section == "defaults":
        yield f"    timeout http-request {int(headers_s * 1_000)}ms"
        yield f"    errorfile 400 {folder / '400.http'}"
        yield f"    errorfile 408 {folder / '408.http'}"
        for status in (500, 502, 503, 504):
            yield f"    errorfile {status} {folder / '503.http'}"
    elif section == "frontend http_frontend":
        yield f"    http-request return status 503 default-errorfiles if {{ var({DRAINING}) -m bool }}"
        # Serve's list of its applications, which it shows to any Host.
        yield f"    http-request return {_NOTHING_HERE} if {{ path -i /-/routes }}"
    elif _OURS.fullmatch(section):
        yield from _refusals()
        # What a dying replica took with it is sent to another one, unless a job could then be made twice.
        yield "    retry-on conn-failure empty-response"
        yield "    http-request disable-l7-retry if !{ method GET HEAD } !{ req.hdr(idempotency-key) -m found }"
        # Only a request that is there as a whole can be sent again.
        yield "    http-request wait-for-body time 30s if { method POST } { req.hdr(idempotency-key) -m found }"
        yield f"    http-request set-header {SECRET_HEADER} {secret}"
        yield f"    acl aiqueue_own res.hdr({SYSTEM_HEADER}) -m str {system_mark(secret)}"
        # The ASGI server marks no answer of its own. Its 400 for a request that it could not read is the same on every
        # system, so it may pass without a mark.
        yield "    http-response wait-for-body time 1s if !aiqueue_own { status 400 }"
        yield f"    acl aiqueue_unreadable res.body -m beg {' '.join(map(_quoted, _UNREADABLE))}"
        yield "    http-response return status 400 default-errorfiles if !aiqueue_own { status 400 } aiqueue_unreadable"
        yield "    http-response return status 503 default-errorfiles if !aiqueue_own"
        yield f"    http-response del-header {SYSTEM_HEADER}"  # the last: each rule looks at the answer as it then is


def _refusals() -> Iterator[str]:
    """Return what HAProxy refuses by itself: the servers behind it would do so without a mark."""
    yield "    acl aiqueue_upgrade req.hdr(upgrade) -i websocket"
    for status, code, text, condition, more in _REFUSALS:
        body = _quoted(_problem(status, code, text, retryable=False))
        answer = f"status {status} content-type {_CONTENT_TYPE} hdr cache-control no-store{more} string {body}"
        yield f"    http-request return {answer} if {condition}"


def _bind(section: str, line: str, folder: Path, *, known: bool) -> str:
    """Return where a section listens: on the network only what is asked for, once there is something to serve."""
    names = {"frontend prometheus": "p", "listen stats": "t", "frontend http_frontend": "i"}
    if section not in names or (section == "frontend http_frontend" and known):
        return line
    return f"    bind unix@{folder / names[section]} mode 600"


def substitute(config: str, admin_socket: Path) -> str:
    """Return a changed configuration for a HAProxy beside the one that Serve steers, with a socket of its own."""
    kept = (line for line in config.splitlines() if "server-state" not in line and not line.lstrip().startswith("#"))
    return (
        "\n".join(re.sub(r"(stats socket )\S+", lambda found: f"{found[1]}{admin_socket}", line) for line in kept)
        + "\n"
    )


def error_files() -> dict[str, bytes]:
    """Return the answers that HAProxy gives by itself, by file name."""
    return {f"{status}.http": _answer(status) for status in _TEXTS}


def _answer(status: int) -> bytes:
    code, text, retryable = _TEXTS[status]
    body = _problem(status, code, text, retryable=retryable)
    head = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        f"content-type: {_CONTENT_TYPE}",
        "cache-control: no-store",
        f"content-length: {len(body)}",
        *(["retry-after: 1"] if status == HTTPStatus.SERVICE_UNAVAILABLE else ["connection: close"]),
    ]
    return "\r\n".join([*head, "", body]).encode()


def _not_found() -> str:
    return _problem(404, "not_found", "no application is served at this path", retryable=False)


def _problem(status: int, code: str, text: str, *, retryable: bool) -> str:
    """Return a problem body, shaped as those of ``serve.http_errors``; it can't name the path."""
    return json.dumps(
        {
            "type": f"urn:aiqueue:error:{code}",
            "title": code.replace("_", " ").capitalize(),
            "status": status,
            "detail": text,
            "instance": "",
            "error": text,
            "code": code,
            "retryable": retryable,
        }
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


_NOTHING_HERE = f"status 404 content-type {_CONTENT_TYPE} string {_quoted(_not_found())}"
