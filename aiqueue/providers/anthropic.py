"""Anthropic, and servers that speak its Messages format at a ``base_url``."""

from __future__ import annotations

from functools import partial
from typing import Any

from anthropic import AnthropicError, AsyncAnthropic, Timeout

from aiqueue.config import ProviderConfig
from aiqueue.providers.anthropic_format import answer_of, arguments_of
from aiqueue.providers.anthropic_stream import MessageAssembly
from aiqueue.providers.base import ProviderAnswer, ProviderRequest
from aiqueue.providers.features import FEATURES, options_of
from aiqueue.providers.remote import HEALTH_CHECK_TIMEOUT_S, Caller, Credential

_BY_NAME = frozenset({"model", "messages", "max_tokens", "system", "stop_sequences", "tools", "tool_choice"})


class AnthropicProvider:
    """Calls a server in Anthropic's format. Many calls may run at once; cancelling one closes its connection."""

    def __init__(self, name: str, entry: ProviderConfig, credential: Credential) -> None:
        self.name = name
        self.job_types = frozenset(FEATURES["anthropic"])
        self._connect_timeout_s = entry.connect_timeout_s
        self._streams = entry.stream
        self._caller = Caller(provider=name, credential=credential, sdk_errors=(AnthropicError,))
        self._client = AsyncAnthropic(api_key=credential.for_sdk, base_url=entry.base_url, max_retries=0)

    async def run(self, request: ProviderRequest) -> ProviderAnswer:
        """Return the answer to ``request``; raise the JobError that says why there is none."""
        arguments = self._arguments(request)
        if self._streams:
            return await self._streamed(request, arguments)
        create = self._client.messages.with_raw_response.create
        reply = await self._caller.call(create, **arguments, timeout=self._timeout(request.timeout_s))
        return answer_of(reply, request, provider=self.name)

    async def _streamed(self, request: ProviderRequest, arguments: dict[str, Any]) -> ProviderAnswer:
        return await self._caller.stream(
            self._client.messages.with_streaming_response.create,
            MessageAssembly(),
            read=partial(answer_of, request=request, provider=self.name),
            on_partial=request.on_partial,
            within_s=request.timeout_s,
            **arguments,
            timeout=self._timeout(request.timeout_s),
        )

    async def health_check(self) -> None:
        """Ask for the list of models, which costs nothing; raise the JobError that says why it does not come."""
        list_models = self._client.models.with_raw_response.list
        await self._caller.check(list_models, timeout=self._timeout(HEALTH_CHECK_TIMEOUT_S))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    def _arguments(self, request: ProviderRequest) -> dict[str, Any]:
        options = options_of(request, provider=self.name, kind="anthropic")
        extra = options.pop("extra_body", {})
        arguments = arguments_of(request, options, provider=self.name)
        # The SDK's method has lost arguments (temperature, top_k) that the server still takes: they go in by the body.
        extra = {name: arguments.pop(name) for name in arguments.keys() - _BY_NAME} | extra
        return arguments | {"extra_body": extra or None}

    def _timeout(self, seconds: float) -> Timeout:
        return Timeout(seconds, connect=min(self._connect_timeout_s, seconds))
