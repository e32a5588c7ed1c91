"""A name or an id that a caller chooses is found at its address, or refused when it is chosen."""

from __future__ import annotations

import string
from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest

from aiqueue.client.schedule_models import ScheduleDefinition
from aiqueue.errors import ValidationError
from aiqueue.testing.jobs import chat
from tests.http.conftest import fields_of
from tests.http.rig import Rig

ODD = [*string.punctuation, " ", "ä", "²", "👍"]
NAMES = [name for mark in ODD for name in (mark, mark * 2, mark * 3, f"a{mark}b", f"{mark}b", f"a{mark}")]
NAMES += ["%2F", "%2e%2e", "a%2fb", "./", ".a", "..a", "run", "next", "schedule-01890000-0000-7000-8000-000000000000"]


def has_an_address(name: str) -> bool:
    """Return False for what a client or a proxy makes another path of."""
    return "/" not in name and bool(name.strip("."))


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with Rig() as made, made.serving():
        made.adapter = await made.client()
        yield made


async def test_a_schedule_is_found_by_its_name_or_the_name_is_refused(rig: Rig) -> None:
    for name in NAMES:
        added = await rig.http.post("/ai/schedules", json={"payload": chat(), "name": name, "cronExpression": "@daily"})
        if not has_an_address(name):
            assert added.status_code == 400, name
            assert fields_of(added) == ["name"]
            continue
        path = f"/ai/schedules/{quote(name, safe='')}"
        found = [await rig.http.get(path), await rig.http.get(f"{path}/next"), await rig.http.post(f"{path}/run")]
        assert [each.status_code for each in found] == [200, 200, 202], name
        assert (await rig.http.delete(path)).json()["scheduleId"] == added.json()["scheduleId"], name


async def test_a_batch_is_found_by_an_id_that_its_caller_chose_or_the_id_is_refused(rig: Rig) -> None:
    for name in NAMES:
        if not has_an_address(name):
            with pytest.raises(ValidationError, match="batch_id"):
                await rig.adapter.submit_jobs([chat()], batch_id=name)
            continue
        await rig.adapter.submit_jobs([chat()], batch_id=name)
        path = f"/ai/batches/{quote(name, safe='')}"
        found = [await rig.http.get(path), await rig.http.get(f"{path}/results"), await rig.http.post(f"{path}/cancel")]
        assert [each.status_code for each in found] == [200, 200, 200], name
        assert found[0].json()["batchId"] == name


async def test_an_address_that_is_no_batchs_id_is_not_found(rig: Rig) -> None:
    for name in ["nobody", "x" * 129, "a%0Ab", "a%2Fb"]:
        assert (await rig.http.get(f"/ai/batches/{name}")).status_code == 404, name


async def test_a_schedule_of_an_earlier_release_whose_name_has_no_address_is_found_by_its_id(rig: Rig) -> None:
    definition = ScheduleDefinition(name="new", cron_expression="@daily").model_copy(update={"name": "a/b"})
    added = await rig.adapter.schedules.put(chat(), definition)
    found = await rig.http.get(f"/ai/schedules/{added.schedule_id}")
    assert (found.status_code, found.json()["name"]) == (200, "a/b")
    assert (await rig.adapter.schedules.get("a/b")).schedule_id == added.schedule_id
