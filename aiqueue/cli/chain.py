"""``aiqueue chain``: jobs that follow one another, and graphs of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from aiqueue.batch_views import GraphInfo
from aiqueue.cli.batch_progress import follow
from aiqueue.cli.joining import Address, AsJson, Namespace, joined
from aiqueue.cli.output import console, print_json
from aiqueue.errors import FieldError, ValidationError
from aiqueue.orchestrator.sync_orchestrator import AIJobOrchestrator

commands = typer.Typer()
_group = typer.Typer(help="Jobs that follow one another: submit, status, cancel, retry-failed.", no_args_is_help=True)
commands.add_typer(_group, name="chain")

ChainId = Annotated[str, typer.Argument(help="The id of a chain or a graph.", metavar="ID", show_default=False)]


@_group.command()
def submit(
    ctx: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(
            help="JSON: a list of steps, or a graph as {name: {payload, depends_on}}.",
            metavar="FILE.json",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ],
    name: Annotated[str | None, typer.Option(help="What to call it.")] = None,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="After a failed step, with its error as the next one's input.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for its end and print the steps.")] = False,
    as_json: AsJson = False,
    address: Address = None,
    namespace: Namespace = None,
) -> None:
    """Submit a chain (or a graph) and print its id."""
    steps = _read(file)
    options = {"name": name} if name else {}
    if keep_going and not isinstance(steps, list):
        raise ValidationError([FieldError("--keep-going", 'is for lists of steps; a graph\'s nodes have "on_error"')])
    with joined(ctx, namespace, address) as queue:
        orchestrator = AIJobOrchestrator(queue.adapter)
        if isinstance(steps, list):
            chain_id = orchestrator.create_job_chain(steps, options, stop_on_error=not keep_going).chain_id
        else:
            chain_id = orchestrator.submit_graph(steps, options).graph_id
        if not as_json:
            typer.echo(chain_id)
        if wait:
            _wait(orchestrator, chain_id)
        if wait or as_json:
            _show(orchestrator.get_graph_status(chain_id), as_json=as_json)


@_group.command()
def status(
    ctx: typer.Context,
    chain_id: ChainId,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Print a picture for Mermaid.")] = False,
    as_json: AsJson = False,
    address: Address = None,
    namespace: Namespace = None,
) -> None:
    """Show a chain or a graph, step by step."""
    with joined(ctx, namespace, address) as queue:
        info = AIJobOrchestrator(queue.adapter).get_graph_status(chain_id)
    if mermaid:
        typer.echo(info.to_mermaid())
    else:
        _show(info, as_json=as_json)


@_group.command()
def cancel(ctx: typer.Context, chain_id: ChainId, address: Address = None, namespace: Namespace = None) -> None:
    """Stop all steps that have not ended."""
    with joined(ctx, namespace, address) as queue:
        typer.echo(AIJobOrchestrator(queue.adapter).cancel_batch_job(chain_id).status)


@_group.command()
def retry_failed(ctx: typer.Context, chain_id: ChainId, address: Address = None, namespace: Namespace = None) -> None:
    """Go on from the step that failed; print how many steps were started again."""
    with joined(ctx, namespace, address) as queue:
        typer.echo(AIJobOrchestrator(queue.adapter).retry_failed(chain_id).retried)


def _wait(orchestrator: AIJobOrchestrator, chain_id: str) -> None:
    try:
        follow(Console(stderr=True, highlight=False), lambda: orchestrator.get_batch_job_status(chain_id))
    except KeyboardInterrupt:
        typer.echo(f"it goes on: aiqueue chain status {chain_id}", err=True)
        raise


def _show(info: GraphInfo, *, as_json: bool) -> None:
    if as_json:
        print_json(info)
        return
    table = Table("step", "status", "job", "after", "error", title=f"{info.batch.batch_id}  {info.status}")
    for node in info.nodes:
        table.add_row(node.name, node.status, node.job_id, ", ".join(node.depends_on), node.error or "")
    console().print(table)


def _read(file: Path) -> Any:
    try:
        steps = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValidationError([FieldError(str(file), f"is not JSON: {error}")]) from None
    if not isinstance(steps, list | dict):
        raise ValidationError([FieldError(str(file), "is neither a list of steps nor a graph of named ones")])
    return steps
