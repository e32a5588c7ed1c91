"""JSON schemas that ended or blocked the process that followed them, and all jobs beside theirs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from aiqueue.config import ProviderConfig
from aiqueue.errors import InvalidRequest
from aiqueue.providers.base import Provider
from aiqueue.providers.llama_cpp import LlamaCppProvider
from tests.unit.providers.conftest import chat


@pytest.fixture
async def llama(tiny_gguf: Path) -> AsyncIterator[Provider]:
    provider = LlamaCppProvider("local", ProviderConfig(kind="llama_cpp", model_path=tiny_gguf, context_tokens=512))
    yield provider
    await provider.close()


async def answer(llama: Provider, schema: dict[str, Any]) -> None:
    response_format = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    await llama.run(chat(config={"temperature": 0.0, "max_tokens": 40, "response_format": response_format}))


@pytest.mark.parametrize(
    ("schema", "field"),
    [
        ({"type": "string", "maxLength": 20_000}, "maxLength"),
        ({"type": "string", "maxLength": 2**31}, "maxLength"),
        ({"type": "array", "items": {"type": "integer"}, "maxItems": 20_000}, "maxItems"),
        ({"type": "array", "items": {"type": "string", "maxLength": 20_000}}, "items.maxLength"),
        ({"type": "string", "pattern": "^[ab]{0,20000}$"}, "pattern"),
        ({"type": "string", "pattern": "^((a?){30}){30}$"}, "pattern"),
        ({"type": "string", "pattern": "^((x{0,50}){0,50}){0,50}$"}, "pattern"),
    ],
)
async def test_a_schema_that_ends_the_process_or_never_ends_is_refused_by_name(
    llama: Provider, schema: dict[str, Any], field: str
) -> None:
    with pytest.raises(
        InvalidRequest, match=rf"^Provider local: response_format\.json_schema\.schema\.{field} .*limit"
    ):
        await answer(llama, schema)


async def test_a_schema_that_nothing_can_follow_fails_its_own_job_and_no_other(llama: Provider) -> None:
    beside = asyncio.create_task(llama.run(chat("a job beside it", config={"temperature": 0.0})))
    with pytest.raises(InvalidRequest, match="no token continues the answer as the schema asks"):
        await answer(llama, {"type": "string", "pattern": "^[z-a]$"})
    assert (await beside).response.choices[0].message.content


async def test_a_schema_at_the_limit_is_followed(llama: Provider) -> None:
    await answer(llama, {"type": "string", "minLength": 1, "maxLength": 1_000})
