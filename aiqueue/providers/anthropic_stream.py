"""A streamed message put together again: event by event, the body that a call without streaming would have brought."""

from __future__ import annotations

from typing import Any

from aiqueue.encodable import encodable_text
from aiqueue.providers.provider_json import TooDeep, read_json
from aiqueue.providers.stream_pieces import OddPiece, counts_in, index_in, object_in, text_in

#: Of a delta: where its text goes in the block, by its type. Those of tools are JSON in pieces.
_FIELDS = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}


class MessageAssembly:
    """Takes the events of one message, in their order."""

    def __init__(self) -> None:
        self._message: dict[str, Any] = {}
        self._blocks: dict[int, _Block] = {}
        self.is_complete = False  #: the message has come to its end: a reason to stop, or its last event
        self.pieces = 0  #: parts of an answer that have come
        self._spoke_on = False  # behind its end

    @property
    def said(self) -> bool:
        """Whether anything of an answer has come."""
        return any(block.parts for block in self._blocks.values())

    @property
    def has_all(self) -> bool:
        """Whether all of the message has come."""
        return self.said and self.is_complete and not self._spoke_on

    def add(self, event: dict[str, Any]) -> None:
        """Take the next event. Those of unknown types are passed over, as the format asks for."""
        match event.get("type"):
            case "message_start":
                self._message = dict(object_in(event, "message"))
            case "content_block_start":
                self._begin(index_in(event), object_in(event, "content_block"))
            case "content_block_delta":
                self._begun(index_in(event)).add(object_in(event, "delta"))
                self.pieces += 1
                self._spoke_on = self._spoke_on or self.is_complete
            case "message_delta":
                usage = counts_in(self._message)
                said = counts_in(event).items()
                # In place: however many events come, none copies all before it. A count that is null says nothing new.
                usage.update((name, count) for name, count in said if count is not None)
                delta = object_in(event, "delta")
                # Nor does a reason to stop that is null or empty take back the one before.
                self._message |= {name: value for name, value in delta.items() if value not in (None, "")}
                self._message["usage"] = usage
                self.is_complete = self.is_complete or bool(delta.get("stop_reason"))
            case "message_stop":
                self.is_complete = bool(self._message)

    def _begin(self, index: int, start: dict[str, Any]) -> None:
        if index in self._blocks:
            raise OddPiece(f"block {index} begins twice")
        if not text_in(start, "type"):
            raise OddPiece(f"block {index} begins without a type")
        self._blocks[index] = _Block(start)

    def _begun(self, index: int) -> _Block:
        if index not in self._blocks:
            raise OddPiece(f"block {index} goes on and never began")
        return self._blocks[index]

    def body(self) -> dict[str, Any]:
        """Return what has come so far as a ``message``."""
        content = [block.whole() for _, block in sorted(self._blocks.items())]
        return {**self._message, "content": content}


class _Block:
    def __init__(self, start: dict[str, Any]) -> None:
        self._start = start
        self.parts: list[tuple[str, str]] = []  # field of the block, text

    def add(self, delta: dict[str, Any]) -> None:
        kind = text_in(delta, "type")
        if kind == "input_json_delta":
            self.parts.append(("input", text_in(delta, "partial_json")))
        elif field := _FIELDS.get(kind):
            text_in(self._start, field)  # what it is added to
            self.parts.append((field, text_in(delta, field)))

    def whole(self) -> dict[str, Any]:
        block = dict(self._start)
        for field in {field for field, _ in self.parts}:
            text = "".join(part for its_field, part in self.parts if its_field == field)
            if field != "input":
                block[field] = (block.get(field) or "") + text
            elif text or "input" not in block:  # what stood at the block's beginning may be all
                block["input"] = _object_of(text)
        return block


def _object_of(text: str) -> Any:
    """Return a tool's input, or {} if it broke off: half an argument is worse than none. Raises TooDeep."""
    try:
        return read_json(encodable_text(text).encode()) if text else {}
    except TooDeep:
        raise
    except ValueError:
        return {}
