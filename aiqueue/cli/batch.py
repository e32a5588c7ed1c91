"""``aiqueue batch``: many jobs from a file, how far they are, what came of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from aiqueue.batch_views import BatchInfo
from aiqueue.cli.batch_progress import follow, line_of
from aiqueue.cli.joining import Address, AsJson, Namespace, joined
from aiqueue.cli.output import print_json
from aiqueue.levels import AIJobPriority
from aiqueue.orchestrator.rows import json_lines
from aiqueue.orchestrator.sync_orchestrator import AIJobOrchestrator

commands = typer.Typer()
_group = typer.Typer(help="Many jobs at once: submit, status, results, cancel, retry-failed.", no_args_is_help=True)
commands.add_typer(_group, name="batch")

BatchId = Annotated[str, typer.Argument(help="The batch's id.", metavar="ID", show_default=False)]
_STDIN = Path("-")


@_group.command()
def submit(
    ctx: typer.Context,
    file: Annotated[
        Path, typer.Argument(help="A payload in each line; - reads stdin.", metavar="FILE.jsonl", show_default=False)
    ],
    name: Annotated[str | None, typer.Option(help="What to call it.")] = None,
    priority: Annotated[AIJobPriority, typer.Option(help="urgent runs first.")] = AIJobPriority.MEDIUM,
    max_concurrency: Annotated[int | None, typer.Option(min=1, help="Jobs at once at most.")] = None,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop when the first job fails.")] = False,
    max_failed_ratio: Annotated[float | None, typer.Option(min=0, max=1, help="Stop when more than this fail.")] = None,
    max_retries: Annotated[int | None, typer.Option(min=0, max=10, help="Attempts after the first.")] = None,
    timeout: Annotated[int | None, typer.Option(min=100, help="Milliseconds one attempt may take.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Kept with the jobs; may be repeated.")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Print the id and go.")] = False,
    as_json: AsJson = False,
    address: Address = None,
    namespace: Namespace = None,
) -> None:
    """Submit the lines of a file as one batch and show how far it is; Ctrl-C leaves it running.

    Prints the id on stdout, all else on stderr. Exits with 1 if a job did not complete.
    """
    given: dict[str, Any] = {"name": name, "max_concurrency": max_concurrency, "max_failed_ratio": max_failed_ratio}
    given |= {"max_retries": max_retries, "timeout": timeout, "tags": tuple(tag or ())}
    options = {key: value for key, value in given.items() if value is not None}
    with joined(ctx, namespace, address) as queue:
        orchestrator = AIJobOrchestrator(queue.adapter)
        rows: Any = _stdin_rows() if file == _STDIN else file
        try:
            batch_id = orchestrator.submit_batch_job(rows, options, priority=priority, fail_fast=fail_fast)
        except KeyboardInterrupt:
            typer.echo("nothing runs: the lines had not all been sent", err=True)
            raise
        if not as_json:
            typer.echo(batch_id)
        if detach:
            if as_json:
                print_json(orchestrator.get_batch_job_status(batch_id))
            return
        try:
            info = follow(Console(stderr=True, highlight=False), lambda: orchestrator.get_batch_job_status(batch_id))
        except KeyboardInterrupt:
            typer.echo(f"the batch goes on: aiqueue batch status {batch_id}, then batch results {batch_id}", err=True)
            raise
        _report(info, as_json=as_json)


@_group.command()
def status(
    ctx: typer.Context,
    batch_id: BatchId,
    watch: Annotated[bool, typer.Option("--watch", help="Show how far it is until it has ended.")] = False,
    as_json: AsJson = False,
    address: Address = None,
    namespace: Namespace = None,
) -> None:
    """Show how a batch stands."""
    with joined(ctx, namespace, address) as queue:
        orchestrator = AIJobOrchestrator(queue.adapter)
        if watch:
            info = follow(Console(stderr=True, highlight=False), lambda: orchestrator.get_batch_job_status(batch_id))
        else:
            info = orchestrator.get_batch_job_status(batch_id)
    if as_json:
        print_json(info)
    else:
        typer.echo("\n".join(f"{key:10} {value}" for key, value in batch_lines(info)))


@_group.command()
def results(
    ctx: typer.Context,
    batch_id: BatchId,
    after: Annotated[int, typer.Option(min=0, help="Go on behind this cursor.")] = 0,
    as_ended: Annotated[bool, typer.Option("--as-ended", help="In the order they end, and not of the batch.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for those that have not ended.")] = False,
    address: Address = None,
    namespace: Namespace = None,
) -> None:
    """Print what the jobs came to, a line of JSON each; `after` in a line is the cursor that goes on behind it."""
    with joined(ctx, namespace, address) as queue:
        found = AIJobOrchestrator(queue.adapter).iter_results(batch_id, after=after, ordered=not as_ended, wait=wait)
        for result in found:
            typer.echo(result.to_json())


@_group.command()
def cancel(
    ctx: typer.Context, batch_id: BatchId, as_json: AsJson = False, address: Address = None, namespace: Namespace = None
) -> None:
    """Stop a batch, its running jobs too; what is done is kept."""
    with joined(ctx, namespace, address) as queue:
        info = AIJobOrchestrator(queue.adapter).cancel_batch_job(batch_id)
    _print(info, as_json=as_json)


@_group.command()
def pause(
    ctx: typer.Context, batch_id: BatchId, as_json: AsJson = False, address: Address = None, namespace: Namespace = None
) -> None:
    """Start no more jobs of a batch."""
    with joined(ctx, namespace, address) as queue:
        info = AIJobOrchestrator(queue.adapter).pause_batch_job(batch_id)
    _print(info, as_json=as_json)


@_group.command()
def resume(
    ctx: typer.Context, batch_id: BatchId, as_json: AsJson = False, address: Address = None, namespace: Namespace = None
) -> None:
    """Let a paused batch go on."""
    with joined(ctx, namespace, address) as queue:
        info = AIJobOrchestrator(queue.adapter).resume_batch_job(batch_id)
    _print(info, as_json=as_json)


@_group.command()
def retry_failed(
    ctx: typer.Context, batch_id: BatchId, as_json: AsJson = False, address: Address = None, namespace: Namespace = None
) -> None:
    """Start new jobs in the place of those that failed; print how many."""
    with joined(ctx, namespace, address) as queue:
        info = AIJobOrchestrator(queue.adapter).retry_failed(batch_id)
    if as_json:
        print_json(info)
    else:
        typer.echo(info.retried)


def batch_lines(info: BatchInfo) -> list[tuple[str, str]]:
    """Return what there is to say of a batch, as names and values."""
    lines = [
        (info.kind.replace("_", "-"), info.batch_id),
        ("name", info.name or ""),
        ("status", f"{info.status}{f' ({info.reason})' if info.reason else ''}"),
        ("progress", line_of(info)),
        ("jobs", ", ".join(f"{count} {state}" for state, count in _counts(info) if count)),
        ("errors", ", ".join(f"{count} {kind}" for kind, count in info.errors.items())),
    ]
    lines += [("", f"{error.job_id}: {error.message}") for error in info.first_errors]
    return [(key, value) for key, value in lines if value]


def _counts(info: BatchInfo) -> list[tuple[str, int]]:
    return [("waiting", info.waiting), ("processing", info.processing), *info.states.items()]


def _report(info: BatchInfo, *, as_json: bool) -> None:
    if as_json:
        print_json(info)
    else:
        for key, value in batch_lines(info)[1:]:
            typer.echo(f"{key:10} {value}", err=True)
    if info.completed < info.total:
        raise typer.Exit(1)


def _print(info: BatchInfo, *, as_json: bool) -> None:
    if as_json:
        print_json(info)
    else:
        typer.echo(info.status)


def _stdin_rows() -> Iterator[dict[str, Any]]:
    return json_lines(sys.stdin.buffer, "stdin")
