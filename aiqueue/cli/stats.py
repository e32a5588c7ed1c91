"""``aiqueue stats``: the queue's statistics."""

from __future__ import annotations

import typer
from rich.table import Table

from aiqueue.cli.joining import Address, AsJson, Namespace, joined
from aiqueue.cli.output import console, print_json
from aiqueue.client.display import duration, stats_table
from aiqueue.views import QueueStats

commands = typer.Typer()


@commands.command()
def stats(ctx: typer.Context, as_json: AsJson = False, address: Address = None, namespace: Namespace = None) -> None:
    """Show jobs by level with their SLA, lanes and workers."""
    with joined(ctx, namespace, address) as queue:
        found = queue.adapter.get_system_stats()
    if as_json:
        print_json(found)
        return
    out = console()
    out.print(totals(found.adapter))
    if found.adapter.journal:
        out.print(f"journal  {found.adapter.journal}", soft_wrap=True)
    out.print(stats_table(found.adapter))
    out.print(_lanes(found.adapter))


def totals(queue: QueueStats) -> str:
    """Return the jobs by state and the workers, in two lines."""
    jobs = {
        "queued": queue.queued_jobs,
        "scheduled": queue.scheduled_jobs,
        "processing": queue.processing_jobs,
        "completed": queue.completed_jobs,
        "failed": queue.failed_jobs,
        f"dead letter ({queue.dead_letter_queue_depth} in {queue.dead_letter_queue})": queue.dead_letter_jobs,
        "cancelled": queue.cancelled_jobs,
    }
    shown = ", ".join(f"{count} {name}" for name, count in jobs.items() if count)
    pool = queue.worker_pool_stats
    return (
        f"jobs     {queue.total_jobs} accepted{f': {shown}' if shown else ''}\n"
        f"workers  {pool.total_workers}: {pool.busy_workers} busy, {pool.idle_workers} idle; "
        f"a job takes {duration(pool.average_processing_time_ms)} on average"
    )


def _lanes(queue: QueueStats) -> Table:
    table = Table("pool", "provider", "model", title="lanes")
    for name in ("queued", "processing"):
        table.add_column(name, justify="right")
    for lane in queue.lanes:
        table.add_row(lane.pool, lane.provider, lane.model, str(lane.queued), str(lane.processing))
    return table
