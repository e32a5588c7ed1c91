"""How long a provider asks us to wait, read from the headers of its answer.

The headers, the most exact first: ``retry-after-ms``; ``retry-after`` (seconds or an HTTP date, RFC 9110);
``x-ratelimit-reset-{requests,tokens}`` (durations such as ``6m0s``; OpenAI and most servers that copy it);
``anthropic-ratelimit-*-reset`` (RFC 3339 dates).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MAX_WAIT_S = 3_600.0  #: a provider that says more (or whose clock is wrong) is asked again after this long
MAX_CHARS = 1_000  #: a header's value that is longer is no wait, and is not read

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)?")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "": 1.0}
_ALL_DIGITS = re.compile(r"\s*[0-9]+(?:\.[0-9]*)?\s*")
# float() takes 1_0 and other scripts' digits too. One way only to match each text: no backtracking over long ones.
_NUMBER = re.compile(r"\s*[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\s*")
_RESET = re.compile(r"x-ratelimit-reset-(.+)|anthropic-ratelimit-(.+)-reset")


def retry_after_s(headers: Mapping[str, str], *, now: float) -> float | None:
    """Return the wait in seconds that a 429's ``headers`` ask for (0 to ``MAX_WAIT_S``), None if they ask for none.

    ``now`` is the time in seconds since the epoch that dates are compared with.
    """
    wait = asked_wait_s(headers, now=now)
    return wait if wait is not None else _until_reset_s(headers, now)


def asked_wait_s(headers: Mapping[str, str], *, now: float) -> float | None:
    """Return what ``retry-after-ms`` or ``retry-after`` ask for.

    Unlike the reset headers, which are sent with every answer, these mean the same on a 503 as on a 429.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return _bounded(milliseconds / 1_000)
    text = _short(headers.get("retry-after"))
    seconds = _number(text)
    if seconds is None:
        seconds = _seconds_until(text, now)
    return None if seconds is None else _bounded(seconds)


def duration_s(text: str) -> float | None:
    """Return the seconds in a duration of Go's form; a bare number is seconds.

    >>> duration_s("1h2m3.5s"), duration_s("20ms"), duration_s("soon")
    (3723.5, 0.02, None)
    """
    parts = _DURATION.findall(_short(text))
    if not parts or "".join(number + unit for number, unit in parts) != text.strip():
        return None
    return sum(float(number) * _UNIT_S[unit] for number, unit in parts)


def _until_reset_s(headers: Mapping[str, str], now: float) -> float | None:
    # A limit that is used up must reset before anything works: wait for the last of those. If none says that it is
    # used up, the request was just too big for what is left; the first reset is the first chance, at the price of one
    # more refusal.
    resets = list(_resets(headers, now))
    exhausted = [wait for wait, used_up in resets if used_up]
    if exhausted:
        return _bounded(max(exhausted))
    return _bounded(min(wait for wait, _ in resets)) if resets else None


def _resets(headers: Mapping[str, str], now: float) -> Iterator[tuple[float, bool]]:
    # httpx looks through all headers for each that is asked for, and servers may send thousands.
    by_name = {name.lower(): _short(text) for name, text in headers.items()}
    for name, text in by_name.items():
        found = _RESET.fullmatch(name)
        if found is None:
            continue
        wait = duration_s(text) if found[1] else _seconds_until(text, now)
        if wait is not None:
            yield wait, _number(by_name.get(name.replace("reset", "remaining"))) == 0


def _short(text: str | None) -> str:
    return text if text and len(text) <= MAX_CHARS else ""


def _number(text: str | None) -> float | None:
    text = _short(text)
    if not _NUMBER.fullmatch(text):
        return None
    number = float(text)
    # Digits that overflow ask for a long wait, and are no date. 1e400, infinity and NaN ask for none.
    return number if math.isfinite(number) or _ALL_DIGITS.fullmatch(text) else None


def _seconds_until(text: str, now: float) -> float | None:
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            moment = read(text)
            # A date without a zone is UTC in both formats, not local time.
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now
        except (ValueError, OverflowError):
            continue
    return None


def _bounded(wait_s: float) -> float:
    return min(max(wait_s, 0.0), MAX_WAIT_S)
