"""``aiqueue schedule``: jobs that come again by a cron line."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from aiqueue.cli.joining import Address, AsJson, Joined, Namespace, joined
from aiqueue.cli.output import console, print_json
from aiqueue.cli.payloads import Request, payload_of, read_payload
from aiqueue.client.schedule_models import ScheduleInfo, ScheduleRunInfo
from aiqueue.errors import FieldError, ValidationError
from aiqueue.levels import AIJobPriority

commands = typer.Typer()
_group = typer.Typer(help="Jobs that come again: add, list, pause, resume, run-now, remove …", no_args_is_help=True)
commands.add_typer(_group, name="schedule")

Chosen = Annotated[str, typer.Argument(help="The schedule's id or name.", metavar="SCHEDULE", show_default=False)]


@_group.command()
def add(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="A name of its own.", show_default=False)],
    cron: Annotated[
        str,
        typer.Argument(
            help="'minute hour day month weekday', with a second in front if there are six; or @daily …",
            show_default=False,
        ),
    ],
    prompt: Annotated[str | None, typer.Argument(help="The prompt of each job.", show_default=False)] = None,
    file: Annotated[
        Path | None, typer.Option(help="JSON file with a whole payload, instead.", exists=True, dir_okay=False)
    ] = None,
    provider: Annotated[str | None, typer.Option(help="Default: the only one.")] = None,
    model: Annotated[str | None, typer.Option(help="Default: the provider's only one.")] = None,
    timezone: Annotated[str, typer.Option(help="IANA name, such as Europe/London.")] = "UTC",
    overlap: Annotated[
        str, typer.Option(help="When the last run has not ended: skip, queue or cancel_running.")
    ] = "skip",
    catch_up: Annotated[str, typer.Option(help="Ticks missed while the queue was down: none, last or all.")] = "last",
    jitter: Annotated[int, typer.Option(min=0, help="Each tick starts up to this many ms later.")] = 0,
    priority: Annotated[AIJobPriority, typer.Option(help="urgent runs first.")] = AIJobPriority.MEDIUM,
    paused: Annotated[bool, typer.Option("--paused", help="Add it, but let it not start anything yet.")] = False,
    as_json: AsJson = False,
    address: Address = None,
    namespace: Namespace = None,
) -> None:
    """Add a schedule and show its next runs: look whether they are what you meant."""
    rules: dict[str, Any] = {"timezone": timezone, "overlap": overlap, "catch_up": catch_up, "jitter": jitter}
    with joined(ctx, namespace, address) as queue:
        payload = _payload(queue, prompt, file, provider, model)
        info = queue.adapter.schedules.add(payload, name, cron, priority, enabled=not paused, **rules)
    _show(info, as_json=as_json)


@_group.command(name="list")
def list_(ctx: typer.Context, as_json: AsJson = False, address: Address = None, namespace: Namespace = None) -> None:
    """List all schedules, each with its next run and what became of the last one."""
    with joined(ctx, namespace, address) as queue:
        found = queue.adapter.schedules.find()
    if as_json:
        print_json(found)
        return
    table = Table("name", "cron", "next run", "last run", "fired", "id")
    for info in found:
        coming = info.problem or (_time(info.next_run) if info.enabled else "paused")
        last = _outcome(info.last_run) if info.last_run else ""
        table.add_row(info.name, info.cron_expression, coming, last, str(info.fired), info.schedule_id)
    console().print(table)


@_group.command()
def pause(
    ctx: typer.Context, schedule: Chosen, as_json: AsJson = False, address: Address = None, namespace: Namespace = None
) -> None:
    """Let a schedule start nothing until it is resumed. What it has started goes on."""
    with joined(ctx, namespace, address) as queue:
        _show(queue.adapter.schedules.pause(schedule), as_json=as_json)


@_group.command()
def resume(
    ctx: typer.Context, schedule: Chosen, as_json: AsJson = False, address: Address = None, namespace: Namespace = None
) -> None:
    """Let a schedule go on with its next tick; what passed during the pause is left out."""
    with joined(ctx, namespace, address) as queue:
        _show(queue.adapter.schedules.resume(schedule), as_json=as_json)


@_group.command()
def run_now(ctx: typer.Context, schedule: Chosen, address: Address = None, namespace: Namespace = None) -> None:
    """Start one job beside the cron line, and print its id."""
    with joined(ctx, namespace, address) as queue:
        typer.echo(queue.adapter.schedules.run_now(schedule))


@_group.command()
def remove(ctx: typer.Context, schedule: Chosen, address: Address = None, namespace: Namespace = None) -> None:
    """Forget a schedule, and print its id. What it has started goes on."""
    with joined(ctx, namespace, address) as queue:
        typer.echo(queue.adapter.schedules.remove(schedule).schedule_id)


@_group.command(name="next")
def next_(
    ctx: typer.Context,
    schedule: Chosen,
    count: Annotated[int, typer.Option(min=1, max=100)] = 10,
    address: Address = None,
    namespace: Namespace = None,
) -> None:
    """Print the coming runs, in the schedule's time zone; none while it is paused."""
    with joined(ctx, namespace, address) as queue:
        for run in queue.adapter.schedules.next_runs(schedule, count):
            typer.echo(_time(run))


@_group.command()
def history(
    ctx: typer.Context, schedule: Chosen, as_json: AsJson = False, address: Address = None, namespace: Namespace = None
) -> None:
    """Show what became of the last ticks, the newest first."""
    with joined(ctx, namespace, address) as queue:
        runs = queue.adapter.schedules.history(schedule)
    if as_json:
        print_json(runs)
        return
    table = Table("tick", "outcome", "ticks", "job", "why")
    for run in runs:
        table.add_row(_time(run.tick), _outcome(run), str(run.count), run.job_id or "", run.reason or "")
    console().print(table)


def _show(info: ScheduleInfo, *, as_json: bool) -> None:
    if as_json:
        print_json(info)
        return
    typer.echo(
        f"schedule  {info.schedule_id}\nname      {info.name}\ncron      {info.cron_expression} ({info.timezone})"
    )
    runs = [_time(run) for run in info.next_runs] or ["none: it is paused" if not info.enabled else "none"]
    typer.echo("next      " + "\n          ".join(runs))


def _outcome(run: ScheduleRunInfo) -> str:
    """Return what became of a tick in a few words: how its job ended, where there is one."""
    return f"{run.outcome}: {run.status or 'not ended'}" if run.job_id else run.outcome


def _time(moment: datetime | None) -> str:
    return f"{moment:%a %Y-%m-%d %H:%M:%S %Z}" if moment else ""


def _payload(
    queue: Joined, prompt: str | None, file: Path | None, provider: str | None, model: str | None
) -> dict[str, Any]:
    if (prompt is None) == (file is None):
        raise ValidationError([FieldError("prompt", "give a prompt, or --file with a whole payload: one of them")])
    if file is None:
        return payload_of(Request(prompt=prompt or "", provider=provider, model=model), queue.providers())
    if provider or model:
        raise ValidationError([FieldError("--file", "holds the whole payload, so leave out: --provider, --model")])
    return read_payload(file)
