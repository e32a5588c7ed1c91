"""What the providers over HTTP share: the key, one call through an SDK, and the reading of its answer.

The SDKs make the request (headers, connections, TLS, proxies); the body of the answer is parsed here, so that ``raw``
is what the provider sent and not what a client library made of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import msgspec

from aiqueue.errors import AuthenticationFailed, JobError, MalformedResponse
from aiqueue.providers.base import ProviderAnswer
from aiqueue.providers.classify import classify, error_in, from_answer, is_transport, request_id_of, status_of
from aiqueue.providers.provider_json import TooDeep, read_json
from aiqueue.providers.sse import DONE, events_of
from aiqueue.providers.stream_pieces import OddPiece

Body = TypeVar("Body")

HEALTH_CHECK_TIMEOUT_S = 10.0
_LAST_TYPE = "message_stop"  # how streams in Anthropic's format end
_REST_S = 1.0  # what may take of a stream what still comes once its answer is whole: what was used
_END_S = 0.2  # what the end of a connection may take after the end of its answer
_NOT_OF_THE_FORMAT = (AttributeError, LookupError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class Credential:
    """A provider's key, and the environment variable it comes from; no variable: the server wants no key.

    ``repr`` leaves the key out.
    """

    key: str | None = field(default=None, repr=False)
    variable: str = ""

    def require(self, provider: str) -> None:
        """Raise AuthenticationFailed, naming the variable to set, if a key is wanted and there is none."""
        if self.variable and not self.key:
            raise AuthenticationFailed(
                f"Provider {provider}: no API key: set {self.variable} in the environment of the workers"
            )

    @property
    def for_sdk(self) -> str:
        """The key, or a word in its place: the SDKs can't be made without one."""
        return self.key or "none"


@dataclass(frozen=True, slots=True)
class Reply:
    """A provider's answer: its JSON, and the id it gave the call."""

    body: dict[str, Any]
    request_id: str | None


