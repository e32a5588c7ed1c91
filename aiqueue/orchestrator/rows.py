"""Where a batch's payloads come from: a list, any iterable, asynchronous ones too, or a JSONL file. Read in chunks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any

import msgspec

from aiqueue.client.adapter import AnyPayload
from aiqueue.errors import FieldError, ValidationError

Rows = Iterable[AnyPayload] | str | PathLike[str]


class Chunked(ABC):
    """Rows that come in chunks by themselves."""

    @abstractmethod
    def chunks(self) -> AsyncIterator[list[AnyPayload]]:
        """Yield the chunks."""


AnyRows = Rows | AsyncIterable[AnyPayload] | Chunked

CHUNK = 1_000


def read_rows(rows: Rows) -> Iterator[AnyPayload]:
    """Yield payloads; of a path, those in its lines (empty ones are passed over). Raises ValidationError."""
    if isinstance(rows, str | PathLike):
        yield from _lines(Path(rows))
    elif isinstance(rows, Mapping):
        raise ValidationError([FieldError("jobs", "is one payload: give a list of them")])
    elif isinstance(rows, Iterable):
        yield from rows
    else:
        message = f"is {type(rows).__name__}: give a list or an iterator of payloads, or the path of a JSONL file"
        raise ValidationError([FieldError("jobs", message)])


def chunks(rows: Iterator[AnyPayload]) -> Iterator[list[AnyPayload]]:
    """Yield the rows in lists of 1,000 at most."""
    while chunk := list(islice(rows, CHUNK)):
        yield chunk


async def chunks_of(rows: AnyRows) -> AsyncIterator[list[AnyPayload]]:
    """Yield the rows in lists of 1,000 at most. What is not asynchronous is read on the event loop."""
    if isinstance(rows, AsyncIterable):
        chunk: list[AnyPayload] = []
        async for row in rows:
            chunk.append(row)
            if len(chunk) == CHUNK:
                yield chunk
                chunk = []
        if chunk:
            yield chunk
    elif isinstance(rows, Chunked):
        async for chunk in rows.chunks():
            yield chunk
    else:
        for chunk in chunks(read_rows(rows)):
            yield chunk


def shifted(error: ValidationError, by: int) -> ValidationError:
    """Return ``error`` of a chunk with the indexes that its rows have in the whole."""
    moved = [FieldError(item.field, item.message, by + (item.index or 0)) for item in error.errors]
    return type(error)(moved)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise ValidationError([FieldError("jobs", f"can't read {path}: {error.strerror}")]) from None
    with file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                payload = msgspec.json.decode(line)
            except (ValueError, RecursionError) as error:
                raise ValidationError([FieldError(f"{path}:{number}", f"is not JSON: {error}")]) from None
            if not isinstance(payload, dict):
                raise ValidationError([FieldError(f"{path}:{number}", "is not a JSON object, the payload of one job")])
            yield payload
