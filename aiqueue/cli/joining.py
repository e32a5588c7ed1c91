"""How commands join the system that runs, and the options that say which one that is."""

from __future__ import annotations

import asyncio
import os
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pydantic
import typer
from pydantic_settings import SettingsError

from aiqueue.cli.quiet import quiet_start
from aiqueue.client.sync_adapter import AIQueueAdapter
from aiqueue.config import CONFIG_FILE_VARIABLE, Settings
from aiqueue.errors import FieldError, ValidationError
from aiqueue.protocol import ProviderEntry
from aiqueue.validation import field_errors

Address = Annotated[
    str | None,
    typer.Option(
        help="Ray to join, host:port (default: RAY_ADDRESS, else the one on this machine).", metavar="ADDRESS"
    ),
]
Namespace = Annotated[
    str | None, typer.Option(help="Ray namespace of the system (default: the settings').", metavar="NAME")
]
JobId = Annotated[str, typer.Argument(help="The job's id.", metavar="ID", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@dataclass(frozen=True)
class Joined:
    """A running system, as a command sees it."""

    adapter: AIQueueAdapter
    providers: Callable[[], Sequence[ProviderEntry]]


Join = Callable[[str, str | None], Joined]  #: from a namespace and the address of a Ray


def join_over_ray(namespace: str, address: str | None) -> Joined:
    """Join the system in ``namespace`` of a Ray. Raises StartError, QueueUnavailable."""
    from aiqueue.client.ray_transport import RayTransport  # with Ray, a second to import
    from aiqueue.launch import connect

    quiet_start()
    adapter = connect(namespace, address=address)
    return Joined(adapter, lambda: asyncio.run(RayTransport(namespace).hello()).providers)


@contextmanager
def joined(ctx: typer.Context, namespace: str | None, address: str | None) -> Iterator[Joined]:
    """Join for the time of a ``with`` block, through ``ctx.obj`` if there is one: tests bring a queue of their own."""
    join: Join = ctx.obj or join_over_ray
    system = join(namespace or load_settings().namespace, address)
    try:
        yield system
    finally:
        system.adapter.stop()


def load_settings(config: Path | None = None) -> Settings:
    """Return the settings, from the file ``config`` too. Raises ValidationError with the name of each wrong one."""
    if config is not None:
        os.environ[CONFIG_FILE_VARIABLE] = str(config.absolute())
    file = os.environ.get(CONFIG_FILE_VARIABLE)
    if file and not Path(file).is_file():
        raise ValidationError([FieldError(CONFIG_FILE_VARIABLE, f"there is no file {file}")])
    try:
        return Settings()
    except pydantic.ValidationError as error:
        raise ValidationError(field_errors(error, prefix="settings")) from None
    except tomllib.TOMLDecodeError as error:
        raise ValidationError([FieldError(str(file), f"is not TOML: {error}")]) from None
    except SettingsError as error:
        raise ValidationError([FieldError("settings", str(error))]) from None
