"""Which tests need a cluster, and which process they go to where tests run in several."""

from __future__ import annotations

from xdist.scheduler import LoadFileScheduling

_WITH_CLUSTER = tuple(f"tests/{folder}/" for folder in ("cluster", "crash", "faults", "gpu", "http", "notebooks"))


def needs_cluster(nodeid: str) -> bool:
    """Tell whether a test starts a Ray cluster or uses the shared one."""
    return nodeid.startswith(_WITH_CLUSTER)


class OneCluster(LoadFileScheduling):
    """Tests with a cluster go to one process, the files of the others to whichever is free.

    The others come first (tests/conftest.py), so those with a cluster have the machine for themselves. Two clusters at
    once on two cores fell over, and one beside tests that never wait lost workers that answered too late.
    """

    def _split_scope(self, nodeid: str) -> str:
        return "cluster" if needs_cluster(nodeid) else super()._split_scope(nodeid)
