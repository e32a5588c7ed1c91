"""How many host names a worker looks up at once."""

from __future__ import annotations

import os

_THREADS = "256"  # a worker's slots, twice and more; those that wait cost a stack each, of which little is touched


def look_up_many_at_once() -> None:
    """Let no provider whose name resolves slowly hold up the names of others. Call it before the first look-up.

    uvloop looks names up in the threads of libuv, on half of them at most. There are four by default: two names of a
    resolver that doesn't answer, and the calls of every other provider wait until they time out. A number that is set
    already stays.
    """
    os.environ.setdefault("UV_THREADPOOL_SIZE", _THREADS)
