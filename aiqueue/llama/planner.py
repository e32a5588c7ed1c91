"""Which tokens the next step of the model reads. Pure: the engine asks, and carries the answer out.

A step reads one token of each sequence that is generating, always, so nobody's answer stands still. What is left of
the batch goes to prompts. While somebody generates, prompts get ``prompt_tokens`` a step at most: a long one is read in
chunks and delays the others by no more than a chunk each.

Among prompts, the first in line gets at least half, so it can't starve; the shortest of the others come next, so a
short one does not wait for a long one; and what they leave goes to the first again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Want(NamedTuple):
    """A sequence that has ``tokens`` to be read; ``generating``: it has one, the last of its answer so far."""

    sequence: int
    tokens: int
    generating: bool


def plan_step(wants: Sequence[Want], *, batch_tokens: int, prompt_tokens: int) -> dict[int, int]:
    """Return how many tokens each sequence reads in the next step; those that read none are left out.

    ``wants`` are in the order of the line. ``batch_tokens`` is what a step can carry.

    >>> plan_step([Want(0, 1, True), Want(1, 900, False), Want(2, 20, False)], batch_tokens=512, prompt_tokens=64)
    {0: 1, 1: 44, 2: 20}
    """
    plan = {want.sequence: 1 for want in wants if want.generating}
    prompts = [want for want in wants if not want.generating]
    if len(plan) > batch_tokens:
        raise ValueError(f"{len(plan)} sequences generate, but a step carries {batch_tokens} tokens")
    left = batch_tokens - len(plan)
    if plan:
        left = min(left, prompt_tokens)
    if not prompts or not left:
        return plan
    first, others = prompts[0], sorted(prompts[1:], key=lambda want: want.tokens)  # stable: ties in order of the line
    plan[first.sequence] = min(first.tokens, (left + 1) // 2)
    left -= plan[first.sequence]
    for want in others:
        if not left:
            break
        plan[want.sequence] = min(want.tokens, left)
        left -= plan[want.sequence]
    plan[first.sequence] += min(left, first.tokens - plan[first.sequence])
    return plan
