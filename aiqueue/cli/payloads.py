"""From the options of ``aiqueue submit`` to a payload."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiqueue.errors import FieldError, ValidationError
from aiqueue.models import AIJobType
from aiqueue.protocol import ProviderEntry


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asks for; what is None was left out."""

    prompt: str
    type: AIJobType = AIJobType.CHAT_COMPLETION
    provider: str | None = None
    model: str | None = None
    system: str | None = None
    config: dict[str, Any] = field(default_factory=dict)


def payload_of(request: Request, providers: Sequence[ProviderEntry]) -> dict[str, Any]:
    """Return the payload of ``request``, with the only provider and model where it names none.

    Raises ValidationError, which lists the choices where there are several.
    """
    entry = _provider(request.provider, providers)
    payload: dict[str, Any] = {
        "type": request.type.value,
        "provider": entry.name,
        "model": request.model or _only_model(entry),
        **_input(request),
    }
    config = {name: value for name, value in request.config.items() if value is not None}
    return {**payload, "config": config} if config else payload


def read_payload(path: Path) -> dict[str, Any]:
    """Return the payload in a JSON file. Raises ValidationError if there is none."""
    try:
        payload = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:  # also what is no UTF-8
        raise ValidationError([FieldError(str(path), f"is not JSON: {error}")]) from None
    if not isinstance(payload, dict):
        raise ValidationError([FieldError(str(path), "is not a JSON object, the payload of one job")])
    return payload


def _provider(name: str | None, providers: Sequence[ProviderEntry]) -> ProviderEntry:
    by_name = {entry.name: entry for entry in providers}
    if name is None and len(by_name) == 1:
        return providers[0]
    if name in by_name:
        return by_name[name]
    known = ", ".join(sorted(by_name)) or "none"
    problem = "there are several" if name is None else f"unknown provider {name!r}"
    raise ValidationError([FieldError("--provider", f"{problem}; configured: {known}")])


def _only_model(entry: ProviderEntry) -> str:
    if len(entry.models) == 1:
        return entry.models[0]
    if entry.models:
        raise ValidationError(
            [FieldError("--model", f"provider {entry.name!r} has several: {', '.join(entry.models)}")]
        )
    raise ValidationError([FieldError("--model", f"is needed: provider {entry.name!r} takes any model name")])


def _input(request: Request) -> dict[str, Any]:
    """Return the part of the payload that holds the prompt."""
    if request.type is AIJobType.CHAT_COMPLETION:
        system = [{"role": "system", "content": request.system}] if request.system else []
        return {"messages": [*system, {"role": "user", "content": request.prompt}]}
    if request.system:
        raise ValidationError([FieldError("--system", f"belongs to a chat, not to a job of type {request.type}")])
    return {"prompt" if request.type is AIJobType.TEXT_COMPLETION else "input": request.prompt}
