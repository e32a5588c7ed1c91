"""What every folder of tests may ask for."""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.running_system import own_system, running_system, shared_ray
from tests.tools.one_cluster import OneCluster, needs_cluster

# A shell ignores Ctrl-C in what it starts in the background, and so would the programs that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

__all__ = ["exact_gguf", "own_system", "running_system", "shared_ray", "tiny_gguf"]


@pytest.fixture(autouse=True, scope="session")
def own_notes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let no system of a test, in whatever process, note its journal in the user's home."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("AIQUEUE_JOURNAL__NOTES", str(tmp_path_factory.mktemp("notes")))
        yield


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a 3.4 MB model that llama.cpp loads; it answers in words and needs half a second to make."""
    # Here, so that a run without a model does not need numpy and gguf.
    from tests.tools.make_tiny_gguf import make

    path = tmp_path_factory.mktemp("models") / "tiny.gguf"
    make(path)
    return path


@pytest.fixture(scope="session")
def exact_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one of full precision: without flash attention nobody's answer depends on the company it is in."""
    from tests.tools.make_tiny_gguf import make

    path = tmp_path_factory.mktemp("models") / "exact.gguf"
    make(path, kind="f32")
    return path


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the tests shuffled, but put those that need a cluster last and in the order of their files.

    A shuffled order finds tests that lean on each other. Those with a cluster share one that takes long to start, and a
    failure that depends on what ran before them could not be repeated in reasonable time.
    """
    with_cluster = [item for item in items if needs_cluster(item.nodeid)]
    with_cluster.sort(key=lambda item: (str(item.path), item.location[1] or 0, item.nodeid))
    items[:] = [item for item in items if not needs_cluster(item.nodeid)] + with_cluster


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneCluster:
    """Say which tests go to which process, where there are several."""
    return OneCluster(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Let a report reach the process that prints it whatever a test has logged: half a surrogate pair can't be sent."""
    return _sendable((yield))


def _sendable(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {key: _sendable(each) for key, each in value.items()}
        case list() | tuple():
            return type(value)(_sendable(each) for each in value)
    return value
