"""Where a batch's payloads come from: a list, any iterable, asynchronous ones too, or a JSONL file. Read in chunks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any

import msgspec

from aiqueue.client.adapter import AnyPayload
from aiqueue.errors import FieldError, ValidationError
from aiqueue.iterables import is_iterable

Rows = Iterable[AnyPayload] | str | PathLike[str]


class Chunked(ABC):
    """Rows that come in chunks by themselves."""

    @abstractmethod
    def chunks(self) -> AsyncIterator[list[AnyPayload]]:
        """Yield the chunks."""


AnyRows = Rows | AsyncIterable[AnyPayload] | Chunked

CHUNK = 1_000
_WIDE = "has the encoding UTF-16 or UTF-32: save the file as UTF-8"


def read_rows(rows: Rows) -> Iterator[AnyPayload]:
    """Yield payloads; of a path, those in its lines (empty ones are passed over). Raises ValidationError."""
    if isinstance(rows, str | PathLike):
        yield from _lines(Path(rows))
    elif isinstance(rows, Mapping):
        raise ValidationError([FieldError("jobs", "is one payload: give a list of them")])
    elif is_iterable(rows):
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
    except (OSError, ValueError) as error:  # a path with a null character, or half of a surrogate pair
        why = error.strerror if isinstance(error, OSError) else error
        shown = str(path).encode(errors="backslashreplace").decode()
        raise ValidationError([FieldError("jobs", f"can't read {shown}: {why}")]) from None
    with file:
        yield from json_lines(file, str(path))


def json_lines(lines: Iterable[bytes], name: str) -> Iterator[dict[str, Any]]:
    """Yield the payloads in lines of UTF-8; empty lines and byte order marks are passed over.

    Raises ValidationError with ``name``, that of the file, and the number of the line.
    """
    for number, line in enumerate(lines, start=1):
        line = line.removeprefix(BOM_UTF8)  # of any line: files are joined
        if not line.strip():
            continue
        try:
            payload = msgspec.json.decode(line)
        except (ValueError, RecursionError) as error:
            wrong = _WIDE if _is_wide(line) else f"is not JSON: {error}"
            raise ValidationError([FieldError(f"{name}:{number}", wrong)]) from None
        if not isinstance(payload, dict):
            raise ValidationError([FieldError(f"{name}:{number}", "is not a JSON object, the payload of one job")])
        yield payload


def _is_wide(line: bytes) -> bool:
    """Return True for a line in UTF-16 or UTF-32: it has that mark, or zero bytes, of which JSON has none."""
    return line.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) or b"\0" in line[:4]
