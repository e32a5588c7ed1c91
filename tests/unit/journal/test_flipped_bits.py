"""A database in which one bit is flipped opens, or is refused with a sentence that names the file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiqueue.engine.effects import Rows
from aiqueue.errors import StartError
from aiqueue.journal.head import head_path
from aiqueue.journal.sqlite import SqliteJournal
from tests.tools.killed_journal import open_unsealed


class Killed:
    """A journal whose queue was killed: nothing says what its database file was like."""

    def __init__(self, path: Path) -> None:
        self.path = path
        journal = open_unsealed(path)
        journal.commit(Rows(jobs=[(1, "job-1", b"header", b"payload")], counters=b"totals"))
        self.id = journal.id
        journal.close()
        self.content, self._head = path.read_bytes(), head_path(path).read_bytes()

    def places(self, text: bytes) -> Iterator[int]:
        """Yield the place of each byte of ``text`` where the file has it."""
        for found in re.finditer(re.escape(text), self.content):
            yield from range(found.start(), found.end())

    def refusal(self, at: int, bit: int) -> str:
        """Flip a bit and open the journal; return why it was refused, empty if it was not."""
        flipped = bytearray(self.content)
        flipped[at] ^= 1 << bit
        self.path.write_bytes(flipped)
        head_path(self.path).write_bytes(self._head)
        try:
            SqliteJournal(self.path, durability="off").close()
        except StartError as error:
            return str(error)
        return ""


@pytest.fixture
def killed(tmp_path: Path) -> Killed:
    """Return a journal of one job."""
    return Killed(tmp_path / "journal.db")


@pytest.mark.parametrize("bit", [0, 5, 7])  # another letter, the other case, no UTF-8
@pytest.mark.parametrize(
    "word", [b"CREATE TABLE counters", b"progress BLOB NOT NULL", b"ended_at REAL", b"'dead_letter'"]
)
def test_a_bit_flipped_in_the_words_of_the_schema_is_refused_with_a_sentence(
    killed: Killed, word: bytes, bit: int
) -> None:
    refused = [killed.refusal(at, bit) for at in killed.places(word)]
    assert len(refused) >= len(word)
    assert [refusal for refusal in refused if f"{killed.path} is damaged" not in refusal] == []


def test_any_bit_flipped_in_the_row_of_the_counters_is_refused_with_a_sentence_or_does_no_harm(killed: Killed) -> None:
    (body,) = re.finditer(b"totals" + re.escape(killed.id.encode()), killed.content)
    types = range(body.start() - 12, body.start())
    rest = range(body.start(), body.end() + 3)  # the columns: no UTF-8, another letter or number
    refused = [
        killed.refusal(at, bit) for row, bits in ((types, range(8)), (rest, (0, 7))) for at in row for bit in bits
    ]
    assert all(str(killed.path) in refusal for refusal in refused if refusal)
    assert sum("is damaged" in refusal for refusal in refused) >= len(killed.id)
