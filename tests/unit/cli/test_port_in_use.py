"""``aiqueue up`` on a port that another program has: said at once, before anything of Ray is loaded."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path


def test_up_on_a_port_in_use_names_it_and_its_holder_and_loads_no_ray(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = tmp_path / "settings.toml"
        settings.write_text('[providers.sim]\nkind = "simulated"\n')
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        ended = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "aiqueue", "up", f"--port={port}", f"--config={settings}"],
            env={**environment, "RAY_TMPDIR": str(tmp_path / "ray"), "AIQUEUE_JOURNAL__PATH": str(tmp_path / "j.db")},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    lines = ended.stderr.splitlines()
    said = [line for line in lines if not line.startswith("import time:")]
    loaded = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in lines if line.startswith("import time:")}
    assert ended.returncode == 1
    assert len(said) == 1
    assert f"port {port} on 127.0.0.1 is in use by" in said[0]
    assert f"(process {os.getpid()})" in said[0]
    assert "aiqueue" in loaded
    assert not loaded & {"ray", "serve", "actors"}, "Ray was loaded, or more, before the port was looked at"
    assert [path.name for path in tmp_path.iterdir()] == ["settings.toml"], "Ray or the queue was started"
