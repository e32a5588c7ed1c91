"""What can be asked of the simulated provider."""

from __future__ import annotations

import pytest

from aiqueue.testing.script import OK, Behaviour, Script, steps_of


@pytest.mark.parametrize(
    ("model", "steps"),
    [
        ("sim", (OK,)),
        ("gpt-4o", (OK,)),
        ("sim:500", (Behaviour(status=500),)),
        ("sim:500*2,ok", (Behaviour(status=500), Behaviour(status=500), OK)),
        ("sim:429+retry_after=2", (Behaviour(status=429, retry_after="2"),)),
        ("sim:ok+latency=0.2+tokens=50", (Behaviour(latency_s=0.2, tokens=50),)),
        ("sim:cut+token_delay=0.1", (Behaviour(fault="cut", token_delay_s=0.1),)),
        ("sim:tool", (Behaviour(calls_tool=True),)),
    ],
)
def test_a_models_name_says_what_to_do(model: str, steps: tuple[Behaviour, ...]) -> None:
    assert steps_of(model) == steps


@pytest.mark.parametrize("model", ["sim:", "sim:explode", "sim:ok+speed=3", "sim:²", "sim:5\u0660\u0660"])
def test_words_that_are_not_known_are_refused(model: str) -> None:
    with pytest.raises(ValueError, match="does not know"):
        steps_of(model)


def test_each_request_walks_its_own_steps() -> None:
    script = Script()
    taken = [script.take("sim:500,ok", body).status for body in (b"a", b"b", b"a", b"b", b"a")]
    assert taken == [500, 500, 200, 200, 200]


def test_a_script_goes_before_the_models_names() -> None:
    script = Script([Behaviour(status=503)])
    assert [script.take("sim:500", b"").status for _ in range(2)] == [503, 500]
