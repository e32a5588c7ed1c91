"""Rows, steps and flags of the orchestrator are taken or refused like those of single jobs, and of HTTP."""

from __future__ import annotations

from collections import ChainMap, UserDict
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.errors import ValidationError
from aiqueue.models import ChatMessage, GenerationConfig
from aiqueue.orchestrator.handles import take_stop_flag
from aiqueue.orchestrator.mapping import _hash
from aiqueue.orchestrator.orchestrator import AsyncAIJobOrchestrator
from aiqueue.testing.jobs import chat
from tests.tools.client_harness import ClientHarness
from tests.unit.client.test_odd_values import all_of

PLAIN = chat("Hi", config={"temperature": 0.5, "extra_body": {"x": True}})
LIKE: dict[str, Any] = {
    "a text": PLAIN | {"messages": [{"role": "user", "content": np.str_("Hi")}]},
    "a number": PLAIN | {"config": {"temperature": np.float64(0.5), "extra_body": {"x": True}}},
    "a flag": PLAIN | {"config": {"temperature": 0.5, "extra_body": {"x": np.bool_(True)}}},
    "a message": PLAIN | {"messages": [ChatMessage(role="user", content="Hi")]},
    "a config": PLAIN | {"config": GenerationConfig(temperature=0.5, extra_body={"x": True})},
    "a view": MappingProxyType(PLAIN),
    "a user's dict": UserDict(PLAIN),
    "a chain of dicts": ChainMap(PLAIN),
    "a view within": PLAIN | {"messages": [MappingProxyType(PLAIN["messages"][0])]},
}


@pytest.mark.parametrize("what", LIKE)
async def test_a_payload_of_other_kinds_is_the_job_of_the_plain_one(
    what: str, system: ClientHarness, client: AsyncAIQueueAdapter, orchestrator: AsyncAIJobOrchestrator
) -> None:
    await system.work()
    (first,) = await all_of(orchestrator.map([PLAIN], run_id="r"))
    (second,) = await all_of(orchestrator.map([LIKE[what]], run_id="r"))
    assert (second.key, second.job.job_id) == (first.key, first.job.job_id)
    key = {"idempotency_key": "k"}
    assert await client.submit_job(PLAIN, key) == await client.submit_job(LIKE[what], key)


def test_a_plain_row_has_the_key_that_it_always_had() -> None:
    assert _hash(chat("Größe", config={"seed": 7})) == "d2b8b6a5da44f6f310ddeacbb0e07a3a"


async def test_a_template_in_a_message_that_is_a_model_is_found(
    system: ClientHarness, client: AsyncAIQueueAdapter, orchestrator: AsyncAIJobOrchestrator
) -> None:
    await system.work()
    last = chat() | {"messages": [ChatMessage(role="user", content="{{steps[0].content}}")]}
    chain = await orchestrator.create_job_chain([chat("a"), chat("b"), last])
    assert [job.status for job in await client.wait_all(chain)] == ["completed"] * 3
    with pytest.raises(ValidationError, match="names no step before this one"):
        await orchestrator.create_job_chain([last])


@pytest.mark.parametrize("name", ["stopOnError", "stop_on_error"])
def test_a_stop_flag_means_what_it_means_in_http(name: str) -> None:
    for value in (False, np.bool_(False)):
        assert take_stop_flag({name: value, "name": "n"}, True) == ({"name": "n"}, False), repr(value)
    assert take_stop_flag({name: True}, False) == ({}, True)
    for otherwise in (False, True):
        assert take_stop_flag({name: None}, otherwise) == ({}, otherwise), "as absent"
    odds: list[Any] = ["false", "no", "true", "never", 0, 1, []]
    for odd in odds:
        with pytest.raises(ValidationError, match=r"^options\.stop"):
            take_stop_flag({name: odd}, True)


async def test_a_stop_flag_that_is_a_keyword_is_checked_too(orchestrator: AsyncAIJobOrchestrator) -> None:
    assert take_stop_flag({}, np.bool_(False))[1] is False  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match=r"^stop"):
        await orchestrator.create_job_chain([chat()], stop_on_error="false")  # type: ignore[arg-type]


def test_a_stop_flag_in_both_spellings_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"^options\.stop"):
        take_stop_flag({"stopOnError": True, "stop_on_error": False}, True)


@pytest.mark.parametrize("field", ["nane", "dependsOn", "depends_on", "onError", "options", "index"])
async def test_a_field_that_a_step_has_not_is_refused_by_name(field: str, orchestrator: AsyncAIJobOrchestrator) -> None:
    with pytest.raises(ValidationError, match=rf"steps.1.{field}: is not a field of a step; there are: name, payload"):
        await orchestrator.create_job_chain([chat(), {"payload": chat(), field: "x"}])
    with pytest.raises(ValidationError, match=r"nodes.a.nane: is not a field of a node; there are: .*depends_on"):
        await orchestrator.submit_graph({"a": {"payload": chat(), "nane": "x"}})


@pytest.mark.parametrize(
    ("both", "field"),
    [({"depends_on": [], "dependsOn": ["a"]}, "dependsOn"), ({"on_error": "fail", "onError": "skip"}, "onError")],
)
async def test_a_field_of_a_node_in_both_spellings_is_refused(
    both: dict[str, Any], field: str, orchestrator: AsyncAIJobOrchestrator
) -> None:
    with pytest.raises(ValidationError, match=f"nodes.b.{field}: is .*, which is given too"):
        await orchestrator.submit_graph({"a": {"payload": chat()}, "b": {"payload": chat(), **both}})
