"""JSON nested deeper than anything reads it: refused where it comes in, on every route and socket."""

from __future__ import annotations

import json
import logging
from uuid import uuid4

import pytest

from aiqueue.testing.jobs import chat
from serve.app import _PARTS
from serve.routes.socket import POLICY
from tests.http.rig import Rig

DEPTHS = (500, 5_000, 100_000)
JSON = {"content-type": "application/json"}
WITH_BODY = sorted({found.path for _, part in _PARTS for found in part if found.method == "POST"})
GOOD = json.dumps(chat("x"))


def deep(depth: int) -> list[str]:
    """Return JSON that is nested so deep, by lists and by objects."""
    return ["[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth]


def bodies(inner: str) -> list[str]:
    """Return bodies of all routes with ``inner`` where each may have something of its caller's."""
    odd = GOOD[:-1] + f', "config": {{"extra": {inner}}}}}'
    return [
        inner,
        f'{{"payload": {inner}}}',
        f'{{"payload": {odd}}}',
        f'{{"payload": {GOOD}, "options": {{"metadata": {inner}}}}}',
        f'{{"jobs": {inner}}}',
        f'{{"jobs": [{", ".join([GOOD] * 150)}, {inner}]}}',
        f'{{"jobs": [7, {", ".join([GOOD] * 150)}, {odd}]}}',
        f'{{"jobs": [{GOOD}], "x": {inner}}}',
        f'{{"steps": [{GOOD}, {odd}]}}',
        f'{{"nodes": {{"a": {{"payload": {odd}}}}}}}',
        f'{{"nodes": {{"a": {{"payload": {GOOD}, "dependsOn": {inner}}}}}}}',
        f'{{"nodes": {inner}}}',
        f'{{"jobIds": {inner}}}',
        f'{{"model": {inner}}}',
    ]


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("path", WITH_BODY)
async def test_a_body_nested_too_deep_is_refused_on_every_route(rig: Rig, path: str, depth: int) -> None:
    address = path.format(job_id=uuid4(), batch_id=uuid4(), schedule=uuid4(), schedule_id=uuid4(), name=uuid4())
    for inner in deep(depth):
        for body in bodies(inner):
            answer = await rig.http.post(address, content=body, headers=JSON)
            assert 400 <= answer.status_code < 500, (body[:80], answer.text)
            assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("depth", DEPTHS)
async def test_a_websocket_message_nested_too_deep_is_refused(
    rig: Rig, depth: int, caplog: pytest.LogCaptureFixture
) -> None:
    for inner in deep(depth):
        if len(inner) > 60_000:
            inner = inner[:60_000]
        for message in (inner, f'{{"event": "subscribe:job", "data": {inner}}}'):
            async with rig.socket() as socket:
                socket.put(type="websocket.receive", text=message)
                heard = await socket.hear()
            assert heard == {"closed": POLICY} or heard.get("event") == "job:error", heard
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
