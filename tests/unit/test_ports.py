"""Ports: held for whoever they are for, and who has one that is in use."""

from __future__ import annotations

import os
import socket

import pytest

from aiqueue.errors import StartError
from aiqueue.ports import HeldPorts, check_free


def test_a_port_in_use_is_named_with_the_program_that_holds_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match=rf"port {port} on 127\.0\.0\.1 is in use by .* \(process {os.getpid()}\)"):
            check_free("127.0.0.1", port)


def test_a_held_port_is_given_to_nobody_else_and_serves_who_it_was_held_for() -> None:
    ports, others = HeldPorts(), HeldPorts()
    port = ports.hold("127.0.0.1")
    with pytest.raises(StartError, match=f"port {port} "):
        others.hold("127.0.0.1", port)
    with socket.socket() as proxy:
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):  # as HAProxy does
            proxy.setsockopt(socket.SOL_SOCKET, option, 1)
        proxy.bind(("127.0.0.1", port))
        proxy.listen()
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            accepted, address = proxy.accept()
            assert address == client.getsockname()
            accepted.close()
    ports.release()
    check_free("127.0.0.1", port)
