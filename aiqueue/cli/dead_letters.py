"""``aiqueue dead-letters``: jobs out of attempts."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer
from rich.table import Table

from aiqueue.cli.joining import Address, AsJson, JobId, Namespace, joined
from aiqueue.cli.output import console, print_json
from aiqueue.client.dead_letters import FASTEST, SLOWEST
from aiqueue.views import JobInfo

commands = typer.Typer()
_group = typer.Typer(help="Jobs out of attempts: list, show, redrive, delete.", no_args_is_help=True)
commands.add_typer(_group, name="dead-letters")

Ids = Annotated[list[str], typer.Argument(help="Ids of dead letters.", metavar="ID...", show_default=False)]


@_group.command(name="list")
def list_(
    ctx: typer.Context,
    reason: Annotated[str, typer.Option(help="Only those that ended with this kind of error.")] = "",
    model: Annotated[str, typer.Option(help="Only those of this model.")] = "",
    tag: Annotated[str, typer.Option(help="Only those with this tag.")] = "",
    limit: Annotated[int, typer.Option(min=1)] = 100,
    as_json: AsJson = False,
    address: Address = None,
    namespace: Namespace = None,
) -> None:
    """List dead letters, the newest first."""
    with joined(ctx, namespace, address) as queue:
        found = queue.adapter.dead_letters.find(reason=reason, model=model, tag=tag, limit=limit)
        name = queue.adapter.get_stats().dead_letter_queue
    if as_json:
        print_json(found)
    else:
        console().print(_table(found, name))


@_group.command()
def show(ctx: typer.Context, job_id: JobId, address: Address = None, namespace: Namespace = None) -> None:
    """Show a dead letter as JSON: its payload and all its attempts."""
    with joined(ctx, namespace, address) as queue:
        info, payload = queue.adapter.dead_letters.inspect(job_id)
    print_json({"job": msgspec.to_builtins(info), "payload": msgspec.json.decode(payload)})


@_group.command()
def redrive(
    ctx: typer.Context,
    job_ids: Ids,
    model: Annotated[str | None, typer.Option(help="Another model of the same provider.")] = None,
    max_retries: Annotated[int | None, typer.Option(min=0, max=10)] = None,
    per_second: Annotated[float | None, typer.Option(min=SLOWEST, max=FASTEST, help="Not faster than this.")] = None,
    address: Address = None,
    namespace: Namespace = None,
) -> None:
    """Submit dead letters again, as new jobs; print the new ids. The same one twice is one new job."""
    with joined(ctx, namespace, address) as queue:
        started = queue.adapter.dead_letters.redrive(
            job_ids, model=model, max_retries=max_retries, per_second=per_second
        )
    for job_id in started:
        typer.echo(job_id)


@_group.command()
def delete(ctx: typer.Context, job_ids: Ids, address: Address = None, namespace: Namespace = None) -> None:
    """Forget dead letters; print the ids of those that were there."""
    with joined(ctx, namespace, address) as queue:
        gone = queue.adapter.dead_letters.delete(job_ids)
    for job_id in gone:
        typer.echo(job_id)


def _table(found: list[JobInfo], name: str) -> Table:
    table = Table("id", "ended", "model", "reason", "attempts", title=name)
    for info in found:
        ended = f"{info.finished_at:%Y-%m-%d %H:%M:%S}" if info.finished_at else ""
        reason = f"{info.error.kind}: {info.error.message}" if info.error else ""
        table.add_row(info.job_id, ended, f"{info.provider}/{info.model}", reason, str(info.attempt))
    return table
