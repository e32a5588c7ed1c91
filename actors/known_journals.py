"""Which journal a system had: as Ray's store knows it, and as the user who starts it has noted."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from actors import cluster
from aiqueue.config import Settings
from aiqueue.errors import StartError
from aiqueue.journal.identity import KnownJournal
from aiqueue.journal.place import absolute
from aiqueue.journal.remembered import RememberedJournals

_log = logging.getLogger(__name__)


def known_to_ray(namespace: str, *, new: bool) -> KnownJournal | None:
    """Return the journal that the system had, as Ray knows it. Raises StartError for what can't be read.

    ``new``: such knowledge is replaced.
    """
    try:
        return cluster.journal_of(namespace)
    except StartError:
        if new:
            return None
        raise


def recall(settings: Settings) -> KnownJournal | None:
    """Tell Ray which journal the system had as far as this user knows, if Ray knows none or an older one; return it."""
    given, namespace, noted = settings.journal, settings.namespace, None
    try:
        noted = RememberedJournals(given.notes).of(namespace, given.path)
    except (OSError, ValueError) as error:
        _log.warning("which journal this system had is not known from journal.notes: %s", error)
    known = known_to_ray(namespace, new=given.new)
    if noted is None or (known is not None and not _is_newer(noted, known)):
        return known
    cluster.tell_journal(namespace, noted)
    return noted


def _is_newer(one: KnownJournal, other: KnownJournal) -> bool:
    """Compare two openings: of one journal by its own count, since nodes' clocks differ."""
    return one.epoch > other.epoch if one.id == other.id else one.at > other.at


def remember(settings: Settings, before: KnownJournal | None) -> None:
    """Note which journal the queue has opened; ``before``: what was known of it before the start."""
    given, known = settings.journal, cluster.journal_of(settings.namespace)
    if known is None:
        return
    if given.new and before is not None and known.id == before.id:
        _log.warning(
            "journal.new is still set (--new-journal, AIQUEUE_JOURNAL__NEW), though this system has its journal: unset "
            "it, or a start without the journal's disk begins a new one"
        )
    try:
        if absolute(_running_path(settings.namespace, given.path)) == absolute(given.path):
            RememberedJournals(given.notes).note(settings.namespace, given.path, known)
    except OSError as error:  # the system runs all the same
        _log.warning("it could not be noted which journal this system has (%s): journal.notes", error)


def _running_path(namespace: str, otherwise: Path) -> Path:
    """Return the journal's path as the queue that runs was given it: one that was found may have another one."""
    running = cluster.settings_of(namespace)
    return Path(msgspec.json.decode(running)["journal"]["path"]) if running else otherwise
