"""Nothing in this folder may start Ray."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.tools.no_ray import ray_refused


# By module and not by test: hypothesis objects to fixtures that are not renewed for each example.
@pytest.fixture(autouse=True, scope="module")
def no_ray() -> Iterator[None]:
    """Fail the test that calls ``ray.init``."""
    with ray_refused("tests/unit"):
        yield
