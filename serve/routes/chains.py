"""``/ai/chains``: jobs that run one after the other."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from aiqueue.batch_views import GraphInfo
from aiqueue.models import ChainBody
from serve.bodies import parse_chain
from serve.callers import KEY_PARAMETER, KEY_TAKEN, caller_scope, idempotency_key
from serve.openapi import Operation, answer, json_body
from serve.routes.batches import (
    NO_ANSWER,
    UNKNOWN,
    action,
    cancel_batch,
    id_of,
    id_parameter,
    orchestrator_of,
    retry_action,
)
from serve.routes.shared import json_response

BAD = "The body is not valid JSON, a step is wrong, or a template names what is not there: `errors` says which."
REFUSED = {
    400: BAD,
    408: "The body did not arrive in time.",
    413: "The body or a payload is over its size limit.",
    415: "The body is not plain JSON.",
    422: KEY_TAKEN,
    429: "The queue is full.",
    503: NO_ANSWER,
}


class ChainAccepted(msgspec.Struct, rename="camel"):
    """A chain was accepted: it is on disk. ``jobIds`` are in the order of its steps."""

    chain_id: str
    status: str
    job_ids: list[str]


async def submit_chain(request: Request) -> Response:
    """Submit steps that run one after the other: all of them are accepted, or none.

    A step is a payload, or `{"name", "payload"}`. Its texts may use what came before: `{{previous.content}}`,
    `{{steps[0].content}}`, `{{steps.name.json.items}}`. With an `Idempotency-Key` the request can be repeated safely
    for 24 hours: the answer is then the first chain and its jobs.
    """
    key, body = idempotency_key(request.headers), await parse_chain(await request.body())
    steps = [{"name": step.name, "payload": step.payload} if step.name else step.payload for step in body.named_steps()]
    chain = await orchestrator_of(request).create_job_chain(
        steps,
        body.options.for_jobs(),
        stop_on_error=body.options.stop_on_error,
        idempotency_key=key,
        scope=caller_scope(request.headers),
    )
    return json_response(ChainAccepted(chain.chain_id, "processing", list(chain)), 202)


async def get_graph(request: Request) -> Response:
    """Look at a chain or a graph, step by step."""
    info = await orchestrator_of(request).get_graph_status(id_of(request))
    if request.query_params.get("format") == "mermaid":
        return Response(info.to_mermaid(), 200, {"cache-control": "no-store"}, "text/plain")
    return json_response(info)


_CHAIN = id_parameter("the chain's id")
_PATH = "/ai/chains/{batch_id}"

OPERATIONS = (
    Operation(
        method="POST",
        path="/ai/chains",
        endpoint=submit_chain,
        name="submitChain",
        status=202,
        answer=answer(ChainAccepted, "All steps are on disk."),
        failures=REFUSED,
        extra={**json_body(ChainBody), "parameters": [KEY_PARAMETER]},
    ),
    Operation(
        method="GET",
        path=_PATH,
        endpoint=get_graph,
        name="getChain",
        answer=answer(GraphInfo, "The chain as it is now; with `format=mermaid` a picture of it."),
        failures={404: UNKNOWN, 503: NO_ANSWER},
        extra=_CHAIN,
    ),
    action(f"{_PATH}/cancel", "cancelChain", cancel_batch, _CHAIN),
    retry_action(_PATH, "retryChain", _CHAIN),
)
