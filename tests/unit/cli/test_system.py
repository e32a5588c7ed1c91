"""``aiqueue up``: what it makes of its options, and what it says."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from itertools import chain, repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aiqueue.cli import system
from aiqueue.cli.system import describe
from aiqueue.config import Settings
from aiqueue.errors import AIQueueError, IncompatibleVersion, QueueNotRunning, QueueUnavailable, ValidationError
from aiqueue.journal_info import JournalInfo
from aiqueue.testing.jobs import settings
from tests.unit.cli.conftest import Terminal


@pytest.mark.parametrize(("url", "expected"), [("http://127.0.0.1:8000", "http://127.0.0.1:8000/docs"), (None, "off")])
def test_what_came_up_is_described(url: str | None, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    made = settings(models=("model-a",)).model_copy(update={"namespace": "mine"})
    running: Any = SimpleNamespace(
        settings=made, url=url, address="127.0.0.1:6399", warning=lambda: "two nodes", elsewhere=lambda: "from X"
    )
    journal = JournalInfo(
        id="01985a3000007000800000000000ff05",
        path="/data/journal.db",
        node="h1 (10.0.0.1)",
        made_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        opened_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        jobs=12_345,
        open_jobs=7,
    )
    described = describe(running, journal)
    for part in (
        "127.0.0.1:6399, namespace mine",
        "export RAY_ADDRESS=127.0.0.1:6399 RAY_AUTH_MODE=token",
        expected,
        "sim (simulated): model-a",
        "pool: 1 x 4 jobs at once for sim",
        "/data/journal.db on h1 (10.0.0.1): id 0000ff05, made 2026-01-02 03:04 UTC, 12,345 jobs found, 7 of them not",
        "warning    two nodes",
        "             from X",
        "aiqueue submit",
    ):
        assert part in described


def test_a_model_beside_configured_providers_is_refused(
    aiqueue: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # The command sets the variable; this makes the test put it back.
    monkeypatch.setenv("AIQUEUE_CONFIG", "")
    model, config = tmp_path / "m.gguf", tmp_path / "aiqueue.toml"
    model.write_bytes(b"GGUF")
    config.write_text('[providers.sim]\nkind = "simulated"\n')
    printed = aiqueue("up", "--model", str(model), "--config", str(config))
    assert printed.exit_code == 2
    assert "providers are configured already" in printed.stderr
    assert Settings().providers  # the file is what the environment now names


def test_options_stand_in_the_places_of_their_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tmp_path / "aiqueue.toml"
    config.write_text('[providers.sim]\nkind = "simulated"\n[journal]\ndurability = "normal"\npath = "here.db"\n')
    monkeypatch.setenv("AIQUEUE_CONFIG", str(config))
    given = {"path": tmp_path / "there.db", "accept_loss": 0}
    made = system._settings(
        None, None, namespace="mine", http={"port": 0, "host": None, "hosts": ["box"]}, journal=given
    )
    assert (made.journal.path, made.journal.accept_loss, made.journal.durability) == (
        tmp_path / "there.db",
        0,
        "normal",
    )
    assert (made.namespace, made.http.port, made.http.host) == ("mine", 0, "127.0.0.1")
    assert made.http.hosts == ("box",)
    with pytest.raises(ValidationError, match=r"hosts\.0"):
        system._settings(None, None, namespace=None, http={"hosts": ["http://box"]}, journal={})
    kept = system._settings(None, None, namespace=None, http={}, journal={"path": None, "accept_loss": None})
    assert (kept.journal.path, kept.journal.accept_loss) == (Path("here.db"), None)


class FakeSystem:
    """Answers pings as a script says: "up", "down" with its trouble, "silent" or an error."""

    def __init__(self, script: Sequence[str | Exception]) -> None:
        self.adapter = self.asynchronous = self
        self._script = iter(script)
        self._now: str | Exception = ""

    def ping(self) -> None:
        """Return nothing that can be awaited: ``begin`` gives the answer."""

    def begin(self, _: None) -> Future[None]:
        call = Future[None]()
        self._now = next(self._script)
        if self._now == "up":
            call.set_result(None)
        elif isinstance(self._now, Exception):
            call.set_exception(self._now)
        elif self._now != "silent":
            call.set_exception(QueueUnavailable("restarting"))
        return call

    def trouble(self) -> str:
        if not isinstance(self._now, str):
            raise RuntimeError("the control store is away")
        return self._now.removeprefix("down").strip()


def served(*script: str | Exception) -> tuple[bool, list[str]]:
    said: list[str] = []
    stopped = chain([False] * len(script), repeat(True))
    fake: Any = FakeSystem(script)
    event: Any = SimpleNamespace(wait=lambda _: next(stopped))
    return system._serve_until(event, fake, said.append), said


def test_what_keeps_a_queue_from_starting_again_is_said_once() -> None:
    assert served("up", "down", "down disk full", "down disk full", "up", "up") == (
        True,
        ["The queue can't start again, and goes on trying: disk full", "The queue is up again."],
    )


def test_a_system_that_somebody_else_ended_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "_GONE_AFTER_S", 0.0)
    assert served("up", QueueNotRunning("no queue")) == (False, [])


@pytest.mark.parametrize("broken", [AIQueueError("it failed on hello (KeyError)"), ValueError("no msgpack")])
def test_a_queue_that_answers_with_an_error_is_still_there_and_that_is_said_once(broken: Exception) -> None:
    assert served("up", broken, broken, "up") == (
        True,
        [f"The queue does not answer as it should: {broken}", "The queue is up again."],
    )


def test_a_system_goes_on_though_neither_its_queue_nor_ray_answers() -> None:
    is_stopped, said = served("up", QueueUnavailable("restarting"), "up")
    assert is_stopped
    assert said == ["The queue does not answer, and Ray neither: the control store is away", "The queue is up again."]


def test_a_system_of_another_release_in_its_place_is_not_stopped() -> None:
    is_stopped, said = served("up", IncompatibleVersion("the queue protocol 9"))
    assert not is_stopped
    assert said == ["Another release's system has taken the place of this one: the queue protocol 9"]


def test_a_stop_is_heard_while_the_queue_is_silent() -> None:
    assert served("up", "down disk full", "silent") == (
        True,
        ["The queue can't start again, and goes on trying: disk full"],
    )


def test_only_a_ray_that_goes_on_may_keep_a_system(
    aiqueue: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AIQUEUE_CONFIG", "")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    config = tmp_path / "aiqueue.toml"
    config.write_text('[providers.sim]\nkind = "simulated"\n')
    printed = aiqueue("up", "--detach", "--config", str(config))
    assert printed.exit_code != 0
    assert "name it with --address or RAY_ADDRESS" in printed.stderr
