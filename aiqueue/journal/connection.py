"""How the journal opens its database."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from aiqueue.config import Durability

_SYNCHRONOUS = {"full": "FULL", "normal": "NORMAL", "off": "OFF"}
_CACHE_KIB = 32_768
_PAGE_BYTES = 8_192  # rows of a prompt each: twice the default measured 10 % faster
_FRAME_HEADER_BYTES = 24
_CHECKPOINT_PAGES = 4_000  # 32 MB: a checkpoint per some 40,000 small jobs instead of per 1,000 pages
LOG_BYTES = _CHECKPOINT_PAGES * (_PAGE_BYTES + _FRAME_HEADER_BYTES)  #: of the log when it is copied into the database
#: The log grows while another program reads the database for long (a backup). Afterwards it is cut to this.
_LOG_KEPT_BYTES = 2 * LOG_BYTES


def connect(path: Path, durability: Durability) -> sqlite3.Connection:
    """Return a connection in autocommit mode: transactions begin and end where their statements say so."""
    # Prompts and answers are for the owner's eyes; the files that SQLite puts beside this one get its mode.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=64)
    connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {_SYNCHRONOUS[durability]}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    connection.execute(f"PRAGMA journal_size_limit = {_LOG_KEPT_BYTES}")
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    return connection
