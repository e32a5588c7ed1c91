"""The FastAPI application. It knows no Ray: whatever reaches the queue comes in as a factory of adapters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import cast

import msgspec
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Route, WebSocketRoute

from aiqueue.batch_views import BatchInfo, GraphInfo
from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.client.schedule_models import ScheduleBody, ScheduleInfo
from aiqueue.http_config import HttpConfig
from aiqueue.models import BatchBody, ChainBody, FanInBody, GraphBody, SubmitBody
from aiqueue.orchestrator.orchestrator import AsyncAIJobOrchestrator
from aiqueue.views import Cancellation, JobInfo, Stats
from serve.hosts import HostGuard
from serve.http_errors import handle_error
from serve.island import Island
from serve.joining import joined
from serve.limits import DEADLINE_S, EdgeLimits
from serve.openapi import Operation, install_schema
from serve.routes import batches, chains, dead_letters, events, fan_in, graphs, jobs, schedules, socket_io, stats
from serve.routes.shared import ExactRoutes, QueueAdapter, RawRoute
from serve.routes.socket import serve_socket
from serve.routes.socket_io import SocketIoHub
from serve.streams import StreamSlots

_BODIES: list[type[BaseModel]] = [
    SubmitBody,
    BatchBody,
    ChainBody,
    GraphBody,
    FanInBody,
    ScheduleBody,
    dead_letters.RedrivePatch,
    dead_letters.RedriveBody,
    dead_letters.DeleteBody,
]
_ANSWERS: list[type[msgspec.Struct]] = [
    jobs.Accepted,
    jobs.BatchAccepted,
    BatchInfo,
    batches.ResultsPage,
    chains.ChainAccepted,
    graphs.GraphAccepted,
    GraphInfo,
    JobInfo,
    Cancellation,
    ScheduleInfo,
    schedules.ScheduleList,
    schedules.NextRuns,
    schedules.History,
    schedules.Started,
    dead_letters.DeadLetterPage,
    dead_letters.DeadLetter,
    dead_letters.Redriven,
    dead_letters.Deleted,
    Stats,
    stats.Health,
    stats.Alive,
]
_PARTS: tuple[tuple[str, tuple[Operation, ...]], ...] = (
    ("jobs", jobs.OPERATIONS),
    ("batches", batches.OPERATIONS),
    ("chains", chains.OPERATIONS),
    ("graphs", graphs.OPERATIONS),
    ("graphs", fan_in.OPERATIONS),
    ("schedules", schedules.OPERATIONS),
    ("events", events.OPERATIONS),
    ("dead letters", dead_letters.OPERATIONS),
    ("system", stats.OPERATIONS),
)


def create_app(
    make_adapter: Callable[[], QueueAdapter],
    http: HttpConfig,
    *,
    deadline_s: float = DEADLINE_S,
    secret: str | None = None,
) -> FastAPI:
    """Return the application. It makes and starts its adapter when it starts, in the process that will serve.

    ``deadline_s`` is the longest that a request may take, its body's arrival included. Event streams end when they end.
    ``secret`` is what requests must carry that came through the system's own proxy; None: there is no such proxy.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        adapter = make_adapter()
        app.state.orchestrator = AsyncAIJobOrchestrator(cast("AsyncAIQueueAdapter", adapter))
        async with joined(adapter, app.state):
            leaving = asyncio.create_task(_let_go(app.state.streams, hub))
            try:
                yield
            finally:
                leaving.cancel()
                await hub.close()

    app = FastAPI(lifespan=lifespan, redoc_url=None)
    app.state.streams, app.state.adapter = StreamSlots(), None
    app.router.route_class = RawRoute
    app.add_middleware(ExactRoutes, operations=[found for _, part in _PARTS for found in part])
    app.add_middleware(EdgeLimits, max_body_bytes=http.max_body_bytes, deadline_s=deadline_s)
    app.add_middleware(HostGuard, hosts=(http.host, *http.hosts), origins=http.origins)
    if secret is not None:
        app.add_middleware(Island, secret=secret, on_drain=app.state.streams.close)  # the last one added is first
    app.add_exception_handler(HTTPException, handle_error)
    for tag, operations in _PARTS:
        for operation in operations:
            operation.add_to(app, tag)
    hub = SocketIoHub(app.state)
    app.router.routes += [
        WebSocketRoute("/ai/ws", serve_socket),
        WebSocketRoute(socket_io.PATH, hub),
        Route(socket_io.PATH, socket_io.refuse_polling, methods=["GET", "POST"]),
    ]
    # Serve looks a request's route up once more, for its metrics: ours first, not the pages of the documentation.
    app.router.routes.sort(key=lambda route: isinstance(route, RawRoute), reverse=True)
    install_schema(app, bodies=_BODIES, answers=_ANSWERS, version=_version())
    return app


async def _let_go(streams: StreamSlots, hub: SocketIoHub) -> None:
    await streams.closing.wait()
    await hub.send_away()


def _version() -> str:
    try:
        return version("aiqueue")
    except PackageNotFoundError:  # run from a folder, as a Ray job's working_dir is
        return "0"
