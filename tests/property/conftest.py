"""Nothing in this folder may start Ray."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.tools.no_ray import ray_refused


# By module and not by test: hypothesis objects to fixtures that are not renewed for each example.
@pytest.fixture(autouse=True, scope="module")
def no_ray() -> Iterator[None]:
    """Fail the test that calls ``ray.init``."""
    with ray_refused("tests/property"):
        yield


# A busy machine is no reason to fail: hypothesis stops an example at 200 ms unless told otherwise.
settings.register_profile("aiqueue", deadline=None, print_blob=True)
settings.register_profile("aiqueue-ci", parent=settings.get_profile("aiqueue"), derandomize=True, database=None)
settings.load_profile("aiqueue-ci" if "CI" in os.environ else "aiqueue")