class Assembly(Protocol):
    """Puts the events of a stream together."""

    @property
    def said(self) -> bool:
        """Whether anything of an answer has come."""
        ...

    @property
    def is_complete(self) -> bool:
        """Whether what has come of the answer has come to its end."""
        ...

    @property
    def has_all(self) -> bool:
        """Whether that is all that was asked for, and the end of the stream need not say so."""
        ...

    @property
    def pieces(self) -> int:
        """How many parts of an answer have come."""
        ...

    def add(self, event: dict[str, Any]) -> None:
        """Take the next event."""
        ...

    def body(self) -> dict[str, Any]:
        """Return the body that a call without streaming would have brought, as far as it has come."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Makes calls of one provider and turns whatever goes wrong into JobErrors."""

    provider: str
    credential: Credential
    sdk_errors: tuple[type[Exception], ...]
    now: Callable[[], float] = time.time

    async def call(self, create: Callable[..., Awaitable[Any]], **arguments: Any) -> Reply:
        """Await ``create``, a ``with_raw_response`` method of an SDK, and return the JSON object it answers with.

        Any other exception than the SDK's is a bug of ours and passes as it is.
        """
        self.credential.require(self.provider)
        try:
            response = (await create(**arguments)).http_response
        except self.sdk_errors as error:
            # From None: a traceback would print the provider's words with the key in them.
            raise self._classified(error) from None
        return Reply(self._object_of(response.content, response.headers), request_id_of(response.headers))

    async def stream(
        self,
        create: Callable[..., AbstractAsyncContextManager[Any]],
        assembly: Assembly,
        *,
        read: Callable[[Reply], ProviderAnswer],
        on_partial: Callable[[ProviderAnswer], None] | None,
        within_s: float,
        **arguments: Any,
    ) -> ProviderAnswer:
        """Return the answer that ``create``, a ``with_streaming_response`` method, brings piece by piece.

        ``assembly`` makes its body of the events, and ``read`` the answer of that. If the task is cancelled, the stream
        is closed and ``on_partial`` is given what has come so far; ``within_s`` says when that will be at the latest.
        """
        ends_at = asyncio.get_running_loop().time() + within_s
        self.credential.require(self.provider)
        headers: Mapping[str, str] = {}
        try:
            async with create(**arguments, stream=True) as response:
                headers = response.headers
                if not headers.get("content-type", "").startswith("text/event-stream"):  # it does not stream, or failed
                    return read(Reply(self._object_of(await response.read(), headers), request_id_of(headers)))
                await self._assemble(events_of(response.iter_bytes()), assembly, headers, ends_at)
        except asyncio.CancelledError:
            if assembly.said and on_partial:
                with contextlib.suppress(JobError):  # what can't be read is not kept; it is a cancel all the same
                    on_partial(_cut(read(Reply(self._body_of(assembly), request_id_of(headers)))))
            raise
        except Exception as error:
            if not (isinstance(error, self.sdk_errors) or is_transport(error)):  # in a stream, the SDK passes those on
                raise
            if not assembly.has_all:  # an answer that is whole is paid for and kept, however its connection ended
                raise self._classified(error) from None
        if not assembly.is_complete:
            raise MalformedResponse(f"Provider {self.provider}: the stream ended before the answer did", status=200)
        return read(Reply(self._body_of(assembly), request_id_of(headers)))

    async def check(self, list_models: Callable[..., Awaitable[Any]], *, timeout: Any) -> None:
        """Return if the provider answers a request for its models; raise the JobError that says why not.

        Being told that there is no such list counts: not every server that speaks the format has one.
        """
        self.credential.require(self.provider)
        try:
            await list_models(timeout=timeout)
        except self.sdk_errors as error:
            failure = self._classified(error)
            if failure.status not in (404, 405, 501):
                raise failure from None

    def _classified(self, error: Exception) -> JobError:
        return classify(error, provider=self.provider, now=self.now(), secret=self.credential.key or "")

    async def _assemble(
        self, events: AsyncIterator[bytes], assembly: Assembly, headers: Mapping[str, str], ends_at: float
    ) -> None:
        """Give ``assembly`` the events of a stream, and read that to its end. A whole answer waits for little more."""

        wait = asyncio.timeout(None)

        def wait_at_most(seconds: float) -> None:
            # Never to the end of the job's time, with which the answer would be lost.
            now = asyncio.get_running_loop().time()
            wait.reschedule(now + min(seconds, max(0.0, ends_at - now) / 2))

        try:
            async with wait:
                async for data in events:
                    before = assembly.pieces
                    if self._is_last(data, assembly, headers):
                        break
                    if assembly.pieces > before:
                        wait.reschedule(None)  # it speaks on, whatever reason to end it has given
                    elif assembly.has_all and wait.when() is None:
                        wait_at_most(_REST_S)
                wait_at_most(_END_S)
                await _read_to_the_end(events)
        except TimeoutError:
            if not wait.expired():
                raise

    def _is_last(self, data: bytes, assembly: Assembly, headers: Mapping[str, str]) -> bool:
        """Give ``assembly`` an event; return whether it is the last by its format."""
        if data == DONE:
            return True
        try:
            event = _read_object(data)
        except ValueError as error:
            if assembly.has_all and not isinstance(error, TooDeep):
                return True  # it broke off while it said what was used, or ends in a way of its own
            raise self._no_object(data, error) from None
        self._raise_if_error(event, headers)
        self._add(assembly, event)
        return event.get("type") == _LAST_TYPE

    def _add(self, assembly: Assembly, event: dict[str, Any]) -> None:
        try:
            assembly.add(event)
        except _NOT_OF_THE_FORMAT as error:
            raise self._bad_piece(error) from None

    def _body_of(self, assembly: Assembly) -> dict[str, Any]:
        try:
            return assembly.body()
        except _NOT_OF_THE_FORMAT as error:
            raise self._bad_piece(error) from None

    def _bad_piece(self, error: Exception) -> MalformedResponse:
        # An error of Python's own may quote what it met; only ours, which say what was wanted, are repeated.
        why = str(error) if isinstance(error, TooDeep | OddPiece) else type(error).__name__
        said = f"a piece of the stream is not of its format ({why})"
        return MalformedResponse(f"Provider {self.provider}: {said}", status=200)

    def _raise_if_error(self, said: dict[str, Any], headers: Mapping[str, str]) -> None:
        """Raise the JobError that an answer, or an event of a stream, stands for if it tells of an error."""
        if error := error_in(said):
            status, body = status_of(error), {**said, "error": error}  # beside it may stand the id of the call
            secret = self.credential.key or ""
            raise from_answer(status, headers, body, provider=self.provider, now=self.now(), secret=secret)

    def _no_object(self, content: bytes, error: ValueError) -> MalformedResponse:
        what = f"{len(content)} bytes that are no JSON object ({error})"
        return MalformedResponse(f"Provider {self.provider}: answered HTTP 200 with {what}", status=200)

    def _object_of(self, content: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
        try:
            body = _read_object(content)
        except ValueError as error:
            raise self._no_object(content, error) from None
        self._raise_if_error(body, headers)
        return body


def _read_object(content: bytes) -> dict[str, Any]:
    body = read_json(content)
    if not isinstance(body, dict):
        raise ValueError(f"it is a {type(body).__name__}")
    return body


async def _read_to_the_end(events: AsyncIterator[bytes]) -> None:
    """Read on to the end of a connection whose answer is over: then it serves the next call too."""
    try:
        async for _ in events:
            pass
    except Exception as error:
        if not is_transport(error):
            raise


def _cut(answer: ProviderAnswer) -> ProviderAnswer:
    for choice in answer.response.choices:
        choice.finish_reason = choice.finish_reason or "cancelled"
    return msgspec.structs.replace(answer, finish_reason="cancelled")


def parse(body: dict[str, Any], shape: type[Body], *, provider: str) -> Body:
    """Return ``body`` as ``shape``, a struct that names what we need of a wire format.

    Raises MalformedResponse saying what is missing or of the wrong type, and where.
    """
    try:
        return msgspec.convert(body, shape)
    except msgspec.ValidationError as error:
        raise MalformedResponse(f"Provider {provider}: the answer is not of its format: {error}", status=200) from None


def text_or_none(value: object) -> str | None:
    """Return ``value`` if it is a text: for what an answer says beside, which is not worth to refuse it."""
    return value if isinstance(value, str) else None
