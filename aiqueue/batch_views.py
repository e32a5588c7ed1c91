"""Batches, chains and graphs as users see them: Python objects, camelCase JSON, pictures."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from aiqueue.batch_protocol import BatchView, ResultsReply
from aiqueue.graph_picture import COLOURS, MOST, Box, svg
from aiqueue.protocol import JobView
from aiqueue.views import JobInfo, encode_json, moment, readable_info

_LABEL = 40  # characters


class _View(msgspec.Struct, kw_only=True, rename="camel", gc=False):
    """Camel-case JSON. No cycles, so nothing for the collector."""


class ErrorSample(_View):
    """One of the first errors of a batch."""

    job_id: str
    kind: str
    message: str


class BatchInfo(_View, omit_defaults=True):
    """How a batch stands. ``status``: open, processing, paused, cancelling; at the end completed, failed, cancelled.

    A batch is ``completed`` when all its jobs have ended, even if some failed; ``failed`` when none completed or it was
    stopped for its failures. ``rate`` is in jobs per second, ``eta_s`` in seconds.
    """

    batch_id: str
    kind: str
    status: str
    total: int
    created_at: datetime
    name: str | None = None
    completed: int = 0
    failed: int = 0  #: dead letters and expired ones too
    cancelled: int = 0
    processing: int = 0
    waiting: int = 0
    percent: float = 0.0  #: of the jobs that have ended
    states: dict[str, int] = msgspec.field(default_factory=dict)  #: of the ended jobs, by state
    rate: float = 0.0
    eta_s: float | None = None
    ended_at: datetime | None = None
    max_concurrency: int | None = None
    tags: tuple[str, ...] = ()
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    errors: dict[str, int] = msgspec.field(default_factory=dict)  #: by kind
    first_errors: list[ErrorSample] = msgspec.field(default_factory=list)
    reason: str | None = None  #: why it was stopped
    retried: int = 0  #: jobs that ``retry_failed`` has just started again
    results: list[BatchResult] | None = None  #: where they were asked for

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen to it by itself."""
        return self.ended_at is not None


class BatchResult(_View):
    """What one job of a batch came to. ``after`` is the cursor that goes on behind it."""

    index: int
    after: int
    job: JobInfo

    def to_json(self) -> str:
        """Return a line of JSONL."""
        return encode_json(self).decode()


class GraphNode(_View, omit_defaults=True):
    """One step of a chain or a graph."""

    name: str
    job_id: str
    status: str
    depends_on: list[str] = msgspec.field(default_factory=list)
    error: str | None = None


class GraphInfo(_View, omit_defaults=True):
    """How a chain or a graph stands, step by step."""

    batch: BatchInfo
    nodes: list[GraphNode]

    @property
    def status(self) -> str:
        """As of a batch; ``failed`` where a step did not complete."""
        return self.batch.status

    def to_mermaid(self) -> str:
        """Return the graph as a Mermaid flowchart, its nodes coloured by their states."""
        places = {node.name: f"n{at}" for at, node in enumerate(self.nodes)}
        lines = ["flowchart TD"]
        for node in self.nodes:
            lines.append(f'    {places[node.name]}["{_label(node.name)}<br/>{node.status}"]:::{node.status}')
        for node in self.nodes:
            lines += [f"    {places[parent]} --> {places[node.name]}" for parent in node.depends_on if parent in places]
        used = sorted({node.status for node in self.nodes} & COLOURS.keys())
        lines += ["    classDef {} fill:{},stroke:{}".format(status, *COLOURS[status]) for status in used]
        return "\n".join(lines)

    def to_svg(self) -> str:
        """Return the same as an SVG picture, which needs nothing to be shown; hover over a step for its job."""
        places = {node.name: at for at, node in enumerate(self.nodes)}
        return svg(
            [
                Box(
                    _label(node.name),
                    node.status,
                    f"{node.job_id} {node.error or ''}".strip(),
                    [places[parent] for parent in node.depends_on if places.get(parent, at) < at],
                )
                for at, node in enumerate(self.nodes)
            ]
        )

    def _repr_svg_(self) -> str | None:
        """What a notebook shows."""
        return self.to_svg() if len(self.nodes) <= MOST else None


def batch_info(view: BatchView) -> BatchInfo:
    """Return ``view`` as users see it."""
    spec, ended = view.spec, sum(view.ended.values())
    completed, cancelled = view.ended.get("completed", 0), view.ended.get("cancelled", 0)
    left = view.total - ended
    is_over = bool(view.ended_at)
    return BatchInfo(
        batch_id=spec.id,
        kind=spec.kind,
        name=spec.name or None,
        status=view.status,
        total=view.total,
        completed=completed,
        failed=ended - completed - cancelled,
        cancelled=cancelled,
        processing=view.processing,
        waiting=view.waiting,
        percent=round(100 * ended / view.total, 2) if view.total else 0.0,
        states=view.ended,
        rate=round(view.rate, 3),
        eta_s=round(left / view.rate, 1) if view.rate > 0 and not is_over else None,
        created_at=datetime.fromtimestamp(view.created_at, UTC),
        ended_at=moment(view.ended_at),
        max_concurrency=spec.max_concurrency or None,
        tags=spec.tags,
        metadata=msgspec.json.decode(spec.metadata) if spec.metadata else {},
        errors=view.errors,
        first_errors=[ErrorSample(job_id=job, kind=kind, message=said) for job, kind, said in view.first_errors],
        reason=view.reason or None,
        retried=view.changed,
    )


def results_of(reply: ResultsReply, after: int, *, ordered: bool) -> list[BatchResult]:
    """Return the results of a page that was asked for with ``after``."""
    return [
        BatchResult(
            index=view.header.index, after=view.header.index + 1 if ordered else number, job=readable_info(view)
        )
        for number, view in enumerate(reply.jobs, start=after + 1)
    ]


def graph_info(view: BatchView, jobs: list[JobView]) -> GraphInfo:
    """Return a chain or graph with its steps. Steps without a name are called ``step 0``, ``step 1`` …"""
    names = {job.id: _name_of(view, job) for job in jobs}
    nodes = [
        GraphNode(
            name=names[job.id],
            job_id=job.id,
            status=job.status,
            depends_on=[names.get(need.job_id, need.job_id) for need in job.header.needs],
            error=f"{job.failure.kind}: {job.failure.message}" if job.failure and job.status != "completed" else None,
        )
        for job in jobs
    ]
    return GraphInfo(batch=batch_info(view), nodes=nodes)


def _name_of(view: BatchView, job: JobView) -> str:
    index = job.header.index
    return view.spec.names[index] if index < len(view.spec.names) else f"step {index}"


def _label(name: str) -> str:
    """Return a name that can stand in a node: Mermaid takes no quotes and no line ends there."""
    line = " ".join(name.split()).replace('"', "'")
    return line if len(line) <= _LABEL else f"{line[: _LABEL - 1]}…"
