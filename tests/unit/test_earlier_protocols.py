"""What an earlier protocol said is still said: messages, calls and settings grow at their ends only.

``protocols/N.txt`` is what ``python -m tests.tools.wire_shapes`` printed for the last release that spoke protocol N.
One below ``versions.OLDEST`` may be removed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from aiqueue import versions
from aiqueue.config import SentSettings
from tests.tools.wire_shapes import messages, shapes

_FOLDER = Path(__file__).parent / "protocols"
_UNDERSTOOD = range(versions.OLDEST, versions.PROTOCOL)


def earlier(protocol: int) -> dict[str, list[str]]:
    """Return the shapes of an earlier protocol, by name."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in (_FOLDER / f"{protocol}.txt").read_text().splitlines():
        if line.startswith(" "):
            found[name].append(line.strip())
        else:
            name = line
            found[name] = []
    return found


def required(parts: list[str]) -> set[str]:
    return {part for part in parts if not part.endswith("= …")}


@pytest.mark.parametrize("protocol", _UNDERSTOOD)
def test_what_was_said_in_an_earlier_protocol_has_only_grown_at_its_end(protocol: int) -> None:
    now, maps = shapes(), {cls.__name__ for cls in messages() if not cls.__struct_config__.array_like}
    for name, before in earlier(protocol).items():
        assert name in now, f"protocol {protocol} has {name}; remove it when OLDEST is {protocol + 1}"
        if name in maps:
            assert required(now[name]) <= set(before), f"{name}: an older one does not have it"
            assert required(before) <= set(now[name]), f"{name}: an older one can't do without it"
        else:
            assert now[name][: len(before)] == before, f"{name}: it may grow at its end, and not change"
            assert not required(now[name][len(before) :]), f"{name}: what is new may be absent"


@pytest.mark.parametrize("protocol", _UNDERSTOOD)
def test_an_actor_that_starts_again_reads_the_settings_that_an_earlier_release_gave_it(protocol: int) -> None:
    settings = SentSettings.received((_FOLDER / f"{protocol}.settings.json").read_text())
    assert set(settings.pools) == {"remote", "gpu"}
