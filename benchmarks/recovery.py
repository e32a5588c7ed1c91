"""Parts of a cluster lose their power or their cable under load: how long, what is lost, what is called again.

Each run has five hosts of its own on this machine (tests/tools/hosts), so it needs root and takes one to four minutes.
It runs only when it is named; some scenarios alone, once: ``python -m benchmarks.recovery --runs 1 worker_node …``
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from benchmarks.cluster_under_load import HEAD, ONE, OTHER, QUEUE, SPARE, Outcome, scene, wait_for
from benchmarks.harness import Figure
from tests.tools.hosts import why_no_hosts

_RUNS = 3
_OFF_S = 8.0  #: a machine that starts again at once
_HEADER = "| killed | works again after | lost | calls repeated | |\n| --- | --- | --- | --- | --- |"
_GONE_S = 60.0  #: after that long without a call a system is taken not to come back


def worker_node() -> Outcome:
    """A node with workers loses its power; its jobs are called again elsewhere."""
    with scene(300) as running:
        running.wait_until_busy(ONE)
        running.hosts[ONE].power_off()
        jobs, fault = running.running_on(ONE), time.monotonic()
        again = running.called_again(jobs, fault)
        return running.outcome(again and again - fault)


def gpu_node() -> Outcome:
    """The only node with a GPU loses its power and comes back; until its first call there."""
    with scene(100, provider="gpu", gpu=True) as running:
        fault = time.monotonic()
        running.hosts[SPARE].power_off()
        _pause(_OFF_S)
        running.hosts[SPARE].power_on()
        running.rejoin(SPARE)
        back = running.call_after(fault + _OFF_S, SPARE)
        return running.outcome(back and back - fault, f"off for {_OFF_S:g} s")


def queue_node() -> Outcome:
    """The queue's node loses its power and comes back with its disk; until the next call."""
    with scene(300) as running:
        fault = time.monotonic()
        running.hosts[QUEUE].power_off()
        _pause(_OFF_S)
        running.hosts[QUEUE].power_on()
        running.rejoin(QUEUE)
        back = running.call_after(fault + _OFF_S)
        return running.outcome(back and back - fault, f"off for {_OFF_S:g} s")


def queue_node_replaced() -> Outcome:
    """The queue's node is replaced by one with an empty disk: the jobs are on the old one."""
    with scene(300) as running:
        fault = time.monotonic()
        running.hosts[QUEUE].replace()
        running.hosts[QUEUE].power_on()
        running.rejoin(QUEUE)
        back = running.call_after(fault + _OFF_S, limit_s=_GONE_S)
        wrong = running.client.states().get("unknown", 0)
        note = "starts on an empty journal" if wrong else "does not start without its journal"
        return running.outcome(back and back - fault, note, finishes=False)


def head_without_its_state() -> Outcome:
    """The head loses its power and what it knew: all nodes join it anew, and `up` is run again."""
    with scene(600, at=QUEUE) as running:
        fault = time.monotonic()
        running.hosts[HEAD].power_off()
        _pause(_OFF_S)
        running.hosts[HEAD].power_on()
        running.cluster.start_head()
        ended = wait_for(lambda: all(node.ended() is not None for node in running.raylets.values()) or None, 120)
        if not ended:
            return running.outcome(None, "the other nodes neither end nor join", finishes=False)
        running.rejoin(QUEUE, ONE, OTHER)
        running.up_again()
        back = running.call_after(time.monotonic() - 1)
        running.client = running.cluster.watch(running.hosts[HEAD], running.accepted)
        return running.outcome(back and back - fault, "nodes joined and `up` run again by hand")


def head_with_redis() -> Outcome:
    """The head loses its power; Ray's state is in Redis on another host. The longest time without a call."""
    return _head_that_is_missed("redis")


def head_with_its_disk() -> Outcome:
    """As before, but Ray's state is on the head's disk, in Ray's embedded store."""
    return _head_that_is_missed("disk")


