"""Run many seeds, or one again: ``python -m aiqueue.testing.simulation --help``."""

from __future__ import annotations

import argparse
import gc
import re
import sys
import time
from collections import Counter

from aiqueue.testing.simulation.many import failures, quiet
from aiqueue.testing.simulation.run import Report, simulate
from aiqueue.testing.simulation.world import FAULTS


def main() -> int:
    """Return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m aiqueue.testing.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000, help="how many")
    parser.add_argument("--from", type=int, default=0, dest="first", metavar="SEED", help="the first one")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument(
        "--keep-going", action="store_true", help="do not stop at the first failure; count them by kind"
    )
    parser.add_argument("--seed", type=int, help="run this one alone")
    parser.add_argument("--trace", action="store_true", help="print all that happened")
    parser.add_argument("--only", nargs="+", default=(), metavar="FAULT", choices=FAULTS, help="no other faults")
    given = parser.parse_args()
    if given.seed is not None:
        with quiet():
            return _show(simulate(given.seed, given.only), trace=given.trace)
    started, kinds, broken = time.monotonic(), Counter[str](), 0
    for report in failures(given.first, given.seeds, given.jobs, given.only):
        broken += 1
        for kind in {_kind(violation) for violation in report.violations}:
            if kind not in kinds:
                print(f"seed {report.seed}: {kind}", flush=True)
            kinds[kind] += 1
        if not given.keep_going:
            return _show(report, trace=True)
    for kind, count in kinds.most_common():
        print(f"{count:7} {kind}")
    print(f"{given.seeds} seeds, {broken} broke a promise, {time.monotonic() - started:.0f} s")
    return 1 if broken else 0


def _kind(violation: str) -> str:
    """Return a violation without what differs from seed to seed."""
    rule, _, details = violation.partition(": ")
    return rule if not rule.endswith("raised") else re.sub(r"[0-9a-f]{12}|[0-9]+", "#", f"{rule}: {details}")[:90]


def _show(report: Report, *, trace: bool) -> int:
    if trace:
        print("\n".join(report.trace))
    for violation in report.violations:
        print(f"VIOLATED: {violation}".encode("utf-8", "backslashreplace").decode())
    print(f"faults: {report.happened}")
    print(f"again: python -m aiqueue.testing.simulation --seed {report.seed} --trace")
    return 1 if report.violations else 0


if __name__ == "__main__":
    gc.freeze()
    sys.exit(main())
