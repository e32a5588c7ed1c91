"""Foreign errors to ours: what an HTTP status, a body or a broken connection means for a job.

Nothing here imports an SDK. Those of OpenAI and Anthropic, and httpx under them, raise errors of the same shape
(``status_code``, ``response``, ``body``), and what has no status is told apart by the names of its classes, which
have stayed the same where the modules have not (httpx, httpx2).

======================================  ================================================================================
401, 402, 403                           AuthenticationFailed: another key or account is needed
408, 409, 5xx (529: overloaded)         ProviderServerError
429                                     RateLimited, with the wait that the headers ask for
400, 404, 413, 422 and any other 4xx    InvalidRequest, ContextLengthExceeded or ContentRefused
any other status                        MalformedResponse: it should have been an answer
timeout of connecting                   ProviderConnectionError: it is shorter than the job's timeout, and it says that
                                        the provider can't be reached, which is what a circuit breaker counts
timeout of reading or writing           JobTimeout: we set it to the job's own timeout, and that has passed
any other trouble of the connection     ProviderConnectionError
======================================  ================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from aiqueue.errors import (
    AuthenticationFailed,
    ContentRefused,
    ContextLengthExceeded,
    InvalidRequest,
    JobError,
    JobTimeout,
    MalformedResponse,
    ProviderConnectionError,
    ProviderError,
    ProviderServerError,
    RateLimited,
)
from aiqueue.providers.provider_json import read_json
from aiqueue.providers.rate_limits import asked_wait_s, retry_after_s
from aiqueue.providers.redact import safe_text

_BY_STATUS: Mapping[int, type[JobError]] = {
    401: AuthenticationFailed,
    402: AuthenticationFailed,
    403: AuthenticationFailed,
    408: ProviderServerError,
    409: ProviderServerError,
    429: RateLimited,
}

# Searched in an error's code, type and message: the only place where servers say why a request is bad.
_TOO_LONG = re.compile(r"context[ _](?:length|size|window|limit)|prompt is too long", re.IGNORECASE)
_REFUSED = re.compile(
    r"content[ _](?:filter|policy|management policy)|policy[ _]violation|usage policy|safety system|moderation_blocked",
    re.IGNORECASE,
)

# What an error in the middle of a stream would have been as an HTTP status; any other is the provider's own failure.
_STATUS_OF_TYPE = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "overloaded_error": 529,
}

# Why a choice ended if its provider failed in the middle of it: OpenRouter, vLLM as it shuts down, DeepSeek, Zhipu.
_BROKEN_OFF = ("error", "abort", "insufficient_system_resource", "network_error")

_UNREACHABLE = frozenset({"ConnectTimeout", "PoolTimeout"})
_TIMEOUTS = frozenset({"APITimeoutError", "TimeoutException", "TimeoutError"})
_CONNECTION = frozenset({"APIConnectionError", "RequestError", "OSError", "EndOfStream"})


def classify(error: Exception, *, provider: str, now: float, secret: str = "") -> JobError:
    """Return the JobError that stands for ``error``, raised by an SDK or by httpx on a call of ``provider``.

    ``now`` is in seconds since the epoch, for waits given as dates. ``secret`` is the key in use: wherever it appears
    in the text it is taken out, as is whatever else looks like a key.
    """
    response = getattr(error, "response", None)
    status = getattr(error, "status_code", None) or getattr(response, "status_code", None)
    if status is not None:
        headers = getattr(response, "headers", {})
        return from_answer(status, headers, _json_of(response), provider=provider, now=now, secret=secret)
    return _from_transport(error, provider, secret)


def from_answer(
    status: int, headers: Mapping[str, str], body: object, *, provider: str, now: float, secret: str = ""
) -> JobError:
    """Return the JobError for an HTTP answer that is an error; ``body`` is its JSON, or anything if it had none."""
    words, message = _what_it_says(body)
    kind = _kind_of(status, f"{words} {message}")
    wait = retry_after_s if kind is RateLimited else asked_wait_s
    text = f"HTTP {status}: {message}" if message else f"HTTP {status}"
    return kind(
        f"Provider {provider}: {safe_text(text, secret=secret)}",
        status=status,
        retry_after_s=wait(headers, now=now) if kind.retryable else None,
        request_id=request_id_of(headers, body),
    )


def error_in(said: Mapping[str, Any]) -> Any:
    """Return the error that an answer, or an event of a stream, tells of: of all of it or of one choice; else None."""
    choices = said.get("choices")
    for part in (said, *(choices if isinstance(choices, list) else ())):
        if not isinstance(part, Mapping):
            continue
        if part.get("error"):
            return part["error"]
        if part.get("finish_reason") in _BROKEN_OFF:
            return f"the answer was broken off ({part['finish_reason']})"
    return None


def status_of(error: object) -> int:
    """Return the HTTP status that an error inside an answer stands for."""
    if not isinstance(error, Mapping):
        return 500
    code = error.get("code")
    if isinstance(code, int) and 400 <= code < 600:  # vLLM, llama.cpp
        return code
    return next((status for name, status in _STATUS_OF_TYPE.items() if name in (code, error.get("type"))), 500)


def is_transport(error: Exception) -> bool:
    """Tell whether a connection failed, or its time was over: by the names of classes, as in ``classify``."""
    names = {cls.__name__ for cls in type(error).__mro__}
    return bool(names & (_UNREACHABLE | _TIMEOUTS | _CONNECTION))


def request_id_of(headers: Mapping[str, str], body: object = None) -> str | None:
    """Return the provider's own id of a call, which its support asks for."""
    in_body = body.get("request_id") if isinstance(body, Mapping) else None
    return headers.get("x-request-id") or headers.get("request-id") or (in_body if isinstance(in_body, str) else None)


