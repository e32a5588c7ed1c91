"""llama.cpp in this process: GGUF models, one in memory at a time, many requests on it at once."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from jinja2 import TemplateError

from aiqueue.config import ProviderConfig
from aiqueue.errors import ContextLengthExceeded, InvalidRequest, ModelUnavailable, ProviderServerError
from aiqueue.llama.affinity import AffinityRule
from aiqueue.llama.catalogue import Catalogue
from aiqueue.llama.embedder import in_batches
from aiqueue.llama.engine_thread import Ticket
from aiqueue.llama.host import ModelHost
from aiqueue.llama.model import LoadedModel, ModelOptions
from aiqueue.llama.model_file import BadModelFile, ModelNotReady
from aiqueue.llama.requests import PromptTooLong
from aiqueue.llama_config import ModelsConfig
from aiqueue.models import AIJobType
from aiqueue.providers.base import ProviderAnswer, ProviderRequest
from aiqueue.providers.features import FEATURES, options_of
from aiqueue.providers.llama_cpp_format import answer_of_generation, answer_of_vectors, generation_request
from aiqueue.providers.redact import safe_text

logger = logging.getLogger(__name__)

_NO_CATALOGUE = ModelsConfig()
_THE_ONE = ""  # the model of an entry with a file of its own, whatever name the job gives it


class LlamaCppProvider:
    """Runs jobs on the model file that its entry names, or on the entry's models of the catalogue."""

    def __init__(self, name: str, entry: ProviderConfig, models: ModelsConfig = _NO_CATALOGUE) -> None:
        self.name = name
        self.job_types = frozenset(FEATURES["llama_cpp"])
        self._entry = entry
        self._catalogue = Catalogue(models)
        rule = AffinityRule(most_passes=entry.llama.swap_after_jobs, patience_s=entry.llama.swap_after_s)
        self._host: ModelHost[LoadedModel] = ModelHost(self._load, rule=rule, name=name, lasting=(BadModelFile,))
        self._preparing = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"prompts-{name}")

    async def run(self, request: ProviderRequest) -> ProviderAnswer:
        """Return the model's answer to ``request``; raise the JobError that says why there is none.

        When the awaiting task is cancelled the generation ends before the next step of the model; what was generated
        is given to ``request.on_partial``, and the cancellation goes on.
        """
        options = options_of(request, provider=self.name, kind="llama_cpp")
        try:
            async with self._host.lend(self._model_of(request)) as model:
                if request.type == AIJobType.EMBEDDING:
                    return await self._embed(model, request)
                return await self._generate(model, request, options)
        except PromptTooLong as error:
            raise ContextLengthExceeded(f"Provider {self.name}: {request.type} of {error}") from None
        except BadModelFile as error:
            raise self._unavailable(error) from None
        except ModelNotReady as error:
            raise self._not_ready(error) from None
        except (ValueError, TemplateError) as error:
            raise InvalidRequest(f"Provider {self.name}: {safe_text(str(error))}") from None
        except RuntimeError as error:
            raise ProviderServerError(f"Provider {self.name}: llama.cpp failed: {safe_text(str(error))}") from None

    async def health_check(self) -> None:
        """Return if a model is in memory and at work; load the first if none is.

        Raises ModelUnavailable where trying again can't help, ProviderServerError where it may. A model that hangs in
        a step does not return: whoever asks sets a limit.
        """
        try:
            async with self._host.lend(self._host.loaded or self._first) as model:
                await asyncio.wrap_future(model.answering())
        except BadModelFile as error:
            raise self._unavailable(error) from None
        except (ModelNotReady, RuntimeError, OSError) as error:
            raise self._not_ready(error) from None

    async def close(self) -> None:
        """Free the model's memory."""
        await self._host.close()
        self._preparing.shutdown(wait=False)

    @property
    def _first(self) -> str:
        return self._entry.models[0] if self._entry.model_path is None and self._entry.models else _THE_ONE

    def _model_of(self, request: ProviderRequest) -> str:
        if self._entry.model_path is not None:
            return _THE_ONE
        if request.model not in self._entry.models:
            raise ModelUnavailable(f"Provider {self.name}: has no model {request.model!r}")
        return request.model

    async def _generate(self, model: LoadedModel, request: ProviderRequest, options: dict[str, Any]) -> ProviderAnswer:
        prepared = await self._prepare(generation_request, model, request, options)
        ticket = model.generate(prepared)
        try:
            generation = await asyncio.wrap_future(ticket.future)
        except asyncio.CancelledError:
            await self._keep_partial(ticket, request)
            raise
        return answer_of_generation(generation, request)

    async def _keep_partial(self, ticket: Ticket, request: ProviderRequest) -> None:
        ticket.cancel()
        (ended,) = await asyncio.gather(asyncio.wrap_future(ticket.future), return_exceptions=True)
        if request.on_partial and not isinstance(ended, BaseException) and ended.tokens:
            request.on_partial(answer_of_generation(ended, request))

    async def _embed(self, model: LoadedModel, request: ProviderRequest) -> ProviderAnswer:
        given = request.body["input"]
        texts = await self._prepare(_tokens_of_all, model, [given] if isinstance(given, str) else given)
        vectors: list[list[float]] = []
        for part in in_batches(texts, model.longest_to_embed):  # between these it can be cancelled
            made: list[list[float]] = await asyncio.wrap_future(model.embed(part))
            vectors += made
        return answer_of_vectors(vectors, sum(map(len, texts)), request)

    async def _prepare(self, work: Any, *arguments: Any) -> Any:
        """Have templates and tokens done in a thread: a prompt of a book's length must not hold up the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._preparing, work, *arguments)

    def _load(self, name: str) -> LoadedModel:
        """Load a model: in the host's thread."""
        try:
            path = self._catalogue.file_of(name) if self._entry.model_path is None else self._entry.model_path
            model = LoadedModel(path.expanduser(), _options_of(self._entry))
            try:
                model.warm_up()
                self._read_system_prompts(model)
            except BaseException:
                model.close()
                raise
        except (ValueError, TemplateError) as error:
            logger.error("Provider %s: %s", self.name, error)
            raise BadModelFile(f"model {name or self._entry.model_path}: {error}") from error
        except BadModelFile as error:
            logger.error("Provider %s: %s", self.name, error)
            raise
        return model

    def _read_system_prompts(self, model: LoadedModel) -> None:
        for number, prompt in enumerate(self._entry.llama.system_prompts):
            try:
                model.pin_system_prompt(prompt).result()
            except (ValueError, TemplateError, PromptTooLong) as error:
                raise BadModelFile(f"llama.system_prompts.{number}: {error}") from None

    def _unavailable(self, error: BadModelFile) -> ModelUnavailable:
        return ModelUnavailable(f"Provider {self.name}: {safe_text(str(error))}")

    def _not_ready(self, error: Exception) -> ProviderServerError:
        return ProviderServerError(f"Provider {self.name}: {safe_text(str(error))}; it is tried again")


def _tokens_of_all(model: LoadedModel, texts: list[str]) -> list[tuple[int, ...]]:
    return [model.tokens_to_embed(text, number) for number, text in enumerate(texts)]


def _options_of(entry: ProviderConfig) -> ModelOptions:
    return ModelOptions(
        context_tokens=entry.context_tokens,
        parallel=entry.llama.parallel,
        urgent=entry.llama.urgent_slots,
        threads=entry.threads,
        gpu_layers=entry.gpu_layers,
        batch_tokens=min(entry.llama.batch_tokens, entry.context_tokens),
        prompt_tokens=entry.llama.prompt_tokens,
        remember_tokens=entry.llama.remember_tokens,
        flash_attention=entry.llama.flash_attention,
    )
