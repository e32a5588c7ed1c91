"""Looks at a model file before llama.cpp does, which says only "failed to load model" whatever is wrong."""

from __future__ import annotations

import errno
import stat
from pathlib import Path

GGUF_MAGIC = b"GGUF"


_FOR_GOOD = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG})


class BadModelFile(Exception):
    """The file can't be a model; the message is a sentence for whoever configured it. Trying again can't help."""


class ModelNotReady(Exception):
    """The model can't be had now: a network, a disk or memory that may be there in a moment."""


def unusable(message: str, error: OSError) -> BadModelFile | ModelNotReady:
    """Return the error for a file that the operating system refuses: for good, or for now."""
    kind = BadModelFile if error.errno in _FOR_GOOD else ModelNotReady
    return kind(f"{message}: {error.strerror}")


def check_model_file(path: Path) -> None:
    """Return if ``path`` is a readable GGUF file. Raises BadModelFile saying what it is instead, or ModelNotReady."""
    try:
        kind = path.stat().st_mode
        if not stat.S_ISREG(kind):
            raise BadModelFile(f"{path} is {'a folder' if stat.S_ISDIR(kind) else 'no regular file'}, not a GGUF file")
        with path.open("rb") as file:
            magic = file.read(len(GGUF_MAGIC))
    except FileNotFoundError:
        raise BadModelFile(f"model file {path} does not exist") from None
    except OSError as error:
        raise unusable(f"model file {path} can't be read", error) from None
    if magic != GGUF_MAGIC:
        raise BadModelFile(f"{path} is not a GGUF file: it starts with {magic!r}, not with {GGUF_MAGIC!r}")