def _kind_of(status: int, said: str) -> type[JobError]:
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= 500:
        return ProviderServerError
    if status < 400:
        return MalformedResponse
    if _TOO_LONG.search(said):
        return ContextLengthExceeded
    return ContentRefused if _REFUSED.search(said) else InvalidRequest


def _what_it_says(body: object) -> tuple[str, str]:
    """Return an error body's code words and its message.

    Anything that is not a message in a known place is left out: a body may echo the prompt, or be a proxy's web page.
    """
    error = body.get("error", body) if isinstance(body, Mapping) else None
    if isinstance(error, str):  # Ollama
        return "", error
    if not isinstance(error, Mapping):
        return "", ""
    message = error.get("message") or error.get("detail")
    if isinstance(message, list):  # FastAPI: a list of what is wrong and where, each with the input, which we leave out
        message = "; ".join(f"{item.get('loc')}: {item.get('msg')}" for item in message if isinstance(item, Mapping))
    return f"{error.get('code')} {error.get('type')}", message if isinstance(message, str) else ""


def _json_of(response: Any) -> Any:
    # Not the SDKs' ``error.body``: theirs is the raw text where there is no JSON, and that must not be quoted.
    try:
        return read_json(response.content)
    except (AttributeError, ValueError, RuntimeError):
        return None


def _from_transport(error: Exception, provider: str, secret: str) -> JobError:
    chain = list(_causes(error))
    names = {base.__name__ for link in chain for base in type(link).__mro__}
    reason = safe_text(f"{type(chain[-1]).__name__}: {chain[-1]}", secret=secret)
    if names & _UNREACHABLE:
        return ProviderConnectionError(f"Provider {provider}: timeout while connecting ({reason})")
    if names & _TIMEOUTS:
        return JobTimeout(f"Provider {provider}: timeout: no answer in the time of one attempt ({reason})")
    if names & _CONNECTION:
        return ProviderConnectionError(f"Provider {provider}: connection failed ({reason})")
    return ProviderError(f"Provider {provider}: {reason}")


def _causes(error: BaseException) -> Iterator[BaseException]:
    # The SDKs say "Connection error." and no more; the system's own words are at the end of the chain.
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
