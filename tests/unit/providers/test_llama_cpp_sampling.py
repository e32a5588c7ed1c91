"""Each sampling option of a job reaches llama.cpp: at its extremes its effect is certain."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from aiqueue.config import ProviderConfig
from aiqueue.providers.llama_cpp import LlamaCppProvider
from tests.unit.providers.conftest import chat, request

HOT = {"temperature": 2.0, "min_p": 0.0, "top_k": 0, "top_p": 1.0, "max_tokens": 16}
PROMPTS = ("What is a queue?", "Tell me of the job.", "Why wait and wait and wait?")  # no two tokens are equally likely


@pytest.fixture
async def llama(tiny_gguf: Path) -> AsyncIterator[LlamaCppProvider]:
    provider = LlamaCppProvider("local", ProviderConfig(kind="llama_cpp", model_path=tiny_gguf, context_tokens=512))
    yield provider
    await provider.close()


async def answers(llama: LlamaCppProvider, **config: Any) -> list[str]:
    """One answer to each prompt; a seed of its own, so that luck is the same in each run."""
    found = []
    for seed, prompt in enumerate(PROMPTS):
        answer = await llama.run(chat(prompt, config={"max_tokens": 16, "seed": seed, **config}))
        found.append(answer.response.choices[0].message.content or "")
    return found


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}])
async def test_what_leaves_only_the_likeliest_token_is_greedy_however_hot(
    llama: LlamaCppProvider, narrow: dict[str, float]
) -> None:
    greedy, hot = await answers(llama, temperature=0.0), await answers(llama, **HOT)
    assert hot != greedy, "without it the heat shows"
    assert await answers(llama, **(HOT | narrow)) == greedy


async def test_top_k_leaves_no_token_but_the_k_likeliest(llama: LlamaCppProvider) -> None:
    def first_words(seed: int, top_k: int) -> Any:
        config = HOT | {"top_k": top_k, "max_tokens": 1, "seed": seed}
        return llama.run(request("text_completion", prompt="The", config=config))

    found = {k: {(await first_words(seed, k)).response.choices[0].text for seed in range(40)} for k in (2, 0)}
    assert len(found[2]) == 2
    assert len(found[0]) > 2


@pytest.mark.parametrize("penalty", ["presence_penalty", "frequency_penalty"])
async def test_a_penalty_makes_a_greedy_answer_repeat_less(llama: LlamaCppProvider, penalty: str) -> None:
    async def most_repeated(**config: float) -> int:
        found = await llama.run(chat("Tell me of the job.", config={"temperature": 0.0, "max_tokens": 40, **config}))
        words = (found.response.choices[0].message.content or "").replace(".", "").split()
        return max(words.count(word) for word in words)

    assert await most_repeated(**{penalty: 2.0}) < await most_repeated()


async def test_a_seed_is_the_only_luck_there_is(llama: LlamaCppProvider) -> None:
    assert await answers(llama, **HOT) == await answers(llama, **HOT)
