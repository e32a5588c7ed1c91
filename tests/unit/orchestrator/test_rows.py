"""Payloads in the lines of a file, as editors and shells of different systems write them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiqueue.errors import ValidationError
from aiqueue.orchestrator.rows import json_lines, read_rows
from aiqueue.testing.jobs import chat

PAYLOADS = [chat("größe"), chat("b")]
LINES = "".join(f"{json.dumps(payload, ensure_ascii=False)}\n" for payload in PAYLOADS)
MARK = "\ufeff"


@pytest.mark.parametrize(
    "text",
    [
        LINES,
        MARK + LINES,
        MARK + LINES.replace("\n", "\r\n"),
        f"{MARK}\n{LINES}",
        MARK + LINES.replace("\n", f"\n{MARK}"),
    ],
    ids=["plain", "mark", "crlf", "mark alone", "files joined"],
)
def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(text.encode())
    assert list(read_rows(path)) == PAYLOADS


def test_a_file_with_a_byte_order_mark_alone_has_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(MARK.encode())
    assert list(read_rows(path)) == []


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("text", [LINES, f"\n{LINES}", MARK + LINES])
def test_a_file_in_utf_16_is_refused_by_that_name(tmp_path: Path, encoding: str, text: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(text.encode(encoding))
    with pytest.raises(ValidationError, match=r"rows\.jsonl:\d: .*UTF-16 or UTF-32: save the file as UTF-8") as refused:
        list(read_rows(path))
    assert len(str(refused.value)) < len(str(path)) + 150


@given(
    payloads=st.lists(st.dictionaries(st.text(max_size=3), st.text(max_size=5), max_size=3), max_size=5),
    marked=st.booleans(),
)
def test_lines_in_are_the_same_payloads_out(payloads: list[dict[str, str]], marked: bool) -> None:
    text = "".join(f"{json.dumps(payload, ensure_ascii=False)}\n" for payload in payloads)
    try:
        lines = (MARK * marked + text).encode().splitlines(keepends=True)
    except UnicodeEncodeError:  # half a surrogate pair is no UTF-8
        return
    assert list(json_lines(lines, "rows")) == payloads
