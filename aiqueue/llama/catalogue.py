"""From a model's name to its file on this node. A name is looked up, it never becomes part of a path."""

from __future__ import annotations

import hashlib
from pathlib import Path

from aiqueue.llama.fetch import fetch_once
from aiqueue.llama.model_file import BadModelFile, check_model_file
from aiqueue.llama_config import ModelFileConfig, ModelsConfig

_READ_BYTES = 1 << 20


class Catalogue:
    """The models that the settings name. All files lie in one folder, on each node its own."""

    def __init__(self, config: ModelsConfig) -> None:
        self._config = config

    def __contains__(self, name: str) -> bool:
        return name in self._config.files

    def file_of(self, name: str) -> Path:
        """Return the checked file of model ``name``; one from a repository is fetched if this node has none yet.

        Blocks while it does. Raises BadModelFile saying what is wrong with the name, the file or the download;
        ModelNotReady where it is only wrong for now.
        """
        entry = self._config.files.get(name)
        if entry is None:
            known = ", ".join(sorted(self._config.files)) or "none"
            raise BadModelFile(f"no model {name!r} is in the catalogue (models.files); there are: {known}")
        folder = self._config.folder.expanduser().resolve()
        path = _fetched(folder, entry, self._config.hub_url) if entry.repo else _within(folder, entry.path or Path())
        check_model_file(path)
        if entry.sha256 and not entry.repo:  # what was fetched was checked before it got its name
            _check_sum(path, entry.sha256)
        return path


def _within(folder: Path, path: Path) -> Path:
    """Return ``path`` below ``folder``, links followed. Raises BadModelFile if it leads out of it."""
    found = (folder / path.expanduser()).resolve()
    if not found.is_relative_to(folder):
        raise BadModelFile(f"model file {path} is not in the folder of the models (models.folder: {folder})")
    return found


def _fetched(folder: Path, entry: ModelFileConfig, hub_url: str) -> Path:
    # The checksum in the name: another revision of a file is another file, and what has the name is whole.
    target = _within(folder, Path(f"{entry.sha256[:16]}-{Path(entry.file).name}"))
    url = f"{hub_url.rstrip('/')}/{entry.repo}/resolve/{entry.revision}/{entry.file}"
    fetch_once(url, target, sha256=entry.sha256)
    return target


def _check_sum(path: Path, expected: str) -> None:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    if digest.hexdigest() != expected:
        raise BadModelFile(f"model file {path} has the SHA-256 {digest.hexdigest()}, not {expected}")
