"""Keeps Ray out of tests that must not need it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import pytest


@contextmanager
def ray_refused(folder: str) -> Iterator[None]:
    """Make ``ray.init`` raise, and with it every Ray call that would start Ray by itself.

    A unit test that starts Ray costs ten seconds and hides that the logic under test is not free of Ray.
    """
    # Here, so that only these folders pay for the import.
    import ray

    def refuse(*_args: object, **_options: object) -> NoReturn:
        pytest.fail(f"ray.init was called in {folder}: test the plain class, or move the test to tests/cluster")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray, "init", refuse)
        yield
