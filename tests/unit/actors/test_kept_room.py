"""Room that Ray keeps for workers to come: one request for the whole cluster, and only who made it takes it back."""

from __future__ import annotations

import pytest
from ray.autoscaler import sdk
from ray.experimental import internal_kv

from actors import cluster, system

_BUNDLE = {"GPU": 1.0}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[dict[str, float]]]:
    """Return what the autoscaler was asked for, in order; Ray's store is a dictionary."""
    store: dict[bytes, bytes] = {}
    asked: list[list[dict[str, float]]] = []
    monkeypatch.setattr(internal_kv, "_internal_kv_get", store.get)
    monkeypatch.setattr(internal_kv, "_internal_kv_put", lambda key, value, overwrite: store.update({key: value}))
    monkeypatch.setattr(internal_kv, "_internal_kv_del", store.pop)
    monkeypatch.setattr(sdk, "request_resources", lambda bundles: asked.append(bundles))
    return asked


def test_room_is_taken_back_once_by_the_system_that_asked_for_it_last(asked: list[list[dict[str, float]]]) -> None:
    cluster.keep_room("mine", [_BUNDLE])
    cluster.keep_room("other", [_BUNDLE, _BUNDLE])
    cluster.keep_room("mine", [])
    assert asked == [[_BUNDLE], [_BUNDLE, _BUNDLE]], "the other's request stays"
    cluster.keep_room("other", [])
    cluster.keep_room("other", [])
    assert asked[2:] == [[]]


@pytest.mark.parametrize("fails", [False, True])
def test_a_stop_takes_room_back_though_there_is_no_manager_left(
    monkeypatch: pytest.MonkeyPatch, asked: list[list[dict[str, float]]], fails: bool
) -> None:
    cluster.keep_room("mine", [_BUNDLE])
    monkeypatch.setattr(cluster, "find", lambda *_: None)
    monkeypatch.setattr(cluster, "names_in", lambda _: [])
    if fails:
        monkeypatch.setattr(sdk, "request_resources", lambda bundles: 1 / 0)
    assert not system.stop_actors("mine")
    assert asked == ([[_BUNDLE]] if fails else [[_BUNDLE], []])
