"""Which releases understand each other, and what is said where they do not."""

from __future__ import annotations

from itertools import product

import pytest
from ray._private.utils import check_version_info

from aiqueue import versions
from aiqueue.own_version import own_version
from aiqueue.versions import CHANGES, OLDEST, PROTOCOL, Version, other_ray, refusal


def release(protocol: int, oldest: int) -> Version:
    return Version(protocol, oldest, f"0.{protocol}.0", "3.11.7", "2.60.0")


def test_every_protocol_has_a_row_and_the_one_before_is_understood() -> None:
    assert list(CHANGES) == list(range(PROTOCOL + 1))
    assert OLDEST < PROTOCOL, "or no cluster could be upgraded process by process"
    assert not refusal(Version(), own_version())
    assert not refusal(own_version(), Version())


def test_two_sides_work_together_if_each_understands_what_the_other_speaks() -> None:
    for caller, oldest, queue, queues_oldest in product(range(4), repeat=4):
        if oldest <= caller and queues_oldest <= queue:
            said = refusal(release(caller, oldest), release(queue, queues_oldest))
            assert bool(said) == (caller < queues_oldest or queue < oldest)


def test_a_process_that_is_too_old_is_told_what_to_install() -> None:
    assert refusal(Version(), release(3, 2)) == (
        "this process speaks protocol 0 (an aiqueue that does not say its version), and the queue protocol 3 "
        "(aiqueue 0.3.0, Python 3.11.7, Ray 2.60.0), which understands 2 and newer: install aiqueue 0.3.0 here"
    )


def test_a_queue_that_is_too_old_is_said_to_be_with_what_to_do() -> None:
    said = refusal(release(3, 2), release(1, 0))
    assert said.startswith("this process speaks protocol 3 (aiqueue 0.3.0,")
    assert "the queue protocol 1 (aiqueue 0.1.0," in said
    assert "This process understands 2 and newer" in said
    assert "`aiqueue down`, then `aiqueue up`" in said


def test_a_version_of_a_newer_release_may_say_more_and_one_of_an_older_less() -> None:
    newer = versions.encode([3, 2, "0.3.0", "3.11.7", "2.60.0", "something new"])
    assert versions.decode(newer) == release(3, 2)
    assert versions.decode(versions.encode([1])) == Version(1)


OWN = own_version()


@pytest.mark.parametrize(
    ("ray", "python", "advice"),
    [
        (OWN.ray, "3.99.1", f"use Python 3.99.1 with ray=={OWN.ray} here"),
        ("2.1.0", OWN.python, f"use Python {OWN.python} with ray==2.1.0 here"),
        (OWN.ray, f"{OWN.python}99", "RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL=minor"),
    ],
    ids=["Python", "Ray", "patch release of Python"],
)
def test_what_ray_says_of_another_python_or_ray_becomes_one_sentence(ray: str, python: str, advice: str) -> None:
    with pytest.raises(RuntimeError) as raised:
        check_version_info({"ray_version": ray, "python_version": python}, "node 10.0.0.2")
    said = other_ray(str(raised.value))
    assert (
        f"the cluster runs Ray {ray} on Python {python}, and this process Ray {OWN.ray} on Python {OWN.python}" in said
    )
    assert advice in said
    assert "\n" not in said


def test_only_a_patch_release_that_differs_can_be_let_pass() -> None:
    with pytest.raises(RuntimeError) as raised:
        check_version_info({"ray_version": "2.60.0", "python_version": "3.99.1"}, "node 10.0.0.2")
    assert "MATCH_LEVEL" not in other_ray(str(raised.value))


def test_what_else_ray_says_is_none_of_that() -> None:
    assert not other_ray("The current node timed out during startup.")
