"""What of a step's arithmetic depends on the company in it.

llama.cpp multiplies one row of numbers by other code than several rows, so a token read alone and one read beside
others may differ in the last bits. What the others are makes no difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from aiqueue.llama.backend import Chunk
from aiqueue.llama.native_context import ContextOptions, NativeContext
from aiqueue.llama.native_model import NativeModel

PROMPT = tuple(range(100, 124))
NEXT = 7


@pytest.fixture(params=["tiny_gguf", "exact_gguf"])
def model(request: pytest.FixtureRequest) -> Iterator[NativeModel]:
    """One of quantised and one of full precision."""
    path: Path = request.getfixturevalue(request.param)
    found = NativeModel(path, gpu_layers=0)
    yield found
    found.close()


def scores(model: NativeModel, *, beside: int, first: int, flash_attention: bool) -> NDArray[np.float32]:
    """Return the scores after PROMPT and NEXT, read beside tokens of others, whose texts begin at token ``first``."""
    context = NativeContext(model, ContextOptions(cells=512, sequences=8, flash_attention=flash_attention))
    context.decode([Chunk(0, 0, PROMPT, scores=False)])
    for other in range(1, beside + 1):
        context.decode([Chunk(other, 0, tuple(range(first + other, first + other + 10)), scores=False)])
    step = [Chunk(0, len(PROMPT), (NEXT,), scores=True)]
    step += [Chunk(other, 10, (first,), scores=True) for other in range(1, beside + 1)]
    context.decode(step)
    found = np.array(context._row(0))
    context.close()
    return found


@pytest.mark.parametrize("flash_attention", [False, True])
def test_what_the_others_say_changes_no_bit(model: NativeModel, flash_attention: bool) -> None:
    for beside in (1, 3, 7):
        one, other = (
            scores(model, beside=beside, first=first, flash_attention=flash_attention) for first in (130, 200)
        )
        assert np.array_equal(one, other)


@pytest.mark.parametrize("flash_attention", [False, True])
def test_a_step_repeated_gives_the_same_bits(model: NativeModel, flash_attention: bool) -> None:
    one, again = (scores(model, beside=3, first=130, flash_attention=flash_attention) for _ in range(2))
    assert np.array_equal(one, again)


def test_how_many_others_there_are_rounds_otherwise_at_most(exact_gguf: Path) -> None:
    model = NativeModel(exact_gguf, gpu_layers=0)
    alone = scores(model, beside=0, first=130, flash_attention=False)
    second, best = np.sort(alone)[-2:]
    for beside in (1, 3, 7):
        company = scores(model, beside=beside, first=130, flash_attention=False)
        assert np.abs(company - alone).max() < 1e-4 < best - second
    model.close()
