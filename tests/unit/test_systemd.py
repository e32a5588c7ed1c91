"""The systemd unit in the docs: what it starts is there, and what it runs in a shell does what it is meant to."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections import defaultdict
from importlib import util
from pathlib import Path

import pytest

from tests.tools.manifests import JOURNAL, ROOT

_BIN = "/opt/aiqueue/bin"


@pytest.fixture
def unit() -> dict[str, list[str]]:
    """The unit's settings by name."""
    (text,) = re.findall(r"```ini\n(.*?)```", (ROOT / "docs" / "cluster.md").read_text(), re.DOTALL)
    found: dict[str, list[str]] = defaultdict(list)
    for name, value in re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE):
        found[name].append(value)
    return found


@pytest.fixture
def ended_process() -> str:
    """The id of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return str(process.pid)


def test_it_starts_ray_with_options_that_ray_has(unit: dict[str, list[str]]) -> None:
    program, command, *options = shlex.split(unit["ExecStart"][0])
    assert (program, command) == (f"{_BIN}/ray", "start")
    assert f'--resources={{"{JOURNAL}": 1}}' in options
    ray = util.find_spec("ray")
    assert ray is not None
    assert ray.submodule_search_locations
    scripts = (Path(ray.submodule_search_locations[0]) / "scripts" / "scripts.py").read_text()
    start = scripts[: scripts.index("\ndef start(")]
    assert all(f'"{option.partition("=")[0]}"' in start for option in options)


def run_after_the_start(unit: dict[str, list[str]], folder: Path, main_pid: str) -> tuple[int, list[str]]:
    """Run ExecStartPost beside an `aiqueue` that works at its third call; return the status and the calls."""
    commands = {"aiqueue": 'echo "$@" >>calls; [ $(wc -l <calls) -ge 3 ]', "sleep": "true"}
    for name, does in commands.items():
        (folder / name).write_text(f"#!/bin/sh\n{does}\n")
        (folder / name).chmod(0o755)
    command = shlex.split(unit["ExecStartPost"][0].replace(_BIN, str(folder)))
    environ = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "MAINPID": main_pid}
    done = subprocess.run(command, cwd=folder, env=environ, check=False, timeout=60)
    return done.returncode, (folder / "calls").read_text().splitlines()


def test_the_system_is_brought_up_once_the_head_is_there(unit: dict[str, list[str]], tmp_path: Path) -> None:
    assert run_after_the_start(unit, tmp_path, str(os.getpid())) == (0, ["up --detach"] * 3)


def test_it_is_not_waited_for_when_ray_has_ended(
    unit: dict[str, list[str]], tmp_path: Path, ended_process: str
) -> None:
    assert run_after_the_start(unit, tmp_path, ended_process) == (1, ["up --detach"])
