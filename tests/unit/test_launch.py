"""Starting a system, as far as it comes without Ray: here ``ray.init`` raises."""

from __future__ import annotations

import os
import socket

import pytest

from aiqueue import launch
from aiqueue.config import Settings
from aiqueue.errors import StartError
from aiqueue.ports import check_free


def test_a_port_in_use_is_named_before_ray_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = Settings(providers={"sim": {"kind": "simulated"}}, http={"port": port})
        with pytest.raises(StartError, match=rf"port {port} on 127\.0\.0\.1 is in use by .*process {os.getpid()}"):
            launch.start(settings)
    check_free("127.0.0.1", port)


def test_a_port_is_given_back_when_the_system_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    settings = Settings(providers={"sim": {"kind": "simulated"}}, http={"port": port})

    def no_ray(*_: object, **__: object) -> bool:
        with pytest.raises(StartError, match=f"port {port} "):
            check_free("127.0.0.1", port)  # held while Ray starts
        raise StartError("no Ray")

    monkeypatch.setattr(launch, "_join_ray", no_ray)
    with pytest.raises(StartError, match="no Ray"):
        launch.start(settings)
    check_free("127.0.0.1", port)
