"""A model file in memory, through llama-cpp-python's low-level API: its weights, vocabulary and chat template."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import Any, cast

import llama_cpp

from aiqueue.llama.model_file import BadModelFile, ModelNotReady, check_model_file
from aiqueue.llama.native_log import capture_native_log, take_complaints

_PIECE_BYTES = 64  # most tokens are far shorter; a longer one is asked for again
_NO_MEMORY = re.compile(r"out of memory|alloc", re.IGNORECASE)  # what llama.cpp says of RAM and of a GPU's
_started = False


class NativeModel:
    """Weights and vocabulary. Its methods may be called from any thread until it is closed."""

    def __init__(self, path: Path, *, gpu_layers: int) -> None:
        """Load the GGUF file at ``path``. Raises BadModelFile saying why it can't be, or ModelNotReady."""
        check_model_file(path)
        _start_llama_cpp()
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = gpu_layers if gpu_layers >= 0 else 0x7FFFFFFF
        take_complaints()
        self.handle = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        if not self.handle:
            raise load_error(f"model file {path} does not load", take_complaints())
        self.path = path
        self.vocab: Any = llama_cpp.llama_model_get_vocab(self.handle)
        self.vocab_size = int(llama_cpp.llama_vocab_n_tokens(self.vocab))
        self.can_generate = self._generates()
        self._pieces: dict[int, bytes] = {}

    def tokenize(self, text: str, *, begin: bool = True, markers: bool = False) -> tuple[int, ...]:
        """Return the tokens of ``text``: with ``begin`` behind those the model wants at a beginning.

        With ``markers`` the texts of special tokens become those tokens, else they stay plain text.
        """
        data = text.encode()
        room = len(data) + 16
        while True:
            buffer = (llama_cpp.llama_token * room)()
            count = llama_cpp.llama_tokenize(self.vocab, data, len(data), buffer, room, begin, markers)
            if count >= 0:
                return tuple(buffer[:count])
            room = -count

    def piece(self, token: int) -> bytes:
        """Return the token's text; one that only marks something has none."""
        found = self._pieces.get(token)
        if found is None:
            found = self._pieces[token] = self._read_piece(token, _PIECE_BYTES, special=False)
        return found

    def marker(self, token: int) -> str:
        """Return the text of a special token; empty for -1, which stands for none."""
        return self._read_piece(token, _PIECE_BYTES, special=True).decode(errors="replace") if token >= 0 else ""

    def _read_piece(self, token: int, room: int, *, special: bool) -> bytes:
        buffer = ctypes.create_string_buffer(room)
        # The stubs of the package ask for a char*, which is what a string buffer is.
        count = llama_cpp.llama_token_to_piece(self.vocab, token, cast(Any, buffer), room, 0, special)
        return buffer.raw[:count] if count >= 0 else self._read_piece(token, -count, special=special)

    def is_end(self, token: int) -> bool:
        """Tell whether ``token`` ends an answer."""
        return bool(llama_cpp.llama_vocab_is_eog(self.vocab, token))

    @property
    def begin_marker(self) -> str:
        """Text of the token that begins a text."""
        return self.marker(llama_cpp.llama_vocab_bos(self.vocab))

    @property
    def end_marker(self) -> str:
        """Text of the token that ends a text."""
        return self.marker(llama_cpp.llama_vocab_eos(self.vocab))

    @property
    def chat_template(self) -> str | None:
        """The Jinja template in the file, if it has one."""
        found = llama_cpp.llama_model_chat_template(self.handle, None)
        return found.decode(errors="replace") if found else None

    @property
    def remembers_by_position(self) -> bool:
        """Whether a sequence can be cut or shared at any token; recurrent models keep only one state of each."""
        return not (llama_cpp.llama_model_is_recurrent(self.handle) or llama_cpp.llama_model_is_hybrid(self.handle))

    def _generates(self) -> bool:
        """Tell whether tokens follow from those before them. llama.cpp ascribes a decoder to models of vectors too."""
        if llama_cpp.llama_model_has_encoder(self.handle) or not llama_cpp.llama_model_has_decoder(self.handle):
            return False
        return self._said(f"{self._said('general.architecture')}.attention.causal") != "false"

    def _said(self, key: str) -> str:
        """Return what the file's metadata say under ``key``; empty if nothing."""
        value = ctypes.create_string_buffer(_PIECE_BYTES)
        llama_cpp.llama_model_meta_val_str(self.handle, key.encode(), cast(Any, value), _PIECE_BYTES)
        return value.value.decode(errors="replace")

    def close(self) -> None:
        """Free the weights. Its contexts must be closed before."""
        if self.handle:
            llama_cpp.llama_model_free(self.handle)
            self.handle = None


def load_error(message: str, complaints: str) -> BadModelFile | ModelNotReady:
    """Return the error for what llama.cpp could not load: memory may be free later, what is in a file stays."""
    kind = ModelNotReady if _NO_MEMORY.search(complaints) else BadModelFile
    return kind(f"{message}: {complaints or 'llama.cpp does not say why'}")


def _start_llama_cpp() -> None:
    global _started
    capture_native_log()
    if not _started:
        llama_cpp.llama_backend_init()
        _started = True
