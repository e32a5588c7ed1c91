"""The file that knows the last acknowledged commit."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from aiqueue.journal.head import Head, Mark, checksum_of, head_path, read_mark

JOURNAL = "0123456789abcdef" * 2


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a journal would lie."""
    return tmp_path / "journal.db"


def test_a_journal_without_a_head_has_no_mark(path: Path) -> None:
    assert read_mark(path) is None


@pytest.mark.parametrize("commits", [0, 1, 2, 7, 8, 10**18])
def test_the_last_commit_is_what_is_read(path: Path, commits: int) -> None:
    head = Head(path, Mark(JOURNAL, 3, 0))
    for commit in range(max(0, commits - 2), commits + 1):
        head.advance(commit)
    assert read_mark(path) == Mark(JOURNAL, 3, commits)  # while it is open: nothing waits for a close
    head.close()
    assert read_mark(path) == Mark(JOURNAL, 3, commits)


def test_there_is_room_for_the_largest_numbers(path: Path) -> None:
    largest = Mark("f" * 32, 10**18, 2**63 - 1, f"{'f' * 8}x{2**63}")
    Head(path, largest).close()
    assert read_mark(path) == largest


def test_a_new_owner_replaces_all_that_the_old_one_wrote(path: Path) -> None:
    head = Head(path, Mark(JOURNAL, 3, 0))
    head.advance(98)
    head.advance(99)
    head.write(Mark(JOURNAL, 4, 50, "00c0ffeex8192"))
    assert read_mark(path) == Mark(JOURNAL, 4, 50, "00c0ffeex8192")
    head.advance(51)
    assert read_mark(path) == Mark(JOURNAL, 4, 51)
    head.close()


def test_a_record_cut_in_the_middle_leaves_the_one_before(path: Path) -> None:
    head = Head(path, Mark(JOURNAL, 1, 0))
    for commit in (4, 5):
        head.advance(commit)
    head.close()
    written = head_path(path).read_bytes()
    odd = written.index(b"commit 5")
    for at in range(odd, odd + 20):
        head_path(path).write_bytes(written[:at] + b"?" + written[at + 1 :])
        assert read_mark(path) == Mark(JOURNAL, 1, 4)


@pytest.mark.parametrize("content", [b"", b"\0" * 256, b"aiqueue journal 00 epoch 1 commit 2 sum - | 00000000\n"])
def test_a_head_that_makes_no_sense_is_an_error(path: Path, content: bytes) -> None:
    head_path(path).write_bytes(content)
    with pytest.raises(ValueError, match=r"journal\.db\.head is damaged"):
        read_mark(path)


def test_the_head_is_for_the_owner_alone_and_for_people_to_read(path: Path) -> None:
    Head(path, Mark(JOURNAL, 2, 7)).close()
    assert stat.S_IMODE(head_path(path).stat().st_mode) == 0o600
    assert head_path(path).read_text().startswith(f"aiqueue journal {JOURNAL} epoch 2 commit 7 ")


def test_a_checksum_tells_any_change_of_content_or_length(path: Path) -> None:
    path.write_bytes(bytes(100_000))
    before = checksum_of(path)
    assert before.endswith("x100000")
    path.write_bytes(bytes(50_000) + b"\x01" + bytes(49_999))
    changed = checksum_of(path)
    path.write_bytes(bytes(100_001))
    assert len({before, changed, checksum_of(path)}) == 3
