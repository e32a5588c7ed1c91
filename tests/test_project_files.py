"""What the project's files say of each other, and of the machine they were written on: versions, pins, pages."""

from __future__ import annotations

import re
import tomllib

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.house_rules.report import report
from tests.house_rules.sources import ROOT, committed_files, python_files

# Addresses of package registries and paths of one machine: neither means anything to whoever clones this.
NOT_FOR_OTHERS = re.compile(
    r"(?<![\w.~])/(?:work|root)/|\b(?:pypi|pythonhosted|npmjs|crates|conda|anaconda)\.(?:org|com|io)\b|\bdeb\.debian\.org\b"
)

# `tests/unit/test_ids.py::test_…` on a page, or only the file.
NAMED_TEST = re.compile(r"\b(tests/[\w/]+\.py)(?:::(\w+))?")


def test_no_committed_file_names_one_machine_or_a_registry() -> None:
    files = committed_files()
    assert files, "found no file to check"
    report(
        (
            f"{path}:{number}: {found[0]}"
            for path in files
            for number, line in enumerate(_text_of(path).splitlines(), start=1)
            if (found := NOT_FOR_OTHERS.search(line))
        ),
        "Use a relative path, a variable, or the name of the package.",
    )


def test_the_constraints_pin_exact_versions_and_no_addresses() -> None:
    report(
        (line for line in _constraint_lines() if not re.fullmatch(r"[\w.-]+==[\w.]+", line)),
        "Every line of .ci/constraints.txt is name==version. `make lock` writes the file anew.",
    )


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [name for names in project["optional-dependencies"].values() for name in names]
    pins = {
        canonicalize_name(name): version for name, _, version in (line.partition("==") for line in _constraint_lines())
    }
    wanted = [Requirement(line) for line in [*project["dependencies"], *extras]]
    report(
        (
            f"{need}: pinned to {pins.get(canonicalize_name(need.name), 'nothing')}"
            for need in wanted
            if not need.specifier.contains(pins.get(canonicalize_name(need.name), "0"))
        ),
        "pyproject.toml and .ci/constraints.txt disagree: run `make lock`.",
    )


def test_the_makefile_looks_for_the_pythons_that_the_package_allows() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    script = (ROOT / ".ci" / "find_python.sh").read_text(encoding="utf-8")
    oldest, too_new = re.findall(r"^(?:oldest|too_new)=(\S+)$", script, re.MULTILINE)
    assert project["requires-python"] == f">={oldest},<{too_new}", ".ci/find_python.sh names other versions"
    named = {line.rpartition(" ")[2] for line in project["classifiers"] if ":: Python :: 3." in line}
    tested = re.search(r"^VERSIONS \?= (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert tested
    assert set(tested[1].split()) == named, "the classifiers and VERSIONS in the Makefile differ"


def test_the_package_says_the_version_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f'__version__ = "{project["version"]}"' in (ROOT / "aiqueue" / "__init__.py").read_text(encoding="utf-8"), (
        "pyproject.toml and aiqueue/__init__.py name different versions"
    )


def test_the_page_on_states_shows_the_table_of_moves() -> None:
    from aiqueue.engine.states import mermaid

    page = ROOT / "docs" / "states.md"
    assert page.is_file(), "docs/states.md is missing: a page on the states with the diagram of the moves"
    diagrams = re.findall(r"^```mermaid\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    expected = mermaid().strip()
    assert expected in [diagram.strip() for diagram in diagrams], (
        f"docs/states.md must hold between ```mermaid and ``` what engine.states.mermaid() returns:\n\n{expected}"
    )


def test_every_test_that_a_page_names_exists() -> None:
    pages = [path for path in committed_files() if path.suffix == ".md"]
    named = {(page, *found) for page in pages for found in NAMED_TEST.findall(_text_of(page))}
    assert named, "found no test named on any page"
    known = {str(source): source.defined for source in python_files("tests")}
    report(
        (
            f"{page}: {path}::{name}" if name else f"{page}: {path}"
            for page, path, name in sorted(named)
            if path not in known or (name and name not in known[path])
        ),
        "It was moved or has another name now: a promise must name the test that shows it.",
    )


def test_the_cluster_file_passes_the_cluster_launchers_check() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))
    validate_config(prepare_config(config))
    missing = [
        local for local in config["file_mounts"].values() if not local.startswith("~") and not (ROOT / local).exists()
    ]
    assert not missing, f"cluster.yaml copies to its nodes what is not here: {missing}"


def _text_of(path: object) -> str:
    try:
        return (ROOT / str(path)).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""  # a picture


def _constraint_lines() -> list[str]:
    lines = (ROOT / ".ci" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]
