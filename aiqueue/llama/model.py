"""One loaded model at work: weights, template, and a thread in which it serves many requests at once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiqueue.llama.chat_template import ChatTemplate
from aiqueue.llama.embedder import Embedder
from aiqueue.llama.engine import BatchingEngine, EngineCounts, EngineOptions
from aiqueue.llama.engine_thread import EngineThread, Ticket
from aiqueue.llama.native_context import MOST_SEQUENCES, ContextOptions, NativeContext
from aiqueue.llama.native_model import NativeModel
from aiqueue.llama.requests import Generation, GenerationRequest, PromptTooLong


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """How a model is run; see ``ProviderConfig`` for what each costs."""

    context_tokens: int = 4_096  #: of all requests together
    parallel: int = 8
    urgent: int = 0
    threads: int = 1
    gpu_layers: int = 0
    batch_tokens: int = 512
    prompt_tokens: int = 128
    remember_tokens: int | None = None  #: of ended requests; None: a quarter of the context
    flash_attention: bool | None = None

    @property
    def sequences(self) -> int:
        """Sequences of the context: as many as run again remember what has ended."""
        return min(2 * self.parallel + 4, MOST_SEQUENCES)


class LoadedModel:
    """Its methods may be called from any thread until it is closed."""

    def __init__(self, path: Path, options: ModelOptions) -> None:
        """Load the GGUF file at ``path``. Raises BadModelFile saying why it can't be, or ModelNotReady."""
        self._model = NativeModel(path, gpu_layers=options.gpu_layers)
        self._options = options
        try:
            self._template = ChatTemplate(self._model)
            self._context = NativeContext(self._model, _context_options(options))
        except BaseException:
            self._model.close()
            raise
        engine_options = EngineOptions(
            parallel=options.parallel,
            urgent=options.urgent,
            prompt_tokens=options.prompt_tokens,
            remember=options.remember_tokens,
        )
        self._engine = BatchingEngine(self._context, engine_options)
        self._thread = EngineThread(self._engine, name=f"llama-{path.stem}")
        self._embedder: Embedder | None = None  # touched in the engine's thread only

    @property
    def counts(self) -> EngineCounts:
        """What was done so far."""
        return self._engine.counts

    @property
    def longest_to_embed(self) -> int:
        """Most tokens that a text to embed may have."""
        return self._context.batch_tokens

    def chat_tokens(self, messages: list[dict[str, Any]]) -> tuple[int, ...]:
        """Return the prompt of a conversation. Raises ValueError or jinja2.TemplateError if the template refuses."""
        self._require_generation()
        return self._template.tokens(messages)

    @property
    def chat_stop(self) -> tuple[str, ...]:
        """Texts that end a turn, beside the model's own tokens for that."""
        return self._template.stop

    def text_tokens(self, text: str) -> tuple[int, ...]:
        """Return the tokens of a text to continue."""
        self._require_generation()
        return self._model.tokenize(text, markers=True)

    def generate(self, request: GenerationRequest) -> Ticket:
        """Hand in a request."""
        return self._thread.submit(request)

    def warm_up(self) -> None:
        """Read one token, so that the first request does not wait for the weights to come from the disk."""
        if self._model.can_generate and (token := self._model.tokenize("a", begin=False)):
            self.generate(GenerationRequest(tokens=token[:1], max_tokens=1)).future.result()

    def answering(self) -> Future[None]:
        """Return what is done when the model's thread gets to it: between two steps."""
        return self._thread.call(lambda: None)

    def pin_system_prompt(self, system_prompt: str) -> Future[Generation]:
        """Have the beginning of every conversation under ``system_prompt`` read and remembered."""
        return self._thread.pin(self._template.system_prefix(system_prompt))

    def tokens_to_embed(self, text: str, number: int) -> tuple[int, ...]:
        """Return the tokens of text ``number`` of a list to embed. Raises ValueError, PromptTooLong."""
        tokens = self._model.tokenize(text)
        if not text or not tokens:
            raise ValueError(f"input.{number} has no tokens")
        if len(tokens) > self.longest_to_embed:
            raise PromptTooLong(len(tokens), self.longest_to_embed)
        return tokens

    def embed(self, texts: Sequence[Sequence[int]]) -> Future[list[list[float]]]:
        """Have the vectors of ``texts`` made between two steps: as many as ``in_batches`` puts together."""
        return self._thread.call(lambda: self._vectors(texts))

    def close(self) -> None:
        """End its work and free its memory. Returns when that is done."""
        self._thread.close()
        if self._embedder:
            self._embedder.close()
        self._context.close()
        self._model.close()

    def _vectors(self, texts: Sequence[Sequence[int]]) -> list[list[float]]:
        if self._embedder is None:
            self._embedder = Embedder(
                self._model, batch_tokens=self._context.batch_tokens, threads=self._options.threads
            )
        return self._embedder.vectors(texts)

    def _require_generation(self) -> None:
        if not self._model.can_generate:
            raise ValueError(f"the model {self._model.path.name} makes vectors only, no text")


def _context_options(options: ModelOptions) -> ContextOptions:
    return ContextOptions(
        cells=options.context_tokens,
        sequences=options.sequences,
        batch_tokens=options.batch_tokens,
        threads=options.threads,
        flash_attention=options.flash_attention,
    )
