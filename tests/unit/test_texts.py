"""The bounds of our own texts hold in Python as they do over HTTP."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import AsyncIterator, Awaitable, Callable

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiqueue import texts
from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.config import Settings
from aiqueue.errors import PayloadTooLarge, ValidationError
from aiqueue.orchestrator.orchestrator import AsyncAIJobOrchestrator
from aiqueue.testing.jobs import chat
from tests.tools.client_harness import ClientHarness

BAD = "a\nb"
LONG = "x" * 300
Call = Callable[[AsyncAIQueueAdapter, AsyncAIJobOrchestrator, str], Awaitable[object]]


@pytest.fixture
async def adapter() -> AsyncIterator[AsyncAIQueueAdapter]:
    """Return a client of a queue without a worker."""
    async with ClientHarness() as harness:
        yield await harness.client()


async def _mapped(orchestrator: AsyncAIJobOrchestrator, run_id: str) -> None:
    async for _ in orchestrator.map([chat()], run_id=run_id):
        pass


CALLS: dict[str, Call] = {
    "model": lambda adapter, _, text: adapter.submit_job(chat(model=text)),
    "provider": lambda adapter, _, text: adapter.submit_job(chat(provider=text)),
    "options.tags.0": lambda adapter, _, text: adapter.submit_job(chat(), {"tags": [text]}),
    "options.idempotency_key": lambda adapter, _, text: adapter.submit_job(chat(), {"idempotency_key": text}),
    "options.idempotencyKey": lambda adapter, _, text: adapter.submit_job(chat(), {"idempotencyKey": text}),
    "idempotency_key": lambda adapter, _, text: adapter.submit_batch([chat()], idempotency_key=text),
    "batch_id": lambda adapter, _, text: adapter.submit_jobs([chat()], batch_id=text),
    "options.name": lambda _, orchestrator, text: orchestrator.submit_batch_job([chat()], name=text),
    "steps.0.name": lambda _, orchestrator, text: orchestrator.create_job_chain([{"name": text, "payload": chat()}]),
    "nodes": lambda _, orchestrator, text: orchestrator.submit_graph({text: {"payload": chat()}}),
    "run_id": lambda _, orchestrator, text: _mapped(orchestrator, text),
    "name": lambda adapter, _, text: adapter.schedules.add(chat(), text, "@daily"),
    "cron_expression": lambda adapter, _, text: adapter.schedules.add(chat(), "n", text),
    "timezone": lambda adapter, _, text: adapter.schedules.add(chat(), "n", "@daily", timezone=text),
}


@pytest.mark.parametrize("text", [BAD, LONG, "a\ud83d"], ids=["control", "long", "surrogate"])
@pytest.mark.parametrize("field", CALLS)
async def test_a_text_beyond_its_bounds_is_refused_by_the_name_of_its_field(
    adapter: AsyncAIQueueAdapter, field: str, text: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        await CALLS[field](adapter, AsyncAIJobOrchestrator(adapter), text)
    assert {error.field.lower().replace("_", "") for error in caught.value.errors} == {field.lower().replace("_", "")}
    assert (await adapter.get_stats()).total_jobs == 0


@pytest.mark.parametrize("name", [BAD, "x" * 65, ""])
@pytest.mark.parametrize("section", ["providers", "pools"])
def test_a_name_in_the_settings_has_the_same_bounds(section: str, name: str) -> None:
    entry = {"kind": "simulated"} if section == "providers" else {"providers": ["p"]}
    with pytest.raises(pydantic.ValidationError, match=section):
        Settings.model_validate({"providers": {"p": {"kind": "simulated"}}, section: {name: entry}})


async def test_metadata_beyond_the_limit_is_refused_before_anything_is_sent(adapter: AsyncAIQueueAdapter) -> None:
    fits, heavy = {"a": "x" * 16_000}, {"a": "x" * 17_000}
    orchestrator = AsyncAIJobOrchestrator(adapter)
    calls = [
        lambda metadata: adapter.submit_job(chat(), {"metadata": metadata}),
        lambda metadata: adapter.submit_jobs([chat()] * 2, {"metadata": metadata}),
        lambda metadata: adapter.submit_batch([chat()] * 2, {"metadata": metadata}),
        lambda metadata: orchestrator.submit_batch_job([chat()] * 2, metadata=metadata),
        lambda metadata: orchestrator.create_job_chain([chat()] * 2, metadata=metadata),
        lambda metadata: adapter.schedules.add(chat(), "s", "@daily", options={"metadata": metadata}),
    ]
    for call in calls:
        with pytest.raises(PayloadTooLarge, match=r"options.metadata: has 17008 bytes.*limit of 16384"):
            await call(heavy)
    assert (await adapter.get_stats()).total_jobs == 0
    for call in calls:
        await call(fits)


@given(st.text(max_size=20))
def test_a_clean_text_holds_no_control_character_and_the_pattern_says_the_same(text: str) -> None:
    harmful = [
        each
        for each in text
        if unicodedata.category(each) in ("Cc", "Zl", "Zp") or unicodedata.bidirectional(each) in _TURNS
    ]
    assert bool(re.fullmatch(texts.PATTERN.rstrip("$"), text)) == (not harmful)
    if harmful:
        with pytest.raises(ValueError, match=f"U\\+{ord(harmful[0]):04X} at place {text.index(harmful[0])}"):
            texts.clean(text)
    else:
        assert texts.clean(text) == text


_TURNS = {"LRE", "LRO", "RLE", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@pytest.mark.parametrize("mark", ["\u061c", "\u200e", "\u200f", "\u202e", "\u2066"])
def test_marks_of_direction_are_refused_and_joiners_of_words_and_emoji_are_not(mark: str) -> None:
    with pytest.raises(ValueError, match="control character"):
        texts.clean(f"a{mark}b")
    joined = "👩\u200d💻 \u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
    assert texts.clean(joined) == joined


def test_the_depth_of_a_value_is_counted_up_to_a_limit() -> None:
    assert [texts.depth_of(value, 3) for value in (1, [], {"a": 1}, [[1], {}], [[[[[]]]]])] == [0, 1, 1, 2, 4]
