"""The bodies that the simulated provider answers with, in OpenAI's and in Anthropic's format. Deterministic."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

from aiqueue.testing.script import Behaviour

Json = dict[str, Any]

_CREATED = 1_700_000_000  # answers do not depend on the clock
_DIMENSIONS = 8

_ANTHROPIC_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the simulated model says to one request, before it is put in a format."""

    model: str
    words: list[str]
    cut: bool  #: by ``max_tokens``
    prompt_tokens: int
    tool: Json | None = None  #: the tool it calls instead of speaking

    @property
    def text(self) -> str:
        """The answer as one text; a word stands for a token."""
        return " ".join(self.words)

    def usage(self, prompt: str, completion: str) -> Json:
        """Return the count of tokens under the names that a format has for them."""
        return {prompt: self.prompt_tokens, completion: len(self.words)}


def answer_to(body: Json, behaviour: Behaviour) -> Answer:
    """Return what the simulated model says to a request's ``body``: it repeats the end of the prompt."""
    prompt = _prompt_of(body)
    words = f"A simulated answer to: {prompt[-200:]}".split()
    if behaviour.tokens is not None:
        words = list(islice(cycle(words), behaviour.tokens))
    limit = body.get("max_tokens") or body.get("max_completion_tokens") or len(words)
    tools = body.get("tools") or [None]
    return Answer(
        model=str(body.get("model")),
        words=words[:limit],
        cut=limit < len(words),
        prompt_tokens=len(prompt.split()),
        tool=tools[0] if behaviour.calls_tool else None,
    )


def chat_body(answer: Answer, number: int) -> Json:
    """Return the body of ``/v1/chat/completions``."""
    message: Json = {"role": "assistant", "content": answer.text, "refusal": None}
    reason = "length" if answer.cut else "stop"
    if answer.tool:
        function = {"name": answer.tool["function"]["name"], "arguments": '{"city":"Paris"}'}
        call = {"id": f"call_{number}", "type": "function", "function": function}
        message, reason = {"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls"
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
    return _openai("chat.completion", f"chatcmpl-{number}", answer) | {"choices": [choice]}


def completion_body(answer: Answer, number: int) -> Json:
    """Return the body of ``/v1/completions``."""
    reason = "length" if answer.cut else "stop"
    choice = {"index": 0, "text": answer.text, "logprobs": None, "finish_reason": reason}
    return _openai("text_completion", f"cmpl-{number}", answer) | {"choices": [choice]}


def embeddings_body(body: Json) -> Json:
    """Return the body of ``/v1/embeddings``: vectors that depend on the texts alone."""
    texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
    size = body.get("dimensions") or _DIMENSIONS
    vectors = [_vector(str(text), size) for text in texts]
    if body.get("encoding_format") == "base64":
        encoded = [base64.b64encode(struct.pack(f"<{size}f", *vector)).decode() for vector in vectors]
        data = [{"object": "embedding", "index": at, "embedding": text} for at, text in enumerate(encoded)]
    else:
        data = [{"object": "embedding", "index": at, "embedding": vector} for at, vector in enumerate(vectors)]
    tokens = sum(len(str(text).split()) for text in texts)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": body.get("model"), "usage": usage}


def message_body(answer: Answer, number: int) -> Json:
    """Return the body of ``/v1/messages``."""
    content: Json = {"type": "text", "text": answer.text}
    reason = "max_tokens" if answer.cut else "end_turn"
    if answer.tool:
        name = answer.tool["name"]
        content = {"type": "tool_use", "id": f"toolu_{number}", "name": name, "input": {"city": "Paris"}}
        reason = "tool_use"
    return {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "content": [content],
        "stop_reason": reason,
        "stop_sequence": None,
        "usage": answer.usage("input_tokens", "output_tokens"),
    }


def models_body() -> Json:
    """Return the body of ``/v1/models``, for clients of both formats."""
    model = {"id": "sim", "object": "model", "type": "model", "created": _CREATED, "owned_by": "aiqueue"}
    both = {"display_name": "sim", "created_at": "2023-11-14T22:13:20Z"}
    return {"object": "list", "data": [model | both], "has_more": False, "first_id": "sim", "last_id": "sim"}


def error_body(status: int, number: int, message: str, *, anthropic: bool) -> Json:
    """Return the body of an answer with ``status``."""
    if anthropic:
        error = {"type": _ANTHROPIC_ERRORS.get(status, "api_error"), "message": message}
        return {"type": "error", "error": error, "request_id": f"req_{number}"}
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


def chat_events(answer: Answer, number: int, *, usage: bool) -> Iterator[bytes]:
    """Yield the server-sent events of a streamed chat, one a token."""
    base = _openai("chat.completion.chunk", f"chatcmpl-{number}", answer)
    base.pop("usage")
    for delta in [{"role": "assistant", "content": ""}, *({"content": word} for word in _spaced(answer.words))]:
        yield _event(base | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    reason = "length" if answer.cut else "stop"
    yield _event(base | {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    if usage:
        yield _event(base | {"choices": [], "usage": _openai("", "", answer)["usage"]})
    yield b"data: [DONE]\n\n"


def message_events(answer: Answer, number: int) -> Iterator[bytes]:
    """Yield the server-sent events of a streamed message, one a token."""
    whole = message_body(answer, number)
    start = whole | {"content": [], "stop_reason": None, "usage": whole["usage"] | {"output_tokens": 0}}
    block = {"type": "text", "text": ""}
    yield _named_event("message_start", message=start)
    yield _named_event("content_block_start", index=0, content_block=block)
    for word in _spaced(answer.words):
        yield _named_event("content_block_delta", index=0, delta={"type": "text_delta", "text": word})
    yield _named_event("content_block_stop", index=0)
    end = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    yield _named_event("message_delta", delta=end, usage={"output_tokens": len(answer.words)})
    yield _named_event("message_stop")


def _openai(kind: str, id_: str, answer: Answer) -> Json:
    usage = answer.usage("prompt_tokens", "completion_tokens")
    usage["total_tokens"] = sum(usage.values())
    return {"id": id_, "object": kind, "created": _CREATED, "model": answer.model, "usage": usage}


def _prompt_of(body: Json) -> str:
    if "messages" not in body:
        return str(body.get("prompt", ""))
    contents = [message.get("content") or "" for message in body["messages"]]
    return " ".join(content if isinstance(content, str) else json.dumps(content) for content in contents)


def _vector(text: str, size: int) -> list[float]:
    digest = hashlib.shake_128(text.encode()).digest(size)
    return [byte / 128 - 1 for byte in digest]  # exact in single precision, so base64 gives the same


def _spaced(words: list[str]) -> Iterator[str]:
    return (word if at == 0 else f" {word}" for at, word in enumerate(words))


def _event(data: Json) -> bytes:
    return f"data: {json.dumps(data)}\n\n".encode()


def _named_event(name: str, **data: Any) -> bytes:
    return f"event: {name}\n".encode() + _event({"type": name} | data)
