"""The image for Kubernetes: a Dockerfile that a builder can read, and in step with what it installs and who runs it."""

from __future__ import annotations

import fnmatch
import re
import shlex
import subprocess
import tomllib
from typing import NamedTuple

import pytest

from aiqueue import __version__
from tests.tools.manifests import DEPLOY, RAY_MANIFESTS, ROOT, groups, pods

_KNOWN = {"ARG", "FROM", "RUN", "COPY", "ENV", "WORKDIR", "USER"}


class Instruction(NamedTuple):
    """One instruction: its name, and the rest of it in one line."""

    name: str
    text: str


class Stage(NamedTuple):
    """What one FROM begins."""

    name: str
    base: str
    instructions: list[Instruction]


def instructions() -> list[Instruction]:
    """The instructions of the Dockerfile, as a builder reads them."""
    lines = [line for line in (DEPLOY / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [Instruction(*line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def stages() -> dict[str, Stage]:
    """The stages by name, in their order."""
    found: dict[str, Stage] = {}
    for each in instructions():
        if each.name == "FROM":
            base, _, name = re.fullmatch(r"(\S+) (AS) (\S+)", each.text).groups()  # type: ignore[union-attr]
            found[name] = Stage(name, base, [])
        elif found:
            next(reversed(found.values())).instructions.append(each)
    return found


def arguments() -> dict[str, str]:
    """What may be given to the build, with its defaults."""
    return dict(each.text.split("=", 1) for each in instructions() if each.name == "ARG")


def said(stage: str, name: str) -> list[str]:
    """What the instructions of this name in a stage say, and in those that it begins from."""
    found = stages()[stage]
    before = said(found.base, name) if found.base in stages() else []
    return before + [each.text for each in found.instructions if each.name == name]


def is_sent(path: str) -> bool:
    """Whether a file or folder of the repository gets to the builder."""
    patterns = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    sent = True
    for pattern in patterns:
        if fnmatch.fnmatch(path, pattern.removeprefix("!")):
            sent = pattern.startswith("!")
    return sent


def test_every_instruction_is_one_and_every_stage_begins_from_something() -> None:
    assert {each.name for each in instructions()} <= _KNOWN
    seen = set[str]()
    for stage in stages().values():
        assert stage.base in seen or re.match(r"\$\{(\w+)\}", stage.base)[1] in arguments(), stage.base  # type: ignore[index]
        for copy in (each.text for each in stage.instructions if each.name == "COPY"):
            source = re.match(r"--from=(\S+) ", copy)
            assert source is None or source[1] in seen, f"{stage.name}: {copy}"
        seen.add(stage.name)


def test_what_is_copied_is_there_and_is_sent_to_the_builder() -> None:
    copied = [
        path
        for each in instructions()
        if each.name == "COPY" and not each.text.startswith("--from=")
        for path in shlex.split(each.text)[:-1]
    ]
    assert {"aiqueue", "actors", "serve", "pyproject.toml", ".ci"} <= set(copied)
    for path in copied:
        assert (ROOT / path).exists(), path
        assert is_sent(path.split("/")[0]), path
    readme, license_file = (
        tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][key] for key in ("readme", "license-files")
    )
    assert {readme, *license_file} <= set(copied), "the package can't be built without"


@pytest.mark.parametrize("path", [".venv", ".git", ".env", "journal.db", "aiqueue.toml", "keys.env", "tests"])
def test_what_the_image_does_not_need_is_not_sent_to_the_builder(path: str) -> None:
    assert not is_sent(path)


def test_the_shell_can_read_every_command() -> None:
    for each in instructions():
        if each.name == "RUN":
            subprocess.run(["sh", "-n", "-c", each.text], check=True)


def test_the_python_of_the_image_is_one_that_the_package_allows() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    version = re.fullmatch(r"python:(3\.\d+)-slim-\w+", arguments()["PYTHON"])
    assert version
    assert f"Programming Language :: Python :: {version[1]}" in project["classifiers"]


@pytest.mark.parametrize("stage", ["cpu", "cuda"])
def test_the_image_has_what_runs_there_and_no_compiler(stage: str) -> None:
    installed = " ".join(each for each in said(stage, "RUN") if "apt-get install" in each).split()
    assert {"libgomp1", "wget"} <= set(installed)
    assert not {"g++", "gcc", "make"} & set(installed)
    (copied,) = [each for each in said(stage, "COPY") if "/opt/aiqueue" in each]
    where = copied.split()[-1]
    assert any(f"PATH={where}/bin:$PATH" in each for each in said(stage, "ENV"))
    assert f"python -m venv {where}" in said(copied.split()[0].removeprefix("--from="), "RUN")
    assert stages()["environment"].base == stages()["base"].base, "an environment works with the Python that made it"


@pytest.mark.parametrize("stage", ["cpu", "cuda"])
def test_the_user_of_the_image_is_the_one_that_the_pods_run_as(stage: str) -> None:
    (user,) = said(stage, "USER")
    for name in (*groups("raycluster.yaml"), "backup"):
        security = pods()[name]["securityContext"]
        assert user == f"{security['runAsUser']}:{security['runAsGroup']}"


@pytest.mark.parametrize("name", RAY_MANIFESTS)
def test_the_manifests_run_the_images_that_the_dockerfile_says_how_to_build(name: str) -> None:
    built = set(re.findall(r"docker build .* -t (\S+)", (DEPLOY / "Dockerfile").read_text()))
    assert {group["template"]["spec"]["containers"][0]["image"] for group in groups(name).values()} == built
    assert all(__version__ in image for image in built)
    assert next(reversed(stages())) == "cpu", "what is built if no target is named"
