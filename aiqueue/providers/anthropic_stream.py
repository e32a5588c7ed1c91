"""A streamed message put together again: event by event, the body that a call without streaming would have brought."""

from __future__ import annotations

from typing import Any

import msgspec

#: Of a delta: where its text goes in the block, by its type. Those of tools are JSON in pieces.
_FIELDS = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}


class MessageAssembly:
    """Takes the events of one message, in their order."""

    def __init__(self) -> None:
        self._message: dict[str, Any] = {}
        self._blocks: dict[int, _Block] = {}
        self.is_complete = False  #: the message has come to its end

    @property
    def said(self) -> bool:
        """Whether anything of an answer has come."""
        return any(block.parts for block in self._blocks.values())

    def add(self, event: dict[str, Any]) -> None:
        """Take the next event. Those of unknown types are passed over, as the format asks for."""
        match event.get("type"):
            case "message_start":
                self._message = dict(event.get("message") or {})
            case "content_block_start":
                self._blocks[event.get("index", 0)] = _Block(dict(event.get("content_block") or {}))
            case "content_block_delta" if event.get("index", 0) in self._blocks:
                self._blocks[event.get("index", 0)].add(event.get("delta") or {})
            case "message_delta":
                usage = self._message.get("usage") or {}
                usage.update(event.get("usage") or {})  # in place: however many events come, none copies all before it
                self._message |= {**(event.get("delta") or {}), "usage": usage}
            case "message_stop":
                self.is_complete = bool(self._message)

    def body(self) -> dict[str, Any]:
        """Return what has come so far as a ``message``."""
        content = [block.whole() for _, block in sorted(self._blocks.items())]
        return {**self._message, "content": content}


class _Block:
    def __init__(self, start: dict[str, Any]) -> None:
        self._start = start
        self.parts: list[tuple[str, str]] = []  # field of the block, text

    def add(self, delta: dict[str, Any]) -> None:
        kind = delta.get("type", "")
        if kind == "input_json_delta":
            self.parts.append(("input", delta.get("partial_json") or ""))
        elif field := _FIELDS.get(kind):
            self.parts.append((field, delta.get(field) or ""))

    def whole(self) -> dict[str, Any]:
        block = dict(self._start)
        for field in {field for field, _ in self.parts}:
            text = "".join(part for its_field, part in self.parts if its_field == field)
            block[field] = _object_of(text) if field == "input" else (block.get(field) or "") + text
        return block


def _object_of(text: str) -> Any:
    """Return a tool's input; of one that broke off, nothing: half an argument is worse than none."""
    try:
        return msgspec.json.decode(text) if text else {}
    except (ValueError, RecursionError):
        return {}
