"""What a request may cost: bytes of its body, and seconds. One layer in front of the application, in plain ASGI.

The deadline is ours: Serve's own can be lifted by a header of the client. It ends where a stream begins.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aiqueue.errors import AIQueueError, FieldError, PayloadTooLarge, QueueUnavailable
from serve.http_errors import BodyTimeout, UnsupportedMediaType, problem_response

DEADLINE_S = 30.0
_MAX_DIGITS = 18  # of a length; Python refuses to read thousands of them
_STREAMS = (b"text/event-stream", b"application/x-ndjson")
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


class EdgeLimits:
    """ASGI middleware: refuses bodies that are too large before anyone parses them, ends requests that take too long.

    Whatever the application raises leaves as a problem body too, so that the server behind never sees an exception.
    """

    def __init__(self, app: ASGIApp, *, max_body_bytes: int, deadline_s: float = DEADLINE_S) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._deadline_s = deadline_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(receive, send, self._max_body_bytes)
        try:
            _check_headers(scope, self._max_body_bytes)
            await self._within_deadline(scope, exchange)
        except ClientDisconnect:
            pass  # nobody is left to answer
        except Exception as error:
            if exchange.answering:  # half an answer is out: all that is left is to break the connection
                raise
            await problem_response(error, scope)(scope, receive, send)

    async def _within_deadline(self, scope: Scope, exchange: _Exchange) -> None:
        deadline = asyncio.timeout(self._deadline_s)
        try:
            async with deadline:
                exchange.deadline = deadline
                await self._app(scope, exchange.receive, exchange.send)
        except TimeoutError:
            if not deadline.expired():
                raise
            raise exchange.timeout_error(self._deadline_s) from None


@dataclass(slots=True)
class _Exchange:
    """One request and its answer, watched."""

    inner_receive: Receive
    inner_send: Send
    bytes_left: int
    body_complete: bool = False
    answering: bool = False
    deadline: asyncio.Timeout | None = None

    async def receive(self) -> Message:
        message = await self.inner_receive()
        if message["type"] == "http.request":
            self.bytes_left -= len(message.get("body", b""))
            if self.bytes_left < 0:
                raise _too_large("the body is larger than this server accepts")
            self.body_complete = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        self.answering = True
        if self.deadline and message["type"] == "http.response.start" and _is_stream(message):
            self.deadline.reschedule(None)
        await self.inner_send(message)

    def timeout_error(self, deadline_s: float) -> AIQueueError:
        if self.body_complete:
            return QueueUnavailable(f"no answer within {deadline_s:g} s; what was asked for may still happen")
        return BodyTimeout(f"the request's body did not arrive within {deadline_s:g} s")


def _check_headers(scope: Scope, max_body_bytes: int) -> None:
    """Raise if the headers already say that the body can't be accepted."""
    content_type = origin = None
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and (len(value) > _MAX_DIGITS or int(value) > max_body_bytes):
            raise _too_large(f"the body has {_text(value)} bytes; {max_body_bytes} are accepted")
        if name == b"content-encoding" and value.strip().lower() != b"identity":
            raise UnsupportedMediaType(f"Content-Encoding {_text(value)} is not supported; send the body as it is")
        if name == b"content-type":
            content_type = value
        elif name == b"origin":
            origin = value
    if scope["method"] in _WITH_BODY and not _is_json(content_type, from_browser=origin is not None):
        named = "none" if content_type is None else _text(content_type)
        raise UnsupportedMediaType(f"Content-Type must be application/json, not {named}")


def _is_json(content_type: bytes | None, *, from_browser: bool) -> bool:
    """Tell whether a body may be read as JSON.

    A browser sends other types, and bodies without one, to any address on behalf of any page; JSON it asks for first.
    """
    if content_type is None:
        return not from_browser
    media_type = content_type.split(b";", 1)[0].strip().lower()
    return media_type == b"application/json" or media_type.endswith(b"+json")


def _is_stream(start: Message) -> bool:
    return any(name == b"content-type" and value.startswith(_STREAMS) for name, value in start["headers"])


def _too_large(message: str) -> PayloadTooLarge:
    return PayloadTooLarge([FieldError("body", message)])


def _text(header: bytes) -> str:
    return header[:100].decode("latin-1")
