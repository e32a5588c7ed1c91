"""A note beside the journal: what a process that is about to end tells the next one. Written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def note_path(path: Path) -> Path:
    """Return where the note of the journal at ``path`` lies."""
    return path.with_name(path.name + ".note")


def read_note(path: Path) -> bytes:
    """Return the note of the journal at ``path``; empty if there is none, or it can't be read."""
    try:
        return note_path(path).read_bytes()
    except OSError:
        return b""


def write_note(path: Path, body: bytes) -> None:
    """Replace the note of the journal at ``path``; it is on disk when this returns. Raises OSError."""
    note = note_path(path)
    write_whole(note, body, note.with_name(note.name + ".part"))


def write_whole(file: Path, body: bytes, unfinished: Path) -> None:
    """Replace ``file`` by way of ``unfinished`` beside it: after a power cut it is the old one or the new one."""
    part = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(part, body)
        os.fsync(part)
    finally:
        os.close(part)
    unfinished.replace(file)
