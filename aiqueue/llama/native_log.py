"""llama.cpp's own log: kept off the screen, its last complaints at hand for an error message."""

from __future__ import annotations

import ctypes
from collections import deque

import llama_cpp

_WARNING = 3  # ggml_log_level; llama-cpp-python's table of these numbers is off by one
_complaints: deque[str] = deque(maxlen=8)


def _keep(level: int, text: bytes, _: ctypes.c_void_p) -> None:
    if level >= _WARNING:
        _complaints.append(text.decode("utf-8", errors="replace").strip())


_callback = llama_cpp.llama_log_callback(_keep)  # held for ever: C keeps a bare pointer to it


def capture_native_log() -> None:
    """Send llama.cpp's log here instead of to stderr, for the whole process."""
    llama_cpp.llama_log_set(_callback, ctypes.c_void_p(0))


def take_complaints() -> str:
    """Return the last warnings and errors since the last call, in one line, oldest first."""
    complaints = [line for line in _complaints if line]
    _complaints.clear()
    return "; ".join(complaints)
