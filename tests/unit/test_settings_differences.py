"""What a second ``aiqueue up`` says of settings that it can't change."""

from __future__ import annotations

import json

import pytest

from aiqueue.config import Settings
from aiqueue.settings_differences import differing_settings


def as_json(**settings: object) -> dict[str, object]:
    """Settings as they are kept for the next to compare with."""
    made = Settings.model_validate({"providers": {"sim": {"kind": "simulated"}}, **settings})
    kept: dict[str, object] = json.loads(made.model_dump_json())
    return kept


def test_settings_that_are_the_same_do_not_differ() -> None:
    pools = {"a": {"providers": ["sim"], "workers": 3}}
    assert differing_settings(as_json(pools=pools), as_json(pools=pools)) == []


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"journal": {"path": "/elsewhere/journal.db"}}, ["journal.path"]),
        ({"providers": {"sim": {"kind": "simulated", "latency_ms": 5}}}, ["providers.sim.latency_ms"]),
        ({"providers": {"other": {"kind": "simulated"}}}, ["providers.other", "providers.sim"]),
        ({"scaling_interval_ms": 500, "retention": {"max_jobs": 7}}, ["retention.max_jobs", "scaling_interval_ms"]),
        ({"journal": {"new": True, "accept_loss": 3}}, []),  # permissions for one start
        ({"http": {"port": 9000}}, []),  # the front takes those of the newest `up`
    ],
)
def test_those_that_differ_are_named_as_in_the_file(given: dict[str, object], names: list[str]) -> None:
    assert differing_settings(as_json(), as_json(**given)) == names
    assert differing_settings(as_json(**given), as_json()) == names
