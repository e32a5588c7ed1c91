"""Reading the journal when the queue's process starts, and again and again when it is started anew.

An actor whose constructor raises is dead for good: Ray starts it no more, and gives its name away. At the first start
that is right, since whoever starts the system is told why. Later nobody is there to hear it, and the cause may pass or
be mended: a full disk, a volume that is not mounted yet, a predecessor that still holds the lock, a node that is away
with the journal on its disk.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

from actors import cluster, known_journals
from aiqueue.config import Settings
from aiqueue.engine import QueueEngine
from aiqueue.journal.identity import Expected, JournalNotHere, KnownJournal, made_at
from aiqueue.journal.sqlite import SqliteJournal
from aiqueue.journal_info import JournalInfo
from aiqueue.service.clock import Clock
from aiqueue.service.recovery import load_engine

_log = logging.getLogger(__name__)
_FIRST_WAIT_S, _MOST_WAIT_S = 0.5, 10.0


class Loaded(NamedTuple):
    """The journal, the engine as it was, and what people are told of the journal."""

    journal: SqliteJournal
    engine: QueueEngine
    info: JournalInfo


def load(settings: Settings, clock: Clock, *, restarted: bool = False) -> Loaded:
    """Open the journal and return it with the engine as it was. Raises StartError.

    ``restarted``: by Ray, and not by a person who could have meant a new journal, or to go on without what is lost.
    """
    namespace, node, given = settings.namespace, cluster.this_node(), settings.journal
    if not restarted:
        _tell_trouble(namespace, "")  # there may be that of an earlier queue
    new = given.new and not restarted
    known = known_journals.known_to_ray(namespace, new=new)
    expected = Expected(known, may_begin=not restarted, new=new, node=node, namespace=namespace)
    accept_loss = None if restarted else given.accept_loss
    journal = SqliteJournal(given.path, expected, durability=given.durability, accept_loss=accept_loss)
    try:
        journal.fill_log()
        engine = load_engine(settings, journal, clock)
        opened = KnownJournal(journal.id, journal.epoch, str(journal.path), node, time.time())
        cluster.tell_journal(namespace, opened)  # before anything is acknowledged
        cluster.tell_settings(namespace, settings.model_dump_json())
        return Loaded(journal, engine, _info(opened, journal.count_jobs(), len(engine.core.live)))
    except BaseException:
        journal.close()  # its lock, above all: the next try needs it
        raise


def load_again(
    settings: Settings,
    clock: Clock,
    *,
    leave: Callable[[], None],
    load: Callable[..., Loaded] = load,
    sleep: Callable[[float], None] = time.sleep,
) -> Loaded:
    """As ``load``, until it succeeds. Meanwhile the namespace's trouble says what is wrong (`cluster.trouble_of`).

    ``leave`` ends this process, for Ray to start another one: on the node that has the journal, if it is there again.
    """
    wait_s = _FIRST_WAIT_S
    while True:
        try:
            loaded = load(settings, clock, restarted=True)
        except Exception as error:
            _log.exception("the queue can't start again; next try in %g s", wait_s)
            _tell_trouble(settings.namespace, str(error) or type(error).__name__)
            is_elsewhere = isinstance(error, JournalNotHere) and error.node not in ("", cluster.this_node())
        else:
            _tell_trouble(settings.namespace, "")
            return loaded
        sleep(wait_s)
        wait_s = min(2 * wait_s, _MOST_WAIT_S)
        if is_elsewhere and wait_s == _MOST_WAIT_S:
            leave()


def _info(opened: KnownJournal, jobs: int, open_jobs: int) -> JournalInfo:
    made = made_at(opened.id)
    return JournalInfo(
        id=opened.id,
        path=opened.path,
        node=opened.node,
        made_at=datetime.fromtimestamp(made, UTC) if made else None,
        opened_at=datetime.fromtimestamp(opened.at, UTC),
        jobs=jobs,
        open_jobs=open_jobs,
    )


def _tell_trouble(namespace: str, trouble: str) -> None:
    try:
        cluster.tell_trouble(namespace, trouble)
    except Exception:  # a constructor that raises would be the end of the queue
        _log.exception("Ray could not be told how the queue's start goes")
