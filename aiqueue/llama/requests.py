"""What is asked of the batching engine, and what comes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

EndReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is chosen. ``temperature`` 0 takes the likeliest; the same ``seed`` draws the same."""

    temperature: float = 0.8
    top_k: int = 40  #: 0: all
    top_p: float = 0.95
    min_p: float = 0.05
    seed: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    grammar: str = ""  #: GBNF; empty: any text


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """A prompt to continue."""

    tokens: tuple[int, ...]
    sampling: Sampling = Sampling()
    max_tokens: int | None = None  #: None: what the context has left
    stop: tuple[str, ...] = ()  #: texts that end the answer before them
    level: int = 2  #: rank of the priority level, 0 = urgent
    on_text: Callable[[str], None] | None = None  #: is given each piece of the answer, in the engine's thread


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """An answer, or with ``cancelled`` the part of it that was there. All counts are in tokens."""

    text: str
    end: EndReason
    tokens: tuple[int, ...]  #: generated, without the one that ended it
    prompt_tokens: int
    cached_tokens: int = 0  #: of the prompt, not read again because another request had read them


class PromptTooLong(Exception):
    """A prompt, or a text to embed, has ``tokens`` where at most ``limit`` fit."""

    def __init__(self, tokens: int, limit: int) -> None:
        super().__init__(tokens, limit)
        self.tokens, self.limit = tokens, limit

    def __str__(self) -> str:
        return f"{self.tokens} tokens, but at most {self.limit} fit"
