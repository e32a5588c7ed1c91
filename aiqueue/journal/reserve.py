"""Room on the disk that is kept for the ends of running jobs.

On a full disk nothing can be written, not even that a call, perhaps a paid one, has come to its end. So some room is
taken in advance, as a file beside the journal. When the disk is full that file goes, what runs can end in its place,
and nothing new is accepted until the room is there again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from pathlib import Path

_BYTES = 8 * 2**20
_PROBE_BYTES = 2**20  # more than a commit of running jobs' ends usually has
_FULL = {errno.ENOSPC, errno.EDQUOT}
_AGAIN_S = 1.0  # between two tries to have the room back


class Reserve:
    """The room kept beside the journal at ``path``; none of its methods raises."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + ".reserve")
        self._next_try_at = 0.0
        self._held = self._take()

    def is_held(self) -> bool:
        """Tell whether the room is there; try to have it back if it is not."""
        now = time.monotonic()
        if not self._held and now >= self._next_try_at:
            self._next_try_at = now + _AGAIN_S
            self._held = self._take()
        return self._held

    def release(self) -> None:
        """Give the room away."""
        self._held = False
        self._next_try_at = time.monotonic() + _AGAIN_S
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def fits_more(self) -> bool:
        """Return True if the disk takes more. It writes to find out: nothing else shows that a quota is used up."""
        probe = self._path.with_suffix(".probe")
        try:
            probe.write_bytes(bytes(_PROBE_BYTES))
        except OSError as error:
            return error.errno not in _FULL
        finally:
            with contextlib.suppress(OSError):
                probe.unlink()
        return True

    def _take(self) -> bool:
        try:
            if _free_bytes(self._path.parent) < 2 * _BYTES and not self._path.exists():
                return False  # it would be gone again with the next few jobs
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                _allocate(file)
            finally:
                os.close(file)
        except OSError as error:
            self.release()
            # A file system that can't do this has room all the same; then the journal goes without a reserve.
            return error.errno not in _FULL
        return True


def _allocate(file: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, _BYTES)
    elif os.fstat(file).st_size < _BYTES:
        os.pwrite(file, bytes(_BYTES), 0)


def _free_bytes(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize
