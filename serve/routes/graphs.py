"""``/ai/graphs``: jobs that wait for each other."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from aiqueue.batch_views import GraphInfo
from aiqueue.models import GraphBody
from serve.bodies import parse_graph
from serve.callers import KEY_PARAMETER, caller_scope, idempotency_key
from serve.openapi import Operation, answer, json_body
from serve.routes.batches import NO_ANSWER, UNKNOWN, action, cancel_batch, id_parameter, orchestrator_of, retry_action
from serve.routes.chains import REFUSED, get_graph
from serve.routes.shared import json_response


class GraphAccepted(msgspec.Struct, rename="camel"):
    """A graph was accepted: it is on disk. ``jobIds`` are by the names of its nodes."""

    graph_id: str
    status: str
    job_ids: dict[str, str]


async def submit_graph(request: Request) -> Response:
    """Submit jobs that wait for each other: all of them are accepted, or none.

    `nodes` maps names to `{"payload", "dependsOn", "onError"}`. Unknown names and circles are refused. With an
    `Idempotency-Key` the request can be repeated safely for 24 hours: the answer is then the first graph and its jobs.
    """
    key, body = idempotency_key(request.headers), await parse_graph(await request.body())
    nodes = {name: node.as_node() for name, node in body.nodes.items()}
    graph = await orchestrator_of(request).submit_graph(
        nodes, body.options, idempotency_key=key, scope=caller_scope(request.headers)
    )
    return json_response(GraphAccepted(graph.graph_id, "processing", dict(graph)), 202)


_GRAPH = id_parameter("the graph's id")
_PATH = "/ai/graphs/{batch_id}"

OPERATIONS = (
    Operation(
        method="POST",
        path="/ai/graphs",
        endpoint=submit_graph,
        name="submitGraph",
        status=202,
        answer=answer(GraphAccepted, "All jobs are on disk."),
        failures=REFUSED,
        extra={**json_body(GraphBody), "parameters": [KEY_PARAMETER]},
    ),
    Operation(
        method="GET",
        path=_PATH,
        endpoint=get_graph,
        name="getGraph",
        answer=answer(GraphInfo, "The graph as it is now; with `format=mermaid` a picture of it."),
        failures={404: UNKNOWN, 503: NO_ANSWER},
        extra=_GRAPH,
    ),
    action(f"{_PATH}/cancel", "cancelGraph", cancel_batch, _GRAPH),
    retry_action(_PATH, "retryGraph", _GRAPH),
)
