"""What each kind of provider can do: its job types, and for each the options of ``config`` that it honours.

An option that is not in a row is refused with its name. Ignored, a ``seed`` or a ``response_format`` would give an
answer that looks right and is not what was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aiqueue.errors import InvalidRequest
from aiqueue.models import AIJobType

if TYPE_CHECKING:
    from aiqueue.config import ProviderKind
    from aiqueue.providers.base import ProviderRequest

_SAMPLING = frozenset({"temperature", "top_p", "top_k", "min_p", "max_tokens", "stop", "seed"})
_PENALTIES = frozenset({"presence_penalty", "frequency_penalty"})
_TOOLS = frozenset({"tools", "tool_choice"})

FEATURES: Mapping[ProviderKind, Mapping[str, frozenset[str]]] = {
    "openai": {
        AIJobType.CHAT_COMPLETION: _SAMPLING | _PENALTIES | _TOOLS | {"response_format", "extra_body"},
        AIJobType.TEXT_COMPLETION: _SAMPLING | _PENALTIES | {"extra_body"},
        AIJobType.EMBEDDING: frozenset({"dimensions", "extra_body"}),
    },
    "anthropic": {
        AIJobType.CHAT_COMPLETION: (_SAMPLING - {"min_p", "seed"}) | _TOOLS | {"extra_body"},
    },
    "llama_cpp": {
        AIJobType.CHAT_COMPLETION: _SAMPLING | _PENALTIES | {"response_format"},
        AIJobType.TEXT_COMPLETION: _SAMPLING | _PENALTIES,
        AIJobType.EMBEDDING: frozenset(),
    },
    # It honours none of them, and is there to be asked anything.
    "simulated": dict.fromkeys(AIJobType, _SAMPLING | _PENALTIES | _TOOLS | {"response_format", "extra_body"}),
}


#: ``extra_body`` adds to a request, it does not replace what was validated; and an answer is read whole, not streamed.
_NOT_EXTRA = frozenset({"model", "messages", "prompt", "input", "stream"})


def options_of(request: ProviderRequest, *, provider: str, kind: ProviderKind) -> dict[str, Any]:
    """Return the options that ``request`` sets (None counts as absent).

    Raises InvalidRequest, naming the field, for a job type or an option that ``kind`` does not have.
    """
    supported = FEATURES[kind].get(request.type)
    if supported is None:
        raise InvalidRequest(f"Provider {provider}: type {request.type} is not supported by providers of kind {kind}")
    options = {name: value for name, value in (request.body.get("config") or {}).items() if value is not None}
    refused = [f"config.{name}" for name in sorted(options.keys() - supported)]
    if refused:
        what = f"{request.type} by providers of kind {kind}"
        raise InvalidRequest(f"Provider {provider}: {', '.join(refused)}: not supported for {what}")
    replaced = [f"config.extra_body.{name}" for name in sorted((options.get("extra_body") or {}).keys() & _NOT_EXTRA)]
    if replaced:
        raise InvalidRequest(f"Provider {provider}: {', '.join(replaced)}: can't be set there")
    return options
