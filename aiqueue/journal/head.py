"""A small file beside the database that knows the last commit that was acknowledged.

SQLite drops the end of a WAL that is torn or has a flipped bit, without a word: what comes after the damage was
never there, as far as it can tell. So the number of each commit is kept here too, outside the database, before the
commit is acknowledged. At the next start the two are compared.

While the queue runs, the record is overwritten in place, in mapped memory, and not synced, which costs 2 µs (a write to
the file would give each sync of the database a second file to see to: 20 µs). It survives the death of the process; a
power cut can leave an older record, which then promises less than the database holds, never more.
"""

from __future__ import annotations

import mmap
import os
import re
import zlib
from pathlib import Path
from typing import NamedTuple

_RECORD_BYTES = 256
_RECORDS = 2  # written in turn: a process that is killed in the middle of one leaves the other
_READ_BYTES = 2**20
_LINE = re.compile(
    r"aiqueue journal (?P<id>[0-9a-f]+) epoch (?P<epoch>[0-9]+) commit (?P<commit>[0-9]+) "
    r"sum (?P<sum>\w+|-) \| (?P<crc>[0-9a-f]{8})\s*"
)


class Mark(NamedTuple):
    """How far a journal has come."""

    id: str  #: of the journal; made once, random
    epoch: int  #: starts so far: each gives the right to write to itself and takes it from the one before
    commit: int  #: transactions so far
    checksum: str = ""  #: of the database file, if it was closed after this commit


def head_path(path: Path) -> Path:
    """Return where the head of the journal at ``path`` lies."""
    return path.with_name(path.name + ".head")


def read_mark(path: Path) -> Mark | None:
    """Return the mark of the journal at ``path``; None if there is none. Raises ValueError for one that is damaged."""
    try:
        text = head_path(path).read_bytes()
    except FileNotFoundError:
        return None
    marks = [mark for at in range(_RECORDS) if (mark := _parse(text[at * _RECORD_BYTES : (at + 1) * _RECORD_BYTES]))]
    if not marks:
        raise ValueError(f"{head_path(path)} is damaged")
    return max(marks, key=lambda mark: mark[1:3])


def checksum_of(path: Path) -> str:
    """Return a checksum of a file's content and length: about 0.3 s for a gigabyte that is in memory."""
    crc, size = 0, 0
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            crc, size = zlib.crc32(block, crc), size + len(block)
    return f"{crc:08x}x{size}"


class Head:
    """The head of one journal, open for writing."""

    def __init__(self, path: Path, mark: Mark) -> None:
        """Write ``mark`` and wait until it, and the file's name, are on disk. Raises OSError."""
        file = os.open(head_path(path), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if os.fstat(file).st_size != _RECORDS * _RECORD_BYTES:
                os.ftruncate(file, 0)
                os.pwrite(file, bytes(_RECORDS * _RECORD_BYTES), 0)  # on disk below: no later write finds it full
            self._memory = mmap.mmap(file, _RECORDS * _RECORD_BYTES)
            self.write(mark)
            os.fsync(file)
        finally:
            os.close(file)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def write(self, mark: Mark) -> None:
        """Overwrite all that was known, and wait until it is on disk: no power cut takes a start. Raises OSError."""
        self._prefix = f"aiqueue journal {mark.id} epoch {mark.epoch} commit ".encode()
        self._prefix_crc = zlib.crc32(self._prefix)
        for at in range(_RECORDS):
            self._put(at, b"%d sum %b | " % (mark.commit, (mark.checksum or "-").encode()))
        self._memory.flush()

    def advance(self, commit: int) -> None:
        """Note the commit that is about to be acknowledged."""
        self._put(commit % _RECORDS, b"%d sum - | " % commit)

    def close(self) -> None:
        """Let go of the file."""
        self._memory.close()

    def _put(self, at: int, text: bytes) -> None:
        record = b"%b%b%08x\n" % (self._prefix, text, zlib.crc32(text, self._prefix_crc))
        self._memory[at * _RECORD_BYTES : (at + 1) * _RECORD_BYTES] = record.ljust(_RECORD_BYTES)


def _parse(record: bytes) -> Mark | None:
    found = _LINE.fullmatch(record.decode("ascii", "replace"))
    if found is None or int(found["crc"], 16) != zlib.crc32(record[: found.start("crc")]):
        return None
    return Mark(found["id"], int(found["epoch"]), int(found["commit"]), found["sum"].removeprefix("-"))
