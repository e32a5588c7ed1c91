"""llama.cpp in this process: one GGUF model, loaded at first use, one request at a time.

All work on the model happens in one thread of its own, in the order of arrival: the event loop stays free, and two
requests can't meet in a model that is not made for that.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

from jinja2 import TemplateError

from aiqueue.config import ProviderConfig
from aiqueue.errors import ContextLengthExceeded, InvalidRequest, JobError, ModelUnavailable, ProviderServerError
from aiqueue.llama.model import PromptTooLong, StoppableLlama, grammar_of, load_model
from aiqueue.llama.model_file import BadModelFile
from aiqueue.models import AIJobType
from aiqueue.providers.base import ProviderAnswer, ProviderRequest
from aiqueue.providers.features import FEATURES, options_of
from aiqueue.providers.openai_format import answer_of
from aiqueue.providers.redact import safe_text
from aiqueue.providers.remote import Reply

logger = logging.getLogger(__name__)


class LlamaCppProvider:
    """Runs jobs on the model that its entry names, whatever model name the job gives."""

    def __init__(self, name: str, entry: ProviderConfig) -> None:
        self.name = name
        self.job_types = frozenset(FEATURES["llama_cpp"])
        self._entry = entry
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"llama-{name}")
        self._model: StoppableLlama | None = None
        self._why_there_is_none: str | None = None

    async def run(self, request: ProviderRequest) -> ProviderAnswer:
        """Return the model's answer to ``request``; raise the JobError that says why there is none.

        When the awaiting task is cancelled the generation ends at the next token (not while it reads the prompt), and
        the cancellation goes on once the model is free again.
        """
        stop = Event()
        work = self._thread.submit(self._answer, request, stop)
        try:
            return await asyncio.wrap_future(work)
        except asyncio.CancelledError:
            stop.set()
            if not work.cancel():
                await asyncio.gather(asyncio.wrap_future(work), return_exceptions=True)
            raise

    async def health_check(self) -> None:
        """Load the model if that has not happened yet. Raises ModelUnavailable if it can't be."""
        await asyncio.wrap_future(self._thread.submit(self._loaded))

    async def close(self) -> None:
        """Free the model's memory."""
        await asyncio.wrap_future(self._thread.submit(self._unload))
        self._thread.shutdown(wait=False)

    # From here on: in the model's thread.

    def _answer(self, request: ProviderRequest, stop: Event) -> ProviderAnswer:
        options = options_of(request, provider=self.name, kind="llama_cpp")
        model = self._loaded()
        model.stop = stop
        try:
            raw = self._ask(model, request, options)
        except PromptTooLong as error:
            raise ContextLengthExceeded(f"Provider {self.name}: {request.type} of {error}") from None
        except (ValueError, TemplateError) as error:
            raise InvalidRequest(f"Provider {self.name}: {safe_text(str(error))}") from None
        except RuntimeError as error:
            raise ProviderServerError(f"Provider {self.name}: llama.cpp failed: {safe_text(str(error))}") from None
        return answer_of(Reply(raw, request_id=None), request, provider=self.name)

    def _ask(self, model: StoppableLlama, request: ProviderRequest, options: dict[str, Any]) -> dict[str, Any]:
        if request.type == AIJobType.EMBEDDING:
            texts = request.body["input"]
            return model.vectors([texts] if isinstance(texts, str) else texts, model=request.model)
        # The package's default is one fixed seed: every job with the same prompt would get the same answer.
        options.setdefault("seed", secrets.randbits(31))
        options.setdefault("max_tokens", None)  # what the context has left, not 16
        if request.type == AIJobType.TEXT_COMPLETION:
            return model.complete(request.body["prompt"], model=request.model, **options)
        response_format = options.pop("response_format", None)
        grammar = grammar_of(response_format) if response_format else None
        messages = [_plain(message, number) for number, message in enumerate(request.body["messages"])]
        return model.chat(messages, model=request.model, grammar=grammar, **options)

    def _loaded(self) -> StoppableLlama:
        if self._why_there_is_none is not None:
            raise self._unavailable(self._why_there_is_none)
        if self._model is None:
            try:
                self._model = self._load()
            except BadModelFile as error:
                self._why_there_is_none = str(error)
                logger.error("Provider %s: %s", self.name, error)
                raise self._unavailable(str(error)) from None
        return self._model

    def _load(self) -> StoppableLlama:
        entry = self._entry
        if entry.model_path is None:
            raise BadModelFile("no model_path is configured")
        return load_model(
            entry.model_path.expanduser(),
            context_tokens=entry.context_tokens,
            threads=entry.threads,
            gpu_layers=entry.gpu_layers,
        )

    def _unavailable(self, reason: str) -> JobError:
        return ModelUnavailable(f"Provider {self.name}: {safe_text(reason)}")

    def _unload(self) -> None:
        if self._model is not None:
            self._model.close()
            self._model = None


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
