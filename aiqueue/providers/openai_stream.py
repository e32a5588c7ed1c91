"""A streamed chat put together again: chunk by chunk, the body that a call without streaming would have brought."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from aiqueue.providers.openai_calls import CallsAssembly
from aiqueue.providers.stream_pieces import counts_in, index_in, list_in, object_in, text_in

_HEAD = ("id", "created", "model", "system_fingerprint", "service_tier")
_TEXTS = frozenset({"content", "refusal"})  # what servers add of their own may be anything, and is kept if it is a text
_READ_BY_NAME = frozenset({"role", "tool_calls"})


class ChatAssembly:
    """Takes the chunks of one chat. Texts are kept as parts until they are asked for: a chunk costs no copy of all."""

    def __init__(self, *, wanted: int = 1) -> None:
        self._wanted = wanted  # choices
        self._head: dict[str, Any] = {}
        self._usage: dict[str, Any] | None = None
        self._choices: defaultdict[int, _Choice] = defaultdict(_Choice)
        self.pieces = 0  #: parts of an answer that have come

    @property
    def said(self) -> bool:
        """Whether anything of an answer has come."""
        return any(choice.texts or choice.calls for choice in self._choices.values())

    @property
    def is_complete(self) -> bool:
        """Whether every choice that began has come to its end."""
        return bool(self._choices) and all(choice.finish_reason for choice in self._choices.values())

    @property
    def has_all(self) -> bool:
        """Whether every choice that was asked for has come to its end. Servers may know of one only.

        Some give a reason to end with each piece, or before the first: it says nothing where more came behind it.
        """
        spoke_on = any(choice.spoke_on for choice in self._choices.values())
        return self.said and self.is_complete and not spoke_on and len(self._choices) >= self._wanted

    def add(self, chunk: dict[str, Any]) -> None:
        """Take the next chunk."""
        self._head |= {name: chunk[name] for name in _HEAD if chunk.get(name) is not None}
        self._usage = counts_in(chunk) or self._usage
        for choice in list_in(chunk, "choices"):
            self.pieces += self._choices[index_in(choice, 0)].add(choice)

    def body(self) -> dict[str, Any]:
        """Return what has come so far as a ``chat.completion``."""
        choices = [choice.whole(index) for index, choice in sorted(self._choices.items())]
        return {**self._head, "object": "chat.completion", "choices": choices, "usage": self._usage}


class _Choice:
    def __init__(self) -> None:
        self.role = "assistant"
        #: Of content, refusal, and what servers add of their own.
        self.texts: defaultdict[str, list[str]] = defaultdict(list)
        self.calls = CallsAssembly()
        self.finish_reason: str | None = None
        self.spoke_on = False  #: behind its end

    def add(self, choice: dict[str, Any]) -> int:
        """Take the next piece; return how many parts of an answer are in it."""
        had_ended, parts = bool(self.finish_reason), 0
        self.finish_reason = text_in(choice, "finish_reason") or self.finish_reason
        delta = object_in(choice, "delta")
        self.role = text_in(delta, "role") or self.role
        for call in list_in(delta, "tool_calls"):
            self.calls.add(call)
            parts += 1
        for name, value in delta.items():
            if name in _TEXTS:
                value = text_in(delta, name)
            if name not in _READ_BY_NAME and isinstance(value, str) and value:
                self.texts[name].append(value)
                parts += 1
        self.spoke_on = self.spoke_on or (had_ended and parts > 0)
        return parts

    def whole(self, index: int) -> dict[str, Any]:
        message: dict[str, Any] = {"role": self.role, "content": None}
        message |= {name: "".join(parts) for name, parts in self.texts.items()}
        if self.calls:
            message["tool_calls"] = self.calls.whole()
        elif message["content"] is None and "refusal" not in message:
            message["content"] = ""
        return {"index": index, "message": message, "finish_reason": self.finish_reason}
