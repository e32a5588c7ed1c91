"""Who waits for whom: jobs that are taken one by one and jobs that are taken together are noted alike."""

from __future__ import annotations

from collections import Counter

from hypothesis import example, given
from hypothesis import strategies as st

from aiqueue.engine.dependencies import Links
from aiqueue.engine.records import Common, JobRecord, LaneKey
from aiqueue.engine.states import JobState
from aiqueue.protocol import Need

_COMMON = Common(LaneKey("pool", "provider", "model", ""), "chat", 0, "", "batch", 0, 0, 0.0, 0.0, 0.0)
_OTHERS = [f"other-{n}" for n in range(6)]

groups_of_needs = st.lists(
    st.lists(st.lists(st.sampled_from(_OTHERS), min_size=1, max_size=6), min_size=1, max_size=3), max_size=4
)


def linked(groups: list[list[list[str]]], *, together: bool) -> Links:
    """Return the links of jobs that need the same few others, which are live."""
    links = Links()
    live = {job_id: JobRecord(0, job_id, *_COMMON, JobState.QUEUED) for job_id in _OTHERS}
    for at, group in enumerate(groups):
        needs = {f"job-{at}-{n}": tuple(map(Need, needed)) for n, needed in enumerate(group)}
        if not together:
            for job_id, each in needs.items():
                links.add(job_id, each, "fail", live)
            continue
        missing = {job_id: len({need.job_id for need in each}) for job_id, each in needs.items()}
        needed = Counter(need.job_id for each in needs.values() for need in each)
        links.add_all(dict(needs), dict.fromkeys(needs, "fail"), missing, {}, dict(needed))
        children: dict[str, list[str]] = {}
        for job_id, each in needs.items():
            for parent in {need.job_id for need in each}:
                children.setdefault(parent, []).append(job_id)
        links.await_all(children)
    return links


@example([[_OTHERS], [_OTHERS]])
@given(groups_of_needs)
def test_jobs_taken_together_are_noted_as_jobs_taken_one_by_one(groups: list[list[list[str]]]) -> None:
    one_by_one, together = linked(groups, together=False), linked(groups, together=True)
    assert together.fingerprint() == one_by_one.fingerprint()
    for links in (one_by_one, together):
        for job_id in list(links.needs):
            assert all(links.is_needed(need.job_id) for need in links.needs[job_id])
            links.drop(job_id)
        assert not any(map(links.is_needed, _OTHERS))
        assert links.fingerprint() == Links().fingerprint()
