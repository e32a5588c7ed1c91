"""What callers of the Python client give, checked where it enters: ids, cursors, counts.

Ids and cursors travel with those of other callers, or are asked for again and again, so a bad one must not get that
far. A value of a subclass, such as numpy's, is returned as a plain one: nothing else can be encoded. What only has to
be looked up may be any text: a journal may hold older ones than today's bounds allow.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from math import isfinite
from operator import index
from typing import Any, SupportsIndex
from uuid import UUID

from aiqueue.errors import FieldError, ValidationError
from aiqueue.iterables import is_iterable
from aiqueue.texts import plain
from aiqueue.views import JobInfo

MOST = 2**63 - 1  #: of a cursor: what the journal can count
_LONGEST = 1_024


def text(field: str, given: object, *, most: int = _LONGEST, at: int | None = None) -> str:
    """Return a text to look something up by. ``at`` is its row in a list. Raises ValidationError."""
    if not isinstance(given, str):
        raise _wrong(field, f"must be a text, not {type(given).__name__}", at)
    given = plain(given)
    if len(given) > most:
        raise _wrong(field, f"must have at most {most} characters, not {len(given)}", at)
    if not given.isascii():
        try:
            given.encode()
        except UnicodeEncodeError as error:
            message = f"holds half of a surrogate pair at place {error.start}, which is no character"
            raise _wrong(field, message, at) from None
    return given


def job_id(given: object, field: str = "job_id") -> str:
    """Return a job's id, given as a text, as a UUID or as what a look-up or a wait returned. Raises ValidationError."""
    if isinstance(given, JobInfo):
        given = given.job_id
    elif isinstance(given, UUID):
        given = str(given)
    if not isinstance(given, str):
        raise _wrong(field, f"must be the id of a job, which is a text, not {type(given).__name__}")
    return text(field, given)


def job_ids(given: object, field: str = "job_ids") -> list[str]:
    """Return the ids in a list, or in any iterable; see ``job_id``. Raises ValidationError, which names the place."""
    if isinstance(given, str | bytes | Mapping | JobInfo) or not is_iterable(given):
        hint = "the ids of a graph are its values()" if isinstance(given, Mapping) else "give a list, also for one"
        raise _wrong(field, f"must be a list of job ids, not {type(given).__name__}: {hint}")
    return [job_id(each, f"{field}.{at}") for at, each in enumerate(given)]


def read_here(items: Any) -> Any:
    """Return what any iterable yields as a list, read in this thread; what is refused as a list, a set too, as it is.

    For the blocking client: on its loop an iterator that uses the client, or a connection that belongs to its thread,
    would hold up everything, itself included.
    """
    return list(items) if is_to_be_read(items) else items


def is_to_be_read(items: Any) -> bool:
    """Return True for what ``read_here`` reads."""
    as_it_is = isinstance(items, str | bytes | list | tuple | set | frozenset | Mapping) or hasattr(items, "model_dump")
    return not as_it_is and is_iterable(items)


def in_order(field: str, given: object) -> None:
    """Raise ValidationError for a set: it is read in another order in each process, and here the order counts."""
    if isinstance(given, set | frozenset):
        raise _wrong(field, "must have an order, and a set has none: give a list")


def number(field: str, given: object, *, least: int = 0, most: int = MOST) -> int:
    """Return a whole number within bounds. Raises ValidationError."""
    if isinstance(given, bool) or not isinstance(given, SupportsIndex):
        raise _wrong(field, f"must be a whole number, not {type(given).__name__}")
    try:
        found = index(given)  # a plain int, also of a subclass
    except TypeError:  # of what has ``__index__`` for some values only: an array, numpy's bool
        raise _wrong(field, f"must be a whole number, not {type(given).__name__}") from None
    if not least <= found <= most:
        raise _wrong(field, f"must be a whole number from {least} to {most}")
    return found


def moment(field: str, given: object) -> float:
    """Return a time as seconds since the epoch; a time without a zone is this machine's. Raises ValidationError."""
    if not isinstance(given, datetime):
        raise _wrong(field, f"must be a datetime, not {type(given).__name__}")
    try:
        found = float(given.timestamp())
    except (ValueError, OverflowError, OSError) as error:
        raise _wrong(field, f"is no time that this machine knows: {error}") from None
    if not isfinite(found):  # pandas' NaT is a datetime
        raise _wrong(field, f"must be a time, not {given!r}")
    return found


def _wrong(field: str, message: str, at: int | None = None) -> ValidationError:
    return ValidationError([FieldError(field, message, at)])
