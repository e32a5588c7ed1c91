"""What a job produced: one shape whatever the provider.

msgspec structs, not pydantic models: a result is made by our own worker, so there is nothing to mistrust, and one is
decoded for every job that ends (2 µs instead of 15). The JSON is camelCase outside and the chat format's own
snake_case inside ``response``, which is what the specification's examples read.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from aiqueue.encodable import encodable

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "cancelled"]


class _Result(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """Made of JSON, so there are no cycles for the collector to look for."""


class Message(_Result):
    """The model's turn."""

    role: str = "assistant"
    content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    refusal: str | None = None


class Choice(_Result):
    """One answer. ``message`` for a chat; ``text`` for a completion, repeated in ``message.content``."""

    index: int
    message: Message
    text: str | None = None
    finish_reason: FinishReason | None = None


class Embedding(_Result):
    """The vector of input number ``index``."""

    index: int
    embedding: list[float]


class Response(_Result):
    """The answer in one form: ``choices`` of a chat or completion, ``data`` of an embedding."""

    model: str
    id: str | None = None
    choices: list[Choice] = []
    data: list[Embedding] = []


class Usage(_Result, rename="camel", omit_defaults=False):
    """Tokens, as the provider counted them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class JobResult(_Result, rename="camel", omit_defaults=False):
    """A completed job's result. ``tokens`` is the total; ``latency`` the provider call's duration in milliseconds."""

    response: Response
    tokens: int
    latency: float
    provider: str
    model: str
    usage: Usage
    finish_reason: FinishReason | None = None
    request_id: str | None = None  #: the provider's own id of the call
    raw: Any = None  #: the provider's answer, unchanged

    @property
    def text(self) -> str:
        """The first choice's text; empty for an embedding or a pure tool call."""
        return (self.response.choices[0].message.content or "") if self.response.choices else ""


_encode = msgspec.json.Encoder().encode
decode_result = msgspec.json.Decoder(JobResult).decode


def encode_result(result: JobResult) -> bytes:
    """Return the JSON of a result. Text that UTF-8 can't carry is replaced: the answer is paid for, and is kept."""
    try:
        return _encode(result)
    except (UnicodeEncodeError, OverflowError):
        return _encode(encodable(msgspec.to_builtins(result)))
