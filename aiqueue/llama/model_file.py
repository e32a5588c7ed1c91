"""Looks at a model file before llama.cpp does, which says only "failed to load model" whatever is wrong."""

from __future__ import annotations

import stat
from pathlib import Path

GGUF_MAGIC = b"GGUF"


class BadModelFile(Exception):
    """The file can't be a model; the message is a sentence for whoever configured it."""


def check_model_file(path: Path) -> None:
    """Return if ``path`` is a readable GGUF file. Raises BadModelFile saying what it is instead."""
    try:
        kind = path.stat().st_mode
        if not stat.S_ISREG(kind):
            raise BadModelFile(f"{path} is {'a folder' if stat.S_ISDIR(kind) else 'no regular file'}, not a GGUF file")
        with path.open("rb") as file:
            magic = file.read(len(GGUF_MAGIC))
    except FileNotFoundError:
        raise BadModelFile(f"model file {path} does not exist") from None
    except OSError as error:
        raise BadModelFile(f"model file {path} can't be read: {error.strerror}") from None
    if magic != GGUF_MAGIC:
        raise BadModelFile(f"{path} is not a GGUF file: it starts with {magic!r}, not with {GGUF_MAGIC!r}")
