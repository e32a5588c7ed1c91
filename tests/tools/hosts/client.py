"""A client on one of the hosts: it submits jobs, then asks for all of them until they have ended.

Run as a program in the environment of a driver: ``python -m tests.tools.hosts.client NAMESPACE PROVIDER NUMBER``, or
``… NAMESPACE FILE`` to ask only, for the jobs whose ids the file has. It prints a line of JSON for all that it learns.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.errors import AIQueueError
from aiqueue.ids import new_job_ids
from aiqueue.launch import connect_async

_ENDED = {"completed", "failed", "dead_letter", "cancelled", "expired"}
_POLL_S = 0.5
_AT_ONCE = 50


async def _submit_and_ask(namespace: str, provider: str, number: int) -> None:
    adapter = await connect_async(namespace)
    await _ask(adapter, await _submit_all(adapter, provider, number))


async def _only_ask(namespace: str, ids: list[str]) -> None:
    await _ask(await connect_async(namespace), ids)


async def _ask(adapter: AsyncAIQueueAdapter, ids: list[str]) -> None:
    while True:
        try:
            found = await adapter.get_jobs(ids)
        except AIQueueError as error:
            _say(error=f"{type(error).__name__}: {error}")
        else:
            states = Counter(info.status if info else "unknown" for info in found)
            _say(states=states)
            if states.keys() <= _ENDED:
                return
        await asyncio.sleep(_POLL_S)


async def _submit_all(adapter: AsyncAIQueueAdapter, provider: str, number: int) -> list[str]:
    ids: list[str] = []
    while len(ids) < number:
        new = new_job_ids(min(_AT_ONCE, number - len(ids)))
        await asyncio.gather(*(_submit(adapter, provider, job_id) for job_id in new))
        ids += new
        _say(accepted=new)
    return ids


async def _submit(adapter: AsyncAIQueueAdapter, provider: str, job_id: str) -> None:
    messages = [{"role": "user", "content": job_id}]
    payload = {"type": "chat_completion", "provider": provider, "model": "m", "messages": messages}
    while True:  # until it is acknowledged: under the same id it is the same job
        try:
            await adapter.submit_job(payload, {"job_id": job_id})
            return
        except AIQueueError as error:
            _say(error=f"{type(error).__name__}: {error}")
            await asyncio.sleep(_POLL_S)


def _say(**what: Any) -> None:
    print(json.dumps({"at": time.monotonic(), **what}), flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case namespace, provider, number:
            asyncio.run(_submit_and_ask(namespace, provider, int(number)))
        case namespace, file:
            asyncio.run(_only_ask(namespace, json.loads(Path(file).read_text())))
