"""From tokens' bytes to text that may be shown: whole characters, and nothing that may become a stop text."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextStream:
    """The text of one answer as it grows."""

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._stops = [stop for stop in stops if stop]
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._shown: list[str] = []
        self._held = ""  # may be the beginning of a stop text
        self.stopped = False  #: a stop text has come: nothing is added any more

    @property
    def text(self) -> str:
        """All that has been shown."""
        return "".join(self._shown)

    def feed(self, piece: bytes) -> str:
        """Add a token's bytes; return the text that may be shown because of it (maybe none)."""
        return self._add(self._decoder.decode(piece))

    def finish(self) -> str:
        """Return what was held back; half a character at the end becomes U+FFFD."""
        rest = self._add(self._decoder.decode(b"", final=True))
        held, self._held = self._held, ""
        return rest + self._show(held)

    def _add(self, text: str) -> str:
        if self.stopped or not text:
            return ""
        text = self._held + text
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return self._show(text[: min(found)])
        held = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - held :]
        return self._show(text[: len(text) - held])

    def _show(self, text: str) -> str:
        if text:
            self._shown.append(text)
        return text


def _overlap(text: str, stop: str) -> int:
    """Return how much of the end of ``text`` is a beginning of ``stop``, short of all of it.

    >>> _overlap("say: EN", "END")
    2
    """
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-size:])), 0)
