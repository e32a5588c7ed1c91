"""Which releases of aiqueue understand each other: one number for all that clients, queue and workers say.

Most changes need no number. Fields are appended to messages with defaults and arguments to calls with defaults, so
each side reads what a neighbouring release says. A release whose peers must know of a change takes the next number and
a row in ``CHANGES``, and raises ``OLDEST`` once it can't bear those below: at most to the number before its own, so
that a cluster can be upgraded process by process.
"""

from __future__ import annotations

import msgspec

#: What each protocol brought.
CHANGES = {
    0: "The releases that say no version.",
    1: "hello takes the caller's Version and tells the queue's; a worker's exchange names its protocol.",
}
PROTOCOL = max(CHANGES)  #: what this release speaks
OLDEST = 0  #: what it still understands


class Version(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """What a process runs, as it says itself. The default is one that says nothing."""

    protocol: int = 0
    oldest: int = 0  #: protocol that it understands
    release: str = ""
    python: str = ""
    ray: str = ""

    def __str__(self) -> str:
        if not self.release:
            return f"{self.protocol} (an aiqueue that does not say its version)"
        return f"{self.protocol} (aiqueue {self.release}, Python {self.python}, Ray {self.ray})"


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Version).decode


def refusal(caller: Version, queue: Version) -> str:
    """Return why a caller and a queue can't work together and what to do; empty if they can. Both come to the same.

    >>> refusal(Version(1, oldest=0), Version(2, oldest=1))
    ''
    """
    both = f"this process speaks protocol {caller}, and the queue protocol {queue}"
    if caller.protocol < queue.oldest:
        return f"{both}, which understands {queue.oldest} and newer: install aiqueue {queue.release} here"
    if queue.protocol < caller.oldest:
        return (
            f"{both}. This process understands {caller.oldest} and newer: install the queue's release here, or upgrade "
            "the queue (`aiqueue down`, then `aiqueue up` with the new release; accepted jobs stay in its journal)"
        )
    return ""


def other_ray(said: str) -> str:
    """Return what to do where Ray says that the cluster has another Python or Ray; empty if it says something else."""
    lines = [line.strip().partition(": ") for line in said.splitlines()]
    facts = [fact for name, _, fact in lines if name in ("Ray", "Python")]
    if not said.startswith("Version mismatch: ") or len(facts) != 4:  # both of the cluster, both of this process
        return ""
    ray, python, own_ray, own_python = facts
    advice = (
        f"use Python {python} with ray=={ray} here, as the cluster does, or the HTTP API, which any program can use"
    )
    if ray == own_ray and python.split(".")[:2] == own_python.split(".")[:2]:
        advice += (
            "; or, since no more than Python's patch release differs, RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL=minor"
        )
    return (
        f"the cluster runs Ray {ray} on Python {python}, and this process Ray {own_ray} on Python {own_python}, which "
        f"Ray does not let join: {advice}"
    )
