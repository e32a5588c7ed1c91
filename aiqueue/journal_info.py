"""The journal that a queue has open, as people are shown it: an empty one in the wrong place must be noticed."""

from __future__ import annotations

from datetime import datetime

import msgspec

_SHOWN = 8  # characters


class JournalInfo(msgspec.Struct, kw_only=True, rename="camel", frozen=True, gc=False):
    """In statistics, in a health check and in an answer to a client's hello."""

    id: str
    path: str
    node: str  #: host name and address
    made_at: datetime | None  #: None for a journal of a release that did not note it
    opened_at: datetime
    jobs: int  #: that were in it when it was opened
    open_jobs: int  #: of these, those that had not ended

    def __str__(self) -> str:
        made = f", made {self.made_at:%Y-%m-%d %H:%M} UTC" if self.made_at else ""
        found = f"{self.jobs:,} jobs found, {self.open_jobs:,} of them not ended"
        return f"{self.path} on {self.node}: id {shown(self.id)}{made}, {found}"


def shown(journal_id: str) -> str:
    """Return a journal's id as people are told it: its end, since those of one day begin alike.

    >>> shown("01985a3000007000800000000000ff05")
    '0000ff05'
    """
    return journal_id[-_SHOWN:]
