"""What is said of a file that is no model."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiqueue.llama.model_file import BadModelFile, check_model_file


def test_a_model_passes(tiny_gguf: Path) -> None:
    check_model_file(tiny_gguf)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadModelFile, match=r"model file .*/none\.gguf does not exist"):
        check_model_file(tmp_path / "none.gguf")


def test_a_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(BadModelFile, match="is a folder, not a GGUF file"):
        check_model_file(tmp_path)


@pytest.mark.parametrize("content", [b"", b"GG", b"PK\x03\x04 a zip file"])
def test_a_file_of_another_kind_is_no_model(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.gguf"
    path.write_bytes(content)
    with pytest.raises(BadModelFile, match="is not a GGUF file: it starts with"):
        check_model_file(path)


def test_a_path_below_a_file_can_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadModelFile, match="can't be read: Not a directory"):
        check_model_file(tmp_path / "file" / "model.gguf")
