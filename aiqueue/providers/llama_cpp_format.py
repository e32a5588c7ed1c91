"""Between jobs and the batching engine: its requests from their options, OpenAI's format from its generations."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any

from aiqueue.llama.grammar import grammar_of
from aiqueue.llama.model import LoadedModel
from aiqueue.llama.requests import Generation, GenerationRequest, Sampling
from aiqueue.models import AIJobType
from aiqueue.providers.base import ProviderAnswer, ProviderRequest
from aiqueue.results import Choice, Embedding, Message, Response, Usage

# llama-cpp-python's own defaults, which jobs without a temperature have always had here.
_CHAT_TEMPERATURE, _TEXT_TEMPERATURE = 0.2, 0.8
_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "seed", "presence_penalty", "frequency_penalty")


def generation_request(model: LoadedModel, request: ProviderRequest, options: dict[str, Any]) -> GenerationRequest:
    """Return what the engine is to do for a chat or a completion.

    Raises ValueError or jinja2.TemplateError for what the model or its template can't take.
    """
    stop = options.get("stop") or ()
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    is_chat = request.type == AIJobType.CHAT_COMPLETION
    if is_chat:
        messages = [_plain(message, number) for number, message in enumerate(request.body["messages"])]
        tokens, stops = model.chat_tokens(messages), stops + model.chat_stop
    else:
        tokens = model.text_tokens(request.body["prompt"])
    response_format = options.get("response_format")
    given = {name: options[name] for name in _SAMPLING if name in options}
    given.setdefault("temperature", _CHAT_TEMPERATURE if is_chat else _TEXT_TEMPERATURE)
    given.setdefault("seed", secrets.randbits(31))  # a fixed one would give every job with one prompt one answer
    sampling = Sampling(**given, grammar=grammar_of(response_format) if response_format else "")
    return GenerationRequest(
        tokens=tokens, sampling=sampling, max_tokens=options.get("max_tokens"), stop=stops, level=request.level
    )


def answer_of_generation(generation: Generation, request: ProviderRequest) -> ProviderAnswer:
    """Return the answer to a chat or a completion, whole or cut off by a cancel."""
    is_chat = request.type == AIJobType.CHAT_COMPLETION
    usage = _usage(generation.prompt_tokens, len(generation.tokens))
    choice = Choice(
        index=0,
        message=Message(content=generation.text),
        text=None if is_chat else generation.text,
        finish_reason=generation.end,
    )
    said = {"message": {"role": "assistant", "content": generation.text}} if is_chat else {"text": generation.text}
    answer_id = f"{'chatcmpl' if is_chat else 'cmpl'}-{request.job_id}"
    raw = {
        "id": answer_id,
        "object": "chat.completion" if is_chat else "text_completion",
        "created": int(time.time()),
        "model": request.model,
        "choices": [{"index": 0, **said, "finish_reason": generation.end}],
        "usage": _raw_usage(usage) | {"prompt_tokens_details": {"cached_tokens": generation.cached_tokens}},
    }
    return ProviderAnswer(
        response=Response(model=request.model, id=answer_id, choices=[choice]),
        usage=usage,
        finish_reason=generation.end,
        raw=raw,
    )


def answer_of_vectors(vectors: Sequence[list[float]], tokens: int, request: ProviderRequest) -> ProviderAnswer:
    """Return the answer to an embedding of ``tokens`` tokens in all."""
    usage = _usage(tokens, 0)
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    return ProviderAnswer(
        response=Response(
            model=request.model,
            data=[Embedding(index=index, embedding=vector) for index, vector in enumerate(vectors)],
        ),
        usage=usage,
        raw={"object": "list", "data": data, "model": request.model, "usage": _raw_usage(usage)},
    )


def _usage(prompt: int, completion: int) -> Usage:
    return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)


def _raw_usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }


def _plain(message: dict[str, Any], number: int) -> dict[str, Any]:
    """Return ``message`` as chat templates know it: its content one text, its role one of the old three or ``tool``."""
    if message.get("tool_calls"):
        raise ValueError(f"messages.{number}.tool_calls: not supported by providers of kind llama_cpp")
    content = message.get("content") or ""
    if isinstance(content, list):
        others = {str(part.get("type")) for part in content} - {"text"}
        if others:
            raise ValueError(f"messages.{number}.content: this model reads text only, not {', '.join(sorted(others))}")
        content = "\n".join(str(part.get("text", "")) for part in content)
    role = "system" if message["role"] == "developer" else message["role"]
    return {"role": role, "content": content}
