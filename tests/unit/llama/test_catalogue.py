"""From names to files: within one folder, whole, and fetched once."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pydantic import ValidationError

from aiqueue.llama.catalogue import Catalogue
from aiqueue.llama.model_file import BadModelFile, ModelNotReady
from aiqueue.llama_config import ModelFileConfig, ModelsConfig

MODEL = b"GGUF" + bytes(3_000_000)
SUM = hashlib.sha256(MODEL).hexdigest()


class Hub(BaseHTTPRequestHandler):
    """Serves one file, and notes who asked."""

    asked: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers["authorization"]))
        if "secret" in self.path:
            self.send_error(401)
            return
        if "busy" in self.path:
            self.send_error(503)
            return
        if "cut" in self.path:  # the connection breaks
            self.send_response(200)
            self.send_header("content-length", str(len(MODEL)))
            self.end_headers()
            self.wfile.write(MODEL[:1_000])
            return
        self.send_response(200)
        self.send_header("content-length", str(len(MODEL)))
        self.end_headers()
        self.wfile.write(MODEL)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


@pytest.fixture
def hub() -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    Hub.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", Hub.asked
    server.shutdown()
    thread.join()
    server.server_close()


def catalogue(folder: Path, url: str = "http://127.0.0.1:9", **files: ModelFileConfig) -> Catalogue:
    return Catalogue(ModelsConfig(folder=folder, hub_url=url, files=files))


def fetched(*, sha256: str = SUM, repo: str = "who/what") -> ModelFileConfig:
    return ModelFileConfig(repo=repo, file="sub/model.gguf", sha256=sha256)


def test_a_file_in_the_folder_is_found_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(MODEL)
    models = catalogue(tmp_path, small=ModelFileConfig(path=Path("m.gguf"), sha256=SUM))
    assert models.file_of("small") == tmp_path / "m.gguf"


def test_a_name_that_is_not_in_the_catalogue_is_refused_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(BadModelFile, match=r"no model '\.\./m\.gguf' is in the catalogue .* there are: small"):
        catalogue(tmp_path, small=ModelFileConfig(path=Path("m.gguf"))).file_of("../m.gguf")


@pytest.mark.parametrize("path", ["../outside.gguf", "sub/../../outside.gguf", "link.gguf"])
def test_a_path_out_of_the_folder_is_refused(tmp_path: Path, path: str) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "outside.gguf").write_bytes(MODEL)
    (folder / "link.gguf").symlink_to(tmp_path / "outside.gguf")
    for given in (Path(path), (folder / path)):
        with pytest.raises(BadModelFile, match="is not in the folder of the models"):
            catalogue(folder, m=ModelFileConfig(path=given)).file_of("m")


def test_what_is_no_model_or_another_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(MODEL)
    (tmp_path / "other.gguf").write_bytes(b"PK")
    (tmp_path / "folder").mkdir()
    models = catalogue(
        tmp_path,
        changed=ModelFileConfig(path=Path("m.gguf"), sha256="0" * 64),
        other=ModelFileConfig(path=Path("other.gguf")),
        no_file=ModelFileConfig(path=Path("folder")),
    )
    for name, reason in (("changed", "has the SHA-256"), ("other", "not a GGUF file"), ("no_file", "is a folder")):
        with pytest.raises(BadModelFile, match=reason):
            models.file_of(name)


def test_a_file_of_a_repo_is_fetched_once_however_many_want_it(
    tmp_path: Path, hub: tuple[str, list[tuple[str, str | None]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "t")
    url, asked = hub
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(catalogue(tmp_path, url, m=fetched()).file_of("m")))
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert found[0].read_bytes() == MODEL
    assert found[0].parent == tmp_path
    assert asked == [("/who/what/resolve/main/sub/model.gguf", "Bearer t")]


def test_a_file_with_another_checksum_is_thrown_away(
    tmp_path: Path, hub: tuple[str, list[tuple[str, str | None]]]
) -> None:
    with pytest.raises(BadModelFile, match=f"has the SHA-256 {SUM}, not {'0' * 64}"):
        catalogue(tmp_path, hub[0], m=fetched(sha256="0" * 64)).file_of("m")
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_a_refusal_and_a_missing_network_say_what_to_do(
    tmp_path: Path, hub: tuple[str, list[tuple[str, str | None]]]
) -> None:
    with pytest.raises(BadModelFile, match="answered HTTP 401: set HF_TOKEN on the workers"):
        catalogue(tmp_path, hub[0], m=fetched(repo="who/secret")).file_of("m")
    with pytest.raises(ModelNotReady, match=r"can't be fetched from this node .* put the file at"):
        catalogue(tmp_path, m=fetched()).file_of("m")


@pytest.mark.parametrize(("repo", "what"), [("who/busy", "answered HTTP 503"), ("who/cut", "can't be fetched")])
def test_what_may_pass_is_told_from_what_will_not(
    tmp_path: Path, hub: tuple[str, list[tuple[str, str | None]]], repo: str, what: str
) -> None:
    models = catalogue(tmp_path, hub[0], m=fetched(repo=repo), other=fetched())
    with pytest.raises(ModelNotReady, match=what):
        models.file_of("m")
    assert models.file_of("other").read_bytes() == MODEL, "nothing half is left in its place"


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"path": "a.gguf", "repo": "who/what"},
        {"repo": "who/what", "file": "a.gguf"},
        {"repo": "who/what", "file": "../a.gguf", "sha256": SUM},
        {"repo": "who/what", "file": "/a.gguf", "sha256": SUM},
        {"repo": "../what/x", "file": "a.gguf", "sha256": SUM},
        {"repo": "who/what", "file": "a.gguf", "sha256": SUM, "revision": "../../x"},
    ],
)
def test_an_entry_that_makes_no_sense_is_refused(entry: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        ModelFileConfig.model_validate(entry)
