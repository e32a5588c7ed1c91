"""Server-sent events, as far as streams of answers use them: what each event says.

Read more generously than the format asks for, since what comes is paid for: the last event needs no blank line behind
it, and events that are JSON need none between them.
"""

from __future__ import annotations

import codecs
from collections.abc import AsyncIterable, AsyncIterator

DONE = b"[DONE]"  #: how streams in OpenAI's format end


async def events_of(pieces: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Yield the data of each event. One that has none, as servers send to keep a connection, is passed over."""
    data: list[bytes] = []  # of the event that has not ended yet: its JSON may stand in several lines
    async for line in lines_of(pieces):
        field, _, value = line.removeprefix(codecs.BOM_UTF8).partition(b":")
        said = value.strip() if field == b"data" else b""
        # No JSON has a { right behind a }: another event, of a server that leaves out the blank line.
        if data and (not line or said == DONE or (said.startswith(b"{") and data[-1].endswith(b"}"))):
            yield b"\n".join(data)
            data.clear()
        if said == DONE:  # at once: more may never come
            yield said
        elif said:
            data.append(said)
    if data:
        yield b"\n".join(data)


async def lines_of(pieces: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Yield the lines of a stream, which end with CR, LF or both.

    Not the SDK's: it ends lines at U+2028 and its like too, which JSON may contain.
    """
    begun: list[bytes] = []  # of the line that has not ended yet: joined once, however many pieces it comes in
    is_behind_cr = False
    async for piece in pieces:
        if not piece:
            continue
        rest = piece.removeprefix(b"\n") if is_behind_cr else piece
        is_behind_cr = piece.endswith(b"\r")
        for line in rest.splitlines(keepends=True):
            said = line.rstrip(b"\r\n")
            begun.append(said)
            if len(said) < len(line):
                yield b"".join(begun)
                begun.clear()
    yield b"".join(begun)
