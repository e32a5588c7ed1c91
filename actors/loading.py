"""Reading the journal when the queue's process starts, and again and again when it is started anew.

An actor whose constructor raises is dead for good: Ray starts it no more, and gives its name away. At the first start
that is right, since whoever starts the system is told why. Later nobody is there to hear it, and the cause may pass or
be mended: a full disk, a volume that is not mounted yet, a predecessor that still holds the lock.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from actors import cluster
from aiqueue.config import Settings
from aiqueue.engine import QueueEngine
from aiqueue.journal.sqlite import SqliteJournal
from aiqueue.service.clock import Clock
from aiqueue.service.recovery import load_engine

_log = logging.getLogger(__name__)
_FIRST_WAIT_S, _MOST_WAIT_S = 0.5, 10.0

Loaded = tuple[SqliteJournal, QueueEngine]


def load(settings: Settings, clock: Clock) -> Loaded:
    """Open the journal and return it with the engine as it was. Raises StartError."""
    journal = SqliteJournal(
        settings.journal.path, durability=settings.journal.durability, accept_loss=settings.journal.accept_loss
    )
    try:
        journal.fill_log()
        return journal, load_engine(settings, journal, clock)
    except BaseException:
        journal.close()  # its lock, above all: the next try needs it
        raise


def load_again(
    settings: Settings,
    clock: Clock,
    *,
    load: Callable[[Settings, Clock], Loaded] = load,
    sleep: Callable[[float], None] = time.sleep,
) -> Loaded:
    """As ``load``, until it succeeds. Meanwhile the namespace's trouble says what is wrong (`cluster.trouble_of`)."""
    wait_s = _FIRST_WAIT_S
    while True:
        try:
            loaded = load(settings, clock)
        except Exception as error:
            _log.exception("the queue can't start again; next try in %g s", wait_s)
            _tell_trouble(settings.namespace, str(error) or type(error).__name__)
        else:
            _tell_trouble(settings.namespace, "")
            return loaded
        sleep(wait_s)
        wait_s = min(2 * wait_s, _MOST_WAIT_S)


def _tell_trouble(namespace: str, trouble: str) -> None:
    try:
        cluster.tell_trouble(namespace, trouble)
    except Exception:  # a constructor that raises would be the end of the queue
        _log.exception("Ray could not be told how the queue's start goes")
