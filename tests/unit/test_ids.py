"""Job ids."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from uuid import RFC_4122, UUID

import pytest

from aiqueue.ids import JobIdFactory, new_id, new_job_ids, shard_of


def test_an_id_is_a_uuid_of_version_7_with_the_time_in_front() -> None:
    before = time.time_ns() // 1_000_000
    (text,) = JobIdFactory().take(1)
    found = UUID(text)
    assert str(found) == text
    assert (found.version, found.variant) == (7, RFC_4122)
    assert before <= found.int >> 80 <= time.time_ns() // 1_000_000


def test_ids_grow_and_are_unique_over_a_hundred_thousand() -> None:
    factory = JobIdFactory()
    ids = [text for size in (1, 7, 4_095, 4_096, 4_097, 50_000, 40_000) for text in factory.take(size)]
    assert len(ids) > 100_000
    assert ids == sorted(set(ids))


def test_ids_of_several_threads_are_unique_and_grow_in_each() -> None:
    factory = JobIdFactory()
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda _: [factory.take(50) for _ in range(40)], range(4)))
    flat = [[text for take in part for text in take] for part in parts]
    assert all(part == sorted(part) for part in flat)
    assert len({text for part in flat for text in part}) == 8_000


def test_ids_of_two_processes_do_not_meet() -> None:
    first, second = JobIdFactory().take(10_000), JobIdFactory().take(10_000)
    assert not set(first) & set(second)


@pytest.mark.parametrize("shard", [0, 1, 5, 255])
def test_the_last_byte_is_the_shard(shard: int) -> None:
    ids = new_job_ids(100, shard=shard)
    assert {UUID(text).bytes[-1] for text in ids} == {shard}
    assert {shard_of(text, 256) for text in ids} == {shard}
    assert {shard_of(text, 1) for text in ids} == {0}


def test_all_other_bits_are_random() -> None:
    ids = [UUID(text).int for text in new_job_ids(2_000)]
    for bit in range(8, 62):
        assert 0.4 < sum(value >> bit & 1 for value in ids) / len(ids) < 0.6, f"bit {bit}"


def test_no_ids_are_no_ids() -> None:
    assert new_job_ids(0) == []


def test_other_ids_say_what_they_are_of() -> None:
    assert new_id("worker").startswith("worker-")
    assert new_id("worker") != new_id("worker")
