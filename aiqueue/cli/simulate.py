"""``aiqueue simulate-provider``: something to send load at that costs nothing."""

from __future__ import annotations

import threading
from typing import Annotated

import typer

commands = typer.Typer()


@commands.command(name="simulate-provider")
def simulate_provider(
    port: Annotated[int, typer.Option(help="0: a free one, which is printed.")] = 0,
) -> None:
    """Serve OpenAI's and Anthropic's wire formats on loopback until Ctrl-C, and misbehave on request.

    The name of the model says how: sim answers, sim:429+retry_after=2,ok is rate limited once, sim:500*2,ok fails
    twice, sim:ok+latency=0.2 is slow, sim:hang never answers. What arrived is shown at /_log.
    """
    from aiqueue.testing.simulated_provider import SimulatedServer

    with SimulatedServer(port=port) as server:
        typer.echo(f'kind = "openai"     base_url = "{server.openai_url}"')
        typer.echo(f'kind = "anthropic"  base_url = "{server.anthropic_url}"')
        threading.Event().wait()