def _head_that_is_missed(state: str) -> Outcome:
    with scene(600, at=QUEUE, state=state) as running:
        fault = time.monotonic()
        running.hosts[HEAD].power_off()
        _pause(2 * _OFF_S)
        running.hosts[HEAD].power_on()
        running.cluster.start_head()
        note = f"off for {time.monotonic() - fault:.0f} s; longest time without a call"
        done = running.outcome(0.0, note)
        began = sorted(call.began for call in running.provider.calls() if call.began > fault)
        gap_s = max((after - before for before, after in zip([fault, *began], began, strict=False)), default=0.0)
        return Outcome(gap_s, done.lost, done.repeated, done.note)


def partition_20_s() -> Outcome:
    """A node with workers is cut off for 20 s; until the jobs that ran there are called again, or it calls again."""
    return _partition(20.0)


def partition_120_s() -> Outcome:
    """As before, for 120 s: its raylet ends when it is back, and something must start it again."""
    return _partition(120.0)


def _partition(cut_s: float) -> Outcome:
    with scene(round(10 + cut_s) * 6, latency_s=2.0) as running:
        running.wait_until_busy(ONE)
        running.hosts[ONE].cut()
        jobs, fault = running.running_on(ONE), time.monotonic()
        _pause(cut_s)
        running.hosts[ONE].join()
        wait_for(lambda: running.raylets[ONE].ended() is not None or running.called_by(ONE, fault + cut_s) or None, 60)
        ended = running.raylets[ONE].ended() is not None
        if ended:
            running.rejoin(ONE)
        called = {call.job: call.began for call in running.provider.calls() if call.began > fault and call.job in jobs}
        back = running.call_after(fault + cut_s, ONE, limit_s=_GONE_S)
        again = f"{len(called)} of its {len(jobs)} jobs called again"
        last = f" after {max(called.values()) - fault:.0f} s" if called else ""
        return running.outcome(back and back - fault, f"{again}{last}; its raylet {'ended' if ended else 'went on'}")


SCENARIOS: dict[str, Callable[[], Outcome]] = {
    each.__name__: each
    for each in (
        *(worker_node, gpu_node, queue_node, queue_node_replaced),
        *(head_without_its_state, head_with_redis, head_with_its_disk, partition_20_s, partition_120_s),
    )
}


def run(names: Sequence[str] = tuple(SCENARIOS), runs: int = _RUNS) -> Iterator[Figure]:
    """Yield the figures, then print the table for the docs."""
    if why_not := why_no_hosts():
        sys.exit(why_not)
    rows = []
    for name in names:
        if name == head_with_redis.__name__ and not shutil.which("redis-server"):
            print(f"{name} is left out: there is no redis-server (Debian, Ubuntu: apt install redis-server)")
            continue
        outcomes = [SCENARIOS[name]() for _ in range(runs)]
        rows.append(_row(name, outcomes))
        print(rows[-1], flush=True)
        title = name.replace("_", " ")
        if back := [each.seconds for each in outcomes if each.seconds is not None]:
            yield Figure(name=f"recovery, {title}: works again after", value=statistics.median(back), unit="s")
        yield Figure(name=f"recovery, {title}: lost", value=max(each.lost for each in outcomes), unit="jobs", floor="0")
        yield Figure(name=f"recovery, {title}: repeated", value=max(each.repeated for each in outcomes), unit="calls")
    print("\n".join((_HEADER, *rows)))


def _row(name: str, outcomes: Sequence[Outcome]) -> str:
    back = ", ".join("never" if each.seconds is None else f"{each.seconds:.1f} s" for each in outcomes)
    lost = ", ".join(str(each.lost) for each in outcomes)
    repeated = ", ".join(str(each.repeated) for each in outcomes)
    notes = "; ".join(dict.fromkeys(each.note for each in outcomes if each.note))
    return f"| {name.replace('_', ' ')} | {back} | {lost} | {repeated} | {notes} |"


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--runs", type=int, default=_RUNS)
    given = parser.parse_args()
    for _ in run(given.names or tuple(SCENARIOS), given.runs):
        pass
