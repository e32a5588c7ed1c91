"""What holds for every command: help, errors, exit codes, and where it looks for the system."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from aiqueue import __version__
from tests.unit.cli.conftest import Beside, Terminal

UNKNOWN = "0198aaaa-0000-7000-8000-000000000000"


def test_help_names_every_command(aiqueue: Terminal) -> None:
    printed = aiqueue("--help")
    assert printed.exit_code == 0
    for command in ("up", "down", "submit", "get", "cancel", "watch", "stats", "demo"):
        assert command in printed.stdout


def test_no_command_is_a_usage_error(aiqueue: Terminal) -> None:
    assert aiqueue().exit_code == 2


def test_the_version_is_the_packages(aiqueue: Terminal) -> None:
    assert aiqueue("--version").stdout.strip() == __version__


def test_help_does_not_load_ray() -> None:
    program = "import sys\nfrom aiqueue.cli import app\nassert not {'ray', 'openai', 'fastapi'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_an_error_is_one_line_on_stderr(aiqueue: Terminal) -> None:
    printed = aiqueue("get", UNKNOWN)
    assert printed.exit_code == 1
    assert printed.stdout == ""
    assert printed.stderr == f"error: Job not found: {UNKNOWN}\n"


def test_with_debug_an_error_keeps_its_traceback(aiqueue: Terminal) -> None:
    printed = aiqueue("--debug", "get", UNKNOWN)
    assert printed.exit_code == 1
    assert type(printed.exception).__name__ == "JobNotFound"


def test_the_options_say_which_system_to_join(aiqueue: Terminal, queue: Beside) -> None:
    aiqueue("stats", "--namespace", "other", "--address", "10.0.0.1:6379")
    aiqueue("stats")
    assert queue.joins == [("other", "10.0.0.1:6379"), ("aiqueue", None)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("surprise = 1", "surprise"), ("[http]\nport = 99999", "http.port"), ("namespace =", "is not TOML")],
)
def test_a_wrong_configuration_file_is_an_error_that_names_the_setting(
    aiqueue: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, expected: str
) -> None:
    file = tmp_path / "aiqueue.toml"
    file.write_text(text)
    monkeypatch.setenv("AIQUEUE_CONFIG", str(file))
    printed = aiqueue("stats")
    assert printed.exit_code == 2
    assert expected in printed.stderr
    assert printed.stderr.count("\n") == 1


def test_a_configuration_file_that_is_not_there_is_an_error(
    aiqueue: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AIQUEUE_CONFIG", str(tmp_path / "missing.toml"))
    printed = aiqueue("stats")
    assert (printed.exit_code, "missing.toml" in printed.stderr) == (2, True)


@pytest.mark.parametrize("command", [["up", "--port", "70000"], ["up", "--model", "missing.gguf"], ["get"], ["fly"]])
def test_wrong_usage_exits_with_2(aiqueue: Terminal, command: list[str]) -> None:
    assert aiqueue(*command).exit_code == 2
