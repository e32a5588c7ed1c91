"""Every text of our own that a client sends, and its bounds: one table for Python, HTTP and the command line.

These texts end up in logs, tables, metrics and terminals. So none may hold a control character, a line break, a
character that turns the direction of the text around, or half of a surrogate pair. What belongs to a provider
(messages, prompts, tools) and the contents of ``metadata`` are passed on as they are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pydantic import Field
from pydantic.fields import FieldInfo

from aiqueue.errors import FieldError, ValidationError

#: Control characters, line and paragraph separators, marks and overrides of direction.
_REFUSED = r"\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
_find_refused = re.compile(f"[{_REFUSED}\ud800-\udfff]").search
PATTERN = f"^[^{_REFUSED}]*$"  #: the same for JSON Schema, whose texts have no surrogates
PATH_PATTERN = rf"^(?!\.*$)[^/{_REFUSED}]*$"  #: of a text that is a segment of a path


@dataclass(frozen=True, slots=True)
class TextBounds:
    """How long a text may be, in characters, and whether it is a segment of a path in the API. None is empty."""

    most: int
    in_path: bool = False

    def field(self, **more: Any) -> FieldInfo:
        """Return the bounds for pydantic and OpenAPI. ``clean`` goes beside it, as an ``AfterValidator``."""
        found: FieldInfo = Field(
            min_length=1, max_length=self.most, json_schema_extra={"pattern": self.pattern}, **more
        )
        return found

    @property
    def pattern(self) -> str:
        """The characters that are allowed, for JSON Schema."""
        return PATH_PATTERN if self.in_path else PATTERN

    def clean(self, text: str) -> str:
        """Return ``text``. Raises ValueError for a character that is not allowed."""
        return in_path(text) if self.in_path else clean(text)

    def check(self, field: str, text: object) -> str:
        """Return ``text``. Raises ValidationError, which names ``field``."""
        if not isinstance(text, str):
            raise ValidationError([FieldError(field, f"must be a text, not {type(text).__name__}")])
        text = plain(text)
        if not 1 <= len(text) <= self.most:
            raise ValidationError([FieldError(field, f"must have 1 to {self.most} characters, not {len(text)}")])
        try:
            return self.clean(text)
        except ValueError as error:
            raise ValidationError([FieldError(field, str(error))]) from None


TAG = TextBounds(64)  #: of a job or a batch; 32 of them
MODEL = TextBounds(256)
PROVIDER = TextBounds(64)  #: the name of an entry, also in the settings
NAME = TextBounds(256)  #: of a batch, a chain or a graph
SCHEDULE_NAME = TextBounds(256, in_path=True)
STEP = r"^[\w-]{1,64}$"  #: the name of a step of a chain or a graph, as templates can write it
BATCH_ID = TextBounds(128, in_path=True)  #: chosen by a caller in Python
RUN_ID = TextBounds(256)  #: of ``map``
IDEMPOTENCY_KEY = TextBounds(255)
SCOPE = TextBounds(128)  #: whose key it is
CRON_EXPRESSION = TextBounds(256)
TIMEZONE = TextBounds(128)
MAX_TAGS = 32
MAX_METADATA_DEPTH = 32


def plain(text: str) -> str:
    """Return a text as a plain ``str``, also one of a subclass, such as numpy's, or a member of an enum of texts.

    What the queue is sent is encoded by exact type, and calls are shared: a single text of a subclass would fail them.
    """
    return text if type(text) is str else str.__str__(text)  # str(text) of such a member is "Class.NAME"


def clean(text: str) -> str:
    r"""Return ``text``. Raises ValueError if it holds a character that does not belong into a name.

    >>> clean("größe 7 👍")
    'größe 7 👍'
    >>> clean("a\nb")
    Traceback (most recent call last):
    ValueError: holds the control character U+000A at place 1
    """
    found = None if text.isprintable() else _find_refused(text)
    if found is not None:
        raise ValueError(f"holds the control character U+{ord(found[0]):04X} at place {found.start()}")
    return text


def in_path(text: str) -> str:
    """Return ``text``. Raises ValueError if it can't be a segment of a path, or holds a control character.

    Servers and proxies take an encoded slash for a plain one, and clients remove segments of one or two dots.

    >>> in_path("a.b c?")
    'a.b c?'
    >>> in_path("a/b")
    Traceback (most recent call last):
    ValueError: holds a slash, so no address of the HTTP API would lead to it
    """
    wrong = "holds a slash" if "/" in text else "" if text.strip(".") else "has only dots"
    if wrong:
        raise ValueError(f"{wrong}, so no address of the HTTP API would lead to it")
    return clean(text)


def step(name: object) -> str:
    """Return the name of a step. Raises ValueError."""
    if not isinstance(name, str) or not re.fullmatch(STEP, name) or name.endswith("\n"):
        raise ValueError(f"must have 1 to 64 letters, digits, hyphens and underscores, not {repr(name)[:70]}")
    return plain(name)


def check_step(field: str, name: object) -> str:
    """Return the name of a step. Raises ValidationError, which names ``field``."""
    try:
        return step(name)
    except ValueError as error:
        raise ValidationError([FieldError(field, str(error))]) from None


def is_number(text: str) -> bool:
    r"""Return True for a whole number in the digits 0 to 9.

    ``str.isdigit`` also takes a superscript two, which ``int`` refuses, and the digits of other scripts.

    >>> is_number("12"), is_number("\u00b2"), is_number("\u0661"), is_number("-1"), is_number("")
    (True, False, False, False, False)
    """
    return text.isascii() and text.isdigit()


def depth_of(value: object, limit: int) -> int:
    """Return how deep lists and dicts are nested in ``value``, ``limit + 1`` for anything deeper."""
    depth, level = 0, [value]
    while depth <= limit:
        inner = [each for each in level if isinstance(each, dict | list | tuple)]
        if not inner:
            break
        depth += 1
        level = [item for each in inner for item in (each.values() if isinstance(each, dict) else each)]
    return depth
