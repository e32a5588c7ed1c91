"""OpenAI, and every server that speaks its wire format at a ``base_url``: vLLM, Ollama, llama-server, proxies."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from openai import AsyncOpenAI, OpenAIError, Timeout

from aiqueue.config import ProviderConfig
from aiqueue.models import AIJobType
from aiqueue.providers.base import ProviderAnswer, ProviderRequest
from aiqueue.providers.features import FEATURES, options_of
from aiqueue.providers.openai_format import answer_of, arguments_of
from aiqueue.providers.openai_stream import ChatAssembly
from aiqueue.providers.remote import HEALTH_CHECK_TIMEOUT_S, Caller, Credential

_NOT_IN_THE_SDK = ("top_k", "min_p")  # vLLM, Ollama and others take them; OpenAI answers 400


class OpenAIProvider:
    """Calls a server in OpenAI's format. Many calls may run at once; cancelling one closes its connection."""

    def __init__(self, name: str, entry: ProviderConfig, credential: Credential) -> None:
        self.name = name
        self.job_types = frozenset(FEATURES["openai"])
        self._connect_timeout_s = entry.connect_timeout_s
        self._streams = entry.stream
        self._is_openai_itself = entry.base_url is None
        self._caller = Caller(provider=name, credential=credential, sdk_errors=(OpenAIError,))
        self._client = AsyncOpenAI(api_key=credential.for_sdk, base_url=entry.base_url, max_retries=0)

    async def run(self, request: ProviderRequest) -> ProviderAnswer:
        """Return the answer to ``request``; raise the JobError that says why there is none."""
        options = options_of(request, provider=self.name, kind="openai")
        create = self._method(request.type)
        arguments = self._arguments(request, options)
        if self._streams and request.type == AIJobType.CHAT_COMPLETION:
            return await self._streamed(request, arguments)
        reply = await self._caller.call(create, **arguments, timeout=self._timeout(request.timeout_s))
        return answer_of(reply, request, provider=self.name)

    async def _streamed(self, request: ProviderRequest, arguments: dict[str, Any]) -> ProviderAnswer:
        choices = (arguments["extra_body"] or {}).get("n")
        return await self._caller.stream(
            self._client.chat.completions.with_streaming_response.create,
            ChatAssembly(wanted=choices if isinstance(choices, int) else 1),
            read=partial(answer_of, request=request, provider=self.name),
            on_partial=request.on_partial,
            within_s=request.timeout_s,
            **arguments,
            stream_options={"include_usage": True},
            timeout=self._timeout(request.timeout_s),
        )

    async def health_check(self) -> None:
        """Ask for the list of models, which costs nothing; raise the JobError that says why it does not come."""
        list_models = self._client.models.with_raw_response.list
        await self._caller.check(list_models, timeout=self._timeout(HEALTH_CHECK_TIMEOUT_S))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    def _method(self, job_type: str) -> Callable[..., Awaitable[Any]]:
        if job_type == AIJobType.CHAT_COMPLETION:
            return self._client.chat.completions.with_raw_response.create
        if job_type == AIJobType.TEXT_COMPLETION:
            return self._client.completions.with_raw_response.create
        return self._client.embeddings.with_raw_response.create

    def _arguments(self, request: ProviderRequest, options: dict[str, Any]) -> dict[str, Any]:
        extra = {name: options.pop(name) for name in _NOT_IN_THE_SDK if name in options}
        extra |= options.pop("extra_body", {})
        if request.type == AIJobType.EMBEDDING:
            options["encoding_format"] = "float"  # the SDK's own default is base64, which `raw` should not hold
        if request.type == AIJobType.CHAT_COMPLETION and self._is_openai_itself and "max_tokens" in options:
            # OpenAI's newer models refuse the old name; other servers know the old one best.
            options["max_completion_tokens"] = options.pop("max_tokens")
        return arguments_of(request, options) | {"extra_body": extra or None}

    def _timeout(self, seconds: float) -> Timeout:
        return Timeout(seconds, connect=min(self._connect_timeout_s, seconds))
