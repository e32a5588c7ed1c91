"""The command as a whole: its groups of commands, and how it reports what went wrong."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from aiqueue import __version__
from aiqueue.cli import batch, chain, dead_letters, demo, jobs, schedules, simulate, stats, system, watch
from aiqueue.errors import AIQueueError, ValidationError

FAILED, WRONG_INPUT, INTERRUPTED = 1, 2, 130  # exit codes; 130 is what shells expect after Ctrl-C


class _OneLineErrors(TyperGroup):
    """Errors that say what to do need no traceback; ``--debug`` shows it all the same."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except AIQueueError as error:
            if ctx.params.get("debug"):
                raise
            typer.echo(f"error: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(WRONG_INPUT if isinstance(error, ValidationError) else FAILED) from None


app = typer.Typer(
    cls=_OneLineErrors,
    help="A durable queue for AI inference on Ray.",
    no_args_is_help=True,
    add_completion=False,
    # Its tracebacks print the values of local variables, and with them prompts.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for commands in (system, jobs, batch, chain, schedules, watch, stats, dead_letters, demo, simulate):
    app.add_typer(commands.commands)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Hold the options that stand before the command."""
