"""Groups that wait to be looked up, in the order they came. A group is behind those before it that share its names.

The disk may hang with many groups in line. So the names of those that stay are kept, and a group that comes is compared
with them. All are gone through again, in parts, only when something has changed for those that stay: a commit that one
of them waits for is on disk, or a caller has gone away.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence, Set

from aiqueue.service.asked import Answer, Asked
from aiqueue.service.commits import Committed
from aiqueue.waiting import Pace, Parts


class Line:
    """``wake`` is called when a group that stays may go on."""

    def __init__(self, wake: Callable[[], object]) -> None:
        self._wake = wake
        self._new: deque[Asked] = deque()  # behind those that stay
        self._stay: deque[Asked] = deque()  # wait for a commit, or are behind another of them
        self._ahead = _Names()  # of those that stay
        self._has_changed = False

    def __bool__(self) -> bool:
        return bool(self._new or self._stay)

    def join(self, groups: Iterable[Asked]) -> None:
        """Put groups at the end."""
        self._new.extend(groups)

    def put_back(self, groups: Sequence[Asked], settled: Committed) -> None:
        """Put groups first in line; they wait for this commit."""
        for one in groups:
            one.after = settled
            self._let_stay(one)
        self._stay.rotate(len(groups))
        settled.add_done_callback(self._change)

    def take(self, most_bytes: int) -> Parts[list[Asked]]:
        """Remove and return the groups of the next round.

        A group whose caller has gone away is dropped when its turn comes. What is behind a full round is not looked at.
        """
        if self._has_changed:
            self._has_changed = False
            self._stay.extend(self._new)
            self._new, self._stay, self._ahead = self._stay, deque(), _Names()
        taken: list[Asked] = []
        weight, pace = 0, Pace()  # counts sets compared; each time the smaller one is gone through
        while self._new and weight < most_bytes:
            if pace.is_full(1 + self._ahead.many):
                yield
            one = self._new.popleft()
            if one.answered.done():
                continue
            is_free = one.after is None or one.after.done()
            if one.after is not None and is_free and (error := one.after.exception()):
                one.fail(error)
            elif is_free and not self._ahead.are_before(one):
                taken.append(one)
                weight += one.weight
            else:
                self._let_stay(one)
        return taken

    def _let_stay(self, one: Asked) -> None:
        self._stay.append(one)
        self._ahead.add(one)
        one.answered.remove_done_callback(self._went_away)  # of an earlier time
        one.answered.add_done_callback(self._went_away)

    def _went_away(self, answered: asyncio.Future[Answer]) -> None:
        if answered.cancelled():
            self._change(answered)

    def _change(self, _: object) -> None:
        self._has_changed = True
        self._wake()


class _Names:
    """Names of groups that stay in line. The ids of large groups are not copied: there may be 100,000 of each."""

    def __init__(self) -> None:
        self._small: set[str] = set()
        self._large: list[Set[str]] = []  # ids

    @property
    def many(self) -> int:
        """How many sets a group is compared with, beyond one."""
        return len(self._large)

    def add(self, one: Asked) -> None:
        """Take in the names of a group."""
        self._small.update(one.names)
        if one.is_large:
            self._large.append(one.ids)
        else:
            self._small.update(one.ids)

    def are_before(self, one: Asked) -> bool:
        """Return True if the group is behind one of those that have these names."""
        return one.is_behind(self._small) or any(map(one.is_behind, self._large))
