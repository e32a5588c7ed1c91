"""Fetching a model file: once per node, whole or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from aiqueue.llama.model_file import BadModelFile, ModelNotReady, unusable

_log = logging.getLogger(__name__)

TOKEN_VARIABLE = "HF_TOKEN"  #: environment variable on the workers, for repositories that want one
_BLOCK_BYTES = 1 << 20
_FOR_NOW = frozenset({408, 425, 429})  # and 5xx: answers of a server that may give the file later
_TIMEOUT = httpx.Timeout(30.0)  # without a byte, not for all of it


def fetch_once(url: str, target: Path, *, sha256: str) -> None:
    """Return when ``target`` is there; fetch it from ``url`` if it is not. Blocks, also while another process does.

    Raises BadModelFile if it can't be had, or is not the file whose checksum was given; ModelNotReady if it can't be
    had now: no network, a server that is busy, a disk that is full.
    """
    if target.exists():
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.with_name(target.name + ".lock")):
            if not target.exists():  # another process may have brought it while this one waited
                _log.info("fetching %s", url)
                _fetch(url, target, sha256)
    except OSError as error:
        raise unusable(f"{target} can't be written", error) from None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    # The kernel lets go of this lock when its process dies, however it does.
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch(url: str, target: Path, sha256: str) -> None:
    part = target.with_name(target.name + ".part")
    try:
        found = _download(url, part)
        if found != sha256:
            raise BadModelFile(f"{url} has the SHA-256 {found}, not {sha256} as configured")
        os.replace(part, target)
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        kind = ModelNotReady if status in _FOR_NOW or status >= 500 else BadModelFile
        raise kind(f"{url} answered HTTP {status}{_advice(error.response)}") from None
    except httpx.HTTPError as error:
        lasting = isinstance(error, httpx.UnsupportedProtocol | httpx.TooManyRedirects)
        raise (BadModelFile if lasting else ModelNotReady)(
            f"{url} can't be fetched from this node ({type(error).__name__}: {error}); "
            f"where there is no network, put the file at {target}"
        ) from None
    finally:
        part.unlink(missing_ok=True)


def _advice(response: httpx.Response) -> str:
    if response.status_code in (401, 403):
        return f": set {TOKEN_VARIABLE} on the workers to a token that may read it"
    return ""


def _download(url: str, part: Path) -> str:
    """Write what ``url`` has to ``part``; return its SHA-256."""
    token = os.environ.get(TOKEN_VARIABLE)
    headers = {"authorization": f"Bearer {token}"} if token else {}
    digest = hashlib.sha256()
    with httpx.stream("GET", url, headers=headers, follow_redirects=True, timeout=_TIMEOUT) as response:
        response.raise_for_status()
        with part.open("wb") as file:
            for block in response.iter_bytes(_BLOCK_BYTES):
                digest.update(block)
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
    return digest.hexdigest()
