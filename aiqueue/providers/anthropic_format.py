"""Between our payload (OpenAI's shape) and Anthropic's Messages format. Pure functions.

What differs: system turns stand outside the conversation; tools, calls and results are blocks of content; an answer
needs a limit; the prompt's tokens are counted in three parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from aiqueue.encodable import encodable, encodable_count
from aiqueue.errors import InvalidRequest, MalformedResponse
from aiqueue.providers.base import ProviderAnswer, ProviderRequest
from aiqueue.providers.remote import Reply, parse, text_or_none
from aiqueue.results import Choice, FinishReason, Message, Response, Usage

Block = dict[str, Any]

DEFAULT_MAX_TOKENS = 1_024  #: the format has no "as many as you like": this is what a job without ``max_tokens`` gets

_FINISH_REASONS: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_TOOL_CHOICES = {"auto": "auto", "required": "any", "none": "none"}


class _Message(msgspec.Struct):
    content: list[Block]
    stop_reason: str | None = None
    # Whatever stands there: an answer that is paid for is not refused for what it says beside.
    id: Any = None
    model: Any = None
    usage: Any = None


def arguments_of(request: ProviderRequest, options: dict[str, Any], *, provider: str) -> dict[str, Any]:
    """Return the arguments of ``messages.create`` for ``request``.

    Raises InvalidRequest, naming the field, for what can't be said in this format.
    """
    try:
        turns = list(_turns(request.body["messages"]))
        if not turns:
            raise _Unsayable("messages: needs a turn of the user; system messages are no part of the conversation")
        arguments = {
            "model": request.model,
            "messages": turns,
            "max_tokens": options.pop("max_tokens", DEFAULT_MAX_TOKENS),
        }
        system = _system(request.body["messages"])
        if system:
            arguments["system"] = system
        stop = options.pop("stop", None)
        if stop is not None:
            arguments["stop_sequences"] = [stop] if isinstance(stop, str) else stop
        if "tools" in options:
            arguments["tools"] = [_tool(tool) for tool in options.pop("tools")]
        if "tool_choice" in options:
            arguments["tool_choice"] = _tool_choice(options.pop("tool_choice"))
    except _Unsayable as error:
        raise InvalidRequest(f"Provider {provider}: {error}") from None
    return arguments | options


def answer_of(reply: Reply, request: ProviderRequest, *, provider: str) -> ProviderAnswer:
    """Return ``reply`` in the common shape. Raises MalformedResponse if it lacks what its format promises."""
    body = parse(reply.body, _Message, provider=provider)
    texts = [_text(block, provider) for block in body.content if block.get("type") == "text"]
    calls = [_call(block) for block in body.content if block.get("type") == "tool_use"]
    reason = _FINISH_REASONS.get(body.stop_reason or "")
    message = Message(content="".join(texts) if texts or not calls else None, tool_calls=calls or None)
    return ProviderAnswer(
        response=Response(
            model=text_or_none(body.model) or request.model,
            id=text_or_none(body.id),
            choices=[Choice(index=0, message=message, finish_reason=reason)],
        ),
        usage=_usage(body.usage),
        finish_reason=reason,
        request_id=reply.request_id,
        raw=reply.body,
    )


class _Unsayable(Exception):
    """A part of the payload that has no counterpart in the format: its field, and why."""


def _system(messages: list[dict[str, Any]]) -> str | list[Block]:
    contents = [message.get("content") or "" for message in messages if message["role"] in ("system", "developer")]
    if all(isinstance(content, str) for content in contents):
        return "\n\n".join(contents)
    return [block for content in contents for block in _blocks(content)]


def _turns(messages: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    results: list[Block] = []  # of the tool messages in a row: one turn of the user must hold them all
    for number, message in enumerate(messages):
        if message.get("name") is not None:
            raise _Unsayable(f"messages.{number}.name: the Messages format has no names")
        if message["role"] == "tool":
            result = {"type": "tool_result", "tool_use_id": message.get("tool_call_id")}
            results.append(result | {"content": _content(message.get("content"))})
            continue
        if results:
            yield {"role": "user", "content": results}
            results = []
        if message["role"] == "user":
            yield {"role": "user", "content": _content(message.get("content"))}
        elif message["role"] == "assistant":
            yield {"role": "assistant", "content": _assistant_content(message, number)}
    if results:
        yield {"role": "user", "content": results}


def _assistant_content(message: dict[str, Any], number: int) -> str | list[Block]:
    calls = message.get("tool_calls") or []
    if not calls:
        return _content(message.get("content"))
    uses = [_tool_use(call, f"messages.{number}.tool_calls.{at}") for at, call in enumerate(calls)]
    return _blocks(message.get("content") or "") + uses


def _tool_use(call: dict[str, Any], where: str) -> Block:
    function = call.get("function") or {}
    try:
        arguments = msgspec.json.decode(function["arguments"] or "{}", type=dict[str, Any])
        return {"type": "tool_use", "id": call["id"], "name": function["name"], "input": arguments}
    except (KeyError, TypeError):
        raise _Unsayable(f"{where}: needs id, function.name and function.arguments") from None
    except (ValueError, RecursionError):
        raise _Unsayable(f"{where}.function.arguments: not a JSON object") from None


def _content(content: str | list[Block] | None) -> str | list[Block]:
    return _blocks(content) if isinstance(content, list) else content or ""


def _blocks(content: str | list[Block]) -> list[Block]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []  # an empty text block is refused
    return [_image(part["image_url"]) if part.get("type") == "image_url" else part for part in content]


def _image(image: Any) -> Block:
    url = str(image.get("url", "") if isinstance(image, dict) else image)
    kind, _, data = url.partition(";base64,")
    if kind.startswith("data:") and data:
        return {"type": "image", "source": {"type": "base64", "media_type": kind.removeprefix("data:"), "data": data}}
    return {"type": "image", "source": {"type": "url", "url": url}}


def _tool(tool: dict[str, Any]) -> Block:
    function = tool.get("function")
    if not isinstance(function, dict):
        return tool  # one of Anthropic's own, such as web search
    translated = {"name": function.get("name"), "input_schema": function.get("parameters") or {"type": "object"}}
    return translated | {name: function[name] for name in ("description", "strict") if name in function}


def _tool_choice(choice: str | dict[str, Any]) -> Block:
    if isinstance(choice, str):
        if choice not in _TOOL_CHOICES:
            raise _Unsayable(f"config.tool_choice: {choice!r} is none of {', '.join(_TOOL_CHOICES)}")
        return {"type": _TOOL_CHOICES[choice]}
    function = choice.get("function")
    return {"type": "tool", "name": function.get("name")} if isinstance(function, dict) else choice


def _text(block: Block, provider: str) -> str:
    text = block.get("text")
    if text is None or isinstance(text, str):
        return text or ""
    said = f"the text of a block is a {type(text).__name__}"
    raise MalformedResponse(f"Provider {provider}: the answer is not of its format: {said}", status=200)


def _call(block: Block) -> dict[str, Any]:
    arguments = msgspec.json.encode(encodable(block.get("input") or {})).decode()
    function = {"name": block.get("name"), "arguments": arguments}
    return {"id": block.get("id"), "type": "function", "function": function}


def _usage(usage: object) -> Usage:
    counts = usage if isinstance(usage, dict) else {}
    # `input_tokens` leaves out what was written to or read from the prompt cache; all of it is the prompt.
    names = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    prompt = encodable_count(sum(encodable_count(counts.get(name)) for name in names))
    completion = encodable_count(counts.get("output_tokens"))
    total = encodable_count(prompt + completion)
    return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=total)
