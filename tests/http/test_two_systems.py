"""Two systems on one Ray: one Serve, one address, and a path for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from ray import serve as ray_serve

from aiqueue import launch
from aiqueue.config import Settings
from aiqueue.errors import QueueUnavailable, StartError
from serve.running import app_name
from tests.running_system import SIMULATED, chat

LIMIT_S = 60.0


def settings(folder: Path, **http: Any) -> Settings:
    """Return a second system's settings."""
    return Settings(namespace="tests-second", journal={"path": folder / "journal.db"}, http=http, **SIMULATED)


def test_a_second_system_is_served_beside_the_first_and_leaves_it_as_it_was(
    running_system: launch.System, tmp_path: Path
) -> None:
    first = running_system.url
    assert first is not None
    with httpx.Client(timeout=LIMIT_S, trust_env=False) as http:
        before = http.get(f"{first}/ai/stats").json()["adapter"]["totalJobs"]
        with launch.start(settings(tmp_path, port=0)) as second:
            assert second.url == f"{first}/aiqueue-tests-second"
            submitted = http.post(f"{second.url}/ai/jobs", json={"payload": chat()})
            assert submitted.status_code == 202
            location = submitted.headers["location"]
            assert httpx.URL(first).join(location).path == location
            with http.stream("GET", f"{first}{location}/events") as events:
                names = [line for line in events.iter_lines() if line.startswith("event: ")]
            assert names[-1] == "event: job:completed"
            assert http.get(f"{second.url}/ai/stats").json()["adapter"]["totalJobs"] == 1
            assert http.get(f"{first}/ai/stats").json()["adapter"]["totalJobs"] == before
        assert http.get(f"{first}/ai/health").status_code == 200
        assert http.get(f"{second.url}/ai/live").status_code == 404
    assert app_name("tests-second") not in ray_serve.status().applications


def test_a_second_system_that_asks_for_an_address_of_its_own_is_refused_and_leaves_nothing(
    running_system: launch.System, tmp_path: Path
) -> None:
    with pytest.raises(StartError, match=r"one HTTP address: set http.port to 0"):
        launch.start(settings(tmp_path, port=1).model_copy(update={"namespace": "tests-third"}))
    with pytest.raises(QueueUnavailable, match="no queue is running"):
        launch.connect("tests-third")
    with httpx.Client(base_url=running_system.url or "", timeout=LIMIT_S, trust_env=False) as http:
        assert http.get("/ai/health").status_code == 200
