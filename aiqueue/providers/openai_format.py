"""OpenAI's wire format, as far as we read and write it: also what vLLM, Ollama, llama.cpp and most proxies speak."""

from __future__ import annotations

from typing import Annotated, Any, cast, get_args

import msgspec

from aiqueue.encodable import encodable_count
from aiqueue.errors import MalformedResponse
from aiqueue.models import AIJobType
from aiqueue.providers.base import ProviderAnswer, ProviderRequest
from aiqueue.providers.remote import Reply, parse, text_or_none
from aiqueue.results import Choice, Embedding, FinishReason, Message, Response, Usage

_OWN_REASONS = frozenset(get_args(FinishReason))
_OTHER_REASONS = {"function_call": "tool_calls"}


class _Message(msgspec.Struct):
    role: str | None = None
    content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    refusal: str | None = None


class _ChatChoice(msgspec.Struct):
    message: _Message
    index: int | None = None
    finish_reason: str | None = None


class _TextChoice(msgspec.Struct):
    text: str
    index: int | None = None
    finish_reason: str | None = None


class _Vector(msgspec.Struct):
    embedding: list[float]
    index: int | None = None


class _Body(msgspec.Struct, kw_only=True):
    # Whatever stands there: an answer that is paid for is not refused for what it says beside.
    id: Any = None
    model: Any = None
    usage: Any = None


class _Chat(_Body):
    choices: Annotated[list[_ChatChoice], msgspec.Meta(min_length=1)]


class _Completion(_Body):
    choices: Annotated[list[_TextChoice], msgspec.Meta(min_length=1)]


class _Embeddings(_Body):
    data: Annotated[list[_Vector], msgspec.Meta(min_length=1)]


def arguments_of(request: ProviderRequest, options: dict[str, Any]) -> dict[str, Any]:
    """Return the body of the call that ``request`` asks for, ``options`` in it under their own names."""
    if request.type == AIJobType.CHAT_COMPLETION:
        given = {"messages": [_without_absent(message) for message in request.body["messages"]]}
    elif request.type == AIJobType.TEXT_COMPLETION:
        given = {"prompt": request.body["prompt"]}
    else:
        given = {"input": request.body["input"]}
    return {"model": request.model, **given, **options}


def answer_of(reply: Reply, request: ProviderRequest, *, provider: str) -> ProviderAnswer:
    """Return ``reply`` to a call made for ``request`` in the common shape.

    Raises MalformedResponse if it lacks what its format promises.
    """
    body: _Body
    choices: list[Choice] = []
    vectors: list[Embedding] = []
    if request.type == AIJobType.CHAT_COMPLETION:
        body = parse(reply.body, _Chat, provider=provider)
        choices = [_chat_choice(choice, at) for at, choice in enumerate(body.choices)]
    elif request.type == AIJobType.TEXT_COMPLETION:
        body = parse(reply.body, _Completion, provider=provider)
        choices = [_text_choice(choice, at) for at, choice in enumerate(body.choices)]
    else:
        body = parse(reply.body, _Embeddings, provider=provider)
        vectors = _vectors(body.data, request.body["input"], provider)
    return ProviderAnswer(
        response=Response(
            model=text_or_none(body.model) or request.model, id=text_or_none(body.id), choices=choices, data=vectors
        ),
        usage=_usage(body.usage),
        finish_reason=choices[0].finish_reason if choices else None,
        request_id=reply.request_id,
        raw=reply.body,
    )


def _chat_choice(choice: _ChatChoice, at: int) -> Choice:
    said = choice.message
    role = said.role or "assistant"
    message = Message(role=role, content=said.content, tool_calls=said.tool_calls or None, refusal=said.refusal)
    return Choice(index=_index(choice, at), message=message, finish_reason=_finish_reason(choice.finish_reason))


def _text_choice(choice: _TextChoice, at: int) -> Choice:
    reason = _finish_reason(choice.finish_reason)
    return Choice(
        index=_index(choice, at), message=Message(content=choice.text), text=choice.text, finish_reason=reason
    )


def _vectors(said: list[_Vector], given: str | list[str], provider: str) -> list[Embedding]:
    """Return a vector for each text, in their order."""
    count = 1 if isinstance(given, str) else len(given)
    if len(said) != count:
        text = f"Provider {provider}: answered with {len(said)} vectors for {count} texts"
        raise MalformedResponse(text, status=200)
    vectors = [Embedding(index=_index(vector, at), embedding=vector.embedding) for at, vector in enumerate(said)]
    return sorted(vectors, key=lambda vector: vector.index)


def _index(item: _ChatChoice | _TextChoice | _Vector, at: int) -> int:
    return at if item.index is None else item.index


def _usage(usage: object) -> Usage:
    counts = usage if isinstance(usage, dict) else {}
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    prompt, completion, total = (encodable_count(counts.get(name)) for name in names)
    total = total or encodable_count(prompt + completion)
    return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=total)


def _finish_reason(reason: str | None) -> FinishReason | None:
    # A reason that we do not know (a server's own) is left to `raw`: guessing would call a cut answer complete.
    known = _OTHER_REASONS.get(reason or "", reason)
    return cast(FinishReason, known) if known in _OWN_REASONS else None


def _without_absent(message: dict[str, Any]) -> dict[str, Any]:
    # `content: null` has a meaning beside tool calls; the other fields are refused by strict servers when null.
    return {name: value for name, value in message.items() if value is not None or name == "content"}
