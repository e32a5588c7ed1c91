"""What a template finds in the answers that a job waited for."""

from __future__ import annotations

import pytest

from aiqueue.errors import TemplateFailed
from aiqueue.protocol import JobInput
from aiqueue.results import encode_result
from aiqueue.templates import fill, parse
from aiqueue.testing.jobs import result

ARABIC_ONE = "\u0661"


def answer(text: str, *names: str, place: int = -1) -> JobInput:
    return JobInput(names, "completed", encode_result(result(text)), place=place)


@pytest.mark.parametrize("step", ["²", "1²", ARABIC_ONE, "-1", "1_0", "3"])
def test_a_text_that_is_no_place_of_a_list_fails_the_job_with_that_text(step: str) -> None:
    with pytest.raises(TemplateFailed, match=r"has no .* there") as failed:
        fill({"prompt": f"{{{{previous.json.items.{step}}}}}"}, [answer('{"items": [1, 2, 3]}', "previous")])
    assert step in str(failed.value)


@pytest.mark.parametrize("step", ["²", ARABIC_ONE, "-1", "1_0", " 1"])
def test_brackets_hold_only_the_digits_0_to_9(step: str) -> None:
    with pytest.raises(ValueError, match="is no template"):
        parse(f"previous.json.items[{step}]")


def test_a_key_of_an_object_may_have_any_digits() -> None:
    found = fill({"prompt": "{{previous.json.²}}"}, [answer('{"²": "squared"}', "previous")])
    assert found == {"prompt": "squared"}


def test_what_an_earlier_release_put_into_the_journal_means_what_it_meant() -> None:
    inputs = [answer("one", "steps.0", "steps.1"), answer("two", "steps.1", "steps.2")]
    assert fill({"prompt": "{{steps.0}} {{steps.1}} {{results[0]}} {{results[1]}}"}, inputs) == {
        "prompt": "one two one two"
    }


def test_a_skipped_result_keeps_its_place() -> None:
    inputs = [answer("one", place=0), answer("three", place=2)]
    assert fill({"prompt": "{{results[0]}} {{results[2]}}"}, inputs) == {"prompt": "one three"}
    with pytest.raises(TemplateFailed, match="its job was skipped"):
        fill({"prompt": "{{results[1]}}"}, inputs)
