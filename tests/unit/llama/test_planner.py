"""What a step reads: properties over any line of sequences."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiqueue.llama.planner import Want, plan_step

BATCH = 64


@st.composite
def lines(draw: st.DrawFn) -> list[Want]:
    kinds = draw(st.lists(st.booleans(), max_size=32))
    return [
        Want(number, 1 if generating else draw(st.integers(1, 500)), generating)
        for number, generating in enumerate(kinds)
    ]


budgets = st.integers(1, BATCH)


def prompts_of(wants: list[Want]) -> list[Want]:
    return [want for want in wants if not want.generating]


@given(wants=lines(), prompt_tokens=budgets)
def test_whoever_generates_reads_one_token_in_every_step(wants: list[Want], prompt_tokens: int) -> None:
    plan = plan_step(wants, batch_tokens=BATCH, prompt_tokens=prompt_tokens)
    assert all(plan[want.sequence] == 1 for want in wants if want.generating)


@given(wants=lines(), prompt_tokens=budgets)
def test_a_step_carries_no_more_than_it_can_and_nobody_reads_more_than_there_is(
    wants: list[Want], prompt_tokens: int
) -> None:
    plan = plan_step(wants, batch_tokens=BATCH, prompt_tokens=prompt_tokens)
    assert sum(plan.values()) <= BATCH
    assert all(0 < plan[want.sequence] <= want.tokens for want in wants if want.sequence in plan)
    assert plan.keys() <= {want.sequence for want in wants}


@given(wants=lines(), prompt_tokens=budgets)
def test_prompts_get_all_that_is_left_but_a_chunk_at_most_while_others_generate(
    wants: list[Want], prompt_tokens: int
) -> None:
    plan = plan_step(wants, batch_tokens=BATCH, prompt_tokens=prompt_tokens)
    prompts = prompts_of(wants)
    generating = len(wants) - len(prompts)
    left = min(BATCH - generating, prompt_tokens) if generating else BATCH
    read = sum(plan.get(want.sequence, 0) for want in prompts)
    assert read == min(left, sum(want.tokens for want in prompts))


@given(wants=lines(), prompt_tokens=budgets)
def test_the_first_prompt_in_line_gets_at_least_half(wants: list[Want], prompt_tokens: int) -> None:
    prompts = prompts_of(wants)
    if prompts:
        plan = plan_step(wants, batch_tokens=BATCH, prompt_tokens=prompt_tokens)
        read = sum(plan.get(want.sequence, 0) for want in prompts)
        assert plan[prompts[0].sequence] >= min(prompts[0].tokens, read / 2)


def test_a_short_prompt_passes_a_long_one() -> None:
    wants = [Want(0, 1, True), Want(1, 10_000, False), Want(2, 5_000, False), Want(3, 7, False)]
    assert plan_step(wants, batch_tokens=512, prompt_tokens=40) == {0: 1, 1: 20, 3: 7, 2: 13}


def test_alone_a_prompt_gets_the_whole_batch() -> None:
    assert plan_step([Want(4, 900, False)], batch_tokens=512, prompt_tokens=64) == {4: 512}


def test_more_that_generate_than_a_step_carries_is_an_error() -> None:
    with pytest.raises(ValueError, match="3 sequences generate, but a step carries 2 tokens"):
        plan_step([Want(n, 1, True) for n in range(3)], batch_tokens=2, prompt_tokens=1)
