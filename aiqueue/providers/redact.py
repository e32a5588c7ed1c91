"""Makes a provider's words safe to keep: no key in them, on one line, of bounded length."""

from __future__ import annotations

import re

MAX_CHARS = 2_000  #: an error travels with every event and lies in the journal
_MAX_SCANNED = 4 * MAX_CHARS  # what is cut anyway need not be searched

_REDACTED = "[redacted]"
_KEY_LIKE = re.compile(
    r"""
    \bbearer\s+\S+                                      # an Authorization header
    | \b(?:sk|pk|rk|gsk|xai|hf|ghp|glpat|xox[a-z])[-_][\w*.-]{6,}   # the prefixes of well-known services
    | \bAIza[\w-]{10,} | \bAKIA[A-Z0-9]{12,}            # Google, AWS
    | \beyJ[\w-]{8,}(?:\.[\w-]+)*                       # a JSON Web Token
    | (?<=://)[^/\s@]+(?=@)                             # user:password in a URL
    | (?:api[\ _-]?key|\bkey|authorization|\btoken|secret|password)\b   # named as what it is
      [^\n:=]{0,20}[:=]\s*["']?(?:b(?:earer|asic)\s+)?[^\s"',;&]+
    """,
    re.IGNORECASE | re.VERBOSE,
)


def safe_text(text: str, *, secret: str = "", limit: int = MAX_CHARS) -> str:
    """Return ``text`` with whatever looks like a key taken out, ``secret`` too, in at most ``limit`` characters.

    >>> safe_text("Incorrect API key provided: sk-proj-123456789")
    'Incorrect [redacted]'
    """
    text = text[:_MAX_SCANNED]
    if secret:
        text = text.replace(secret, _REDACTED)
    text = " ".join(_KEY_LIKE.sub(_REDACTED, text).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
