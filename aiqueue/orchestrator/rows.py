"""Where a batch's payloads come from: a list, any iterable, or a JSONL file. Read in chunks, never as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any

import msgspec

from aiqueue.client.adapter import AnyPayload
from aiqueue.errors import FieldError, ValidationError

Rows = Iterable[AnyPayload] | str | PathLike[str]

CHUNK = 1_000


def read_rows(rows: Rows) -> Iterator[AnyPayload]:
    """Yield payloads; of a path, those in its lines (empty ones are passed over). Raises ValidationError."""
    if isinstance(rows, str | PathLike):
        yield from _lines(Path(rows))
    elif isinstance(rows, Mapping):
        raise ValidationError([FieldError("jobs", "is one payload: give a list of them")])
    else:
        yield from rows


def chunks(rows: Iterator[AnyPayload]) -> Iterator[list[AnyPayload]]:
    """Yield the rows in lists of 1,000 at most."""
    while chunk := list(islice(rows, CHUNK)):
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
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise ValidationError([FieldError(f"{path}:{number}", f"is not JSON: {error}")]) from None
            if not isinstance(payload, dict):
                raise ValidationError([FieldError(f"{path}:{number}", "is not a JSON object, the payload of one job")])
            yield payload
