"""Pages of a real journal that are overwritten under it, as a disk does that lost or mixed up what it was given."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from aiqueue.journal.sqlite import SqliteJournal

PAGE = 8_192
_NO_SUCH_PAGE = (0x7FFF_FFF0).to_bytes(4, "big")


def fold(journal: SqliteJournal) -> None:
    """Bring all that was committed into the database file."""
    busy, _, _ = journal._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert not busy


def forget_cache(journal: SqliteJournal) -> None:
    """Let both connections read the file anew."""
    journal._reader.close()
    journal._writer.close()
    journal._writer = sqlite3.connect(journal.path, isolation_level=None, check_same_thread=False)
    journal._reader = sqlite3.connect(journal.path, isolation_level=None, check_same_thread=False)


def overwrite(journal: SqliteJournal, page: int, content: bytes) -> None:
    """Overwrite the head of a page; the first is number 0."""
    fold(journal)
    with journal.path.open("r+b") as file:
        file.seek(page * PAGE)
        file.write(content)
    forget_cache(journal)


def break_chain(journal: SqliteJournal, fill: bytes) -> None:
    """Let one of the overflow pages that hold a long text of ``fill`` lead to a page that does not exist."""
    fold(journal)
    content = journal.path.read_bytes()
    for page in range(len(content) // PAGE):
        following, body = content[page * PAGE :][:4], content[page * PAGE + 4 : (page + 1) * PAGE]
        if body.count(fill) == len(body) and any(following):
            overwrite(journal, page, _NO_SUCH_PAGE)
            return
    raise AssertionError(f"no overflow page is full of {fill!r}")


def alter(journal: SqliteJournal, table: str, text: bytes, other: bytes) -> None:
    """Overwrite a text in a table, and not in its indexes."""
    for page in pages_of(journal, table):
        content = journal.path.read_bytes()[page * PAGE : (page + 1) * PAGE]
        if text in content:
            overwrite(journal, page, content.replace(text, other))
            return
    raise AssertionError(f"{table} has no {text!r}")


def pages_of(journal: SqliteJournal, name: str) -> list[int]:
    """Return the pages of a table or index, overflow pages not among them."""
    fold(journal)
    content = journal.path.read_bytes()
    with closing(sqlite3.connect(journal.path)) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (name,)).fetchone()
    return list(_tree(content, root - 1))


def _tree(content: bytes, page: int) -> list[int]:
    """Return a page of a b-tree and all below it (https://www.sqlite.org/fileformat2.html#b_tree_pages)."""
    at = page * PAGE
    kind, cells = content[at], int.from_bytes(content[at + 3 : at + 5], "big")
    found = [page]
    if kind in (2, 5):
        below = [int.from_bytes(content[at + 8 : at + 12], "big")]
        for cell in range(cells):
            place = at + int.from_bytes(content[at + 12 + 2 * cell :][:2], "big")
            below.append(int.from_bytes(content[place : place + 4], "big"))
        for number in below:
            found += _tree(content, number - 1)
    return found
