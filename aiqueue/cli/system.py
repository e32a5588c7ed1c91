"""``aiqueue up`` and ``aiqueue down``."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import pydantic
import typer
from pydantic import BaseModel

from aiqueue.cli.joining import Address, Namespace, load_settings
from aiqueue.cli.output import console
from aiqueue.cli.quiet import quiet_start, stop_quietly
from aiqueue.config import Settings
from aiqueue.errors import (
    FieldError,
    IncompatibleVersion,
    QueueNotRunning,
    QueueUnavailable,
    StartError,
    ValidationError,
)
from aiqueue.journal.lock import wait_until_free
from aiqueue.journal_info import JournalInfo
from aiqueue.pools import scaling_rule, slots_of
from aiqueue.ports import check_free
from aiqueue.presets import complete
from aiqueue.validation import field_errors

if TYPE_CHECKING:
    from aiqueue.client.sync_adapter import AIQueueAdapter
    from aiqueue.launch import System

Section = TypeVar("Section", bound=BaseModel)

commands = typer.Typer()

_POLL_S = 2.0
_LOOK_S = 0.1  # Ray kills a job 3 s after it is told to stop
# A queue that restarts loads its journal first, and its HTTP front goes on answering; one that was stopped has none.
_GONE_AFTER_S = 3.0

ModelFile = Annotated[
    Path | None,
    typer.Option(
        help="GGUF file of the local model (default: the demo model, if it is installed).", exists=True, dir_okay=False
    ),
]
Port = Annotated[int | None, typer.Option(min=0, max=65_535, help="HTTP port; 0: a free one (default: 8000).")]
Host = Annotated[str | None, typer.Option(help="HTTP address (default: 127.0.0.1).")]
Names = Annotated[
    list[str] | None,
    typer.Option(
        "--name",
        help="A name that HTTP answers to besides localhost and addresses (repeat it for more; default: none). "
        "Requests to other names get 421.",
        metavar="NAME",
    ),
]
ConfigFile = Annotated[
    Path | None, typer.Option(help="TOML file with settings; sets AIQUEUE_CONFIG.", exists=True, dir_okay=False)
]
JournalPath = Annotated[Path | None, typer.Option(help="The queue's file (default: ~/.aiqueue/journal.db).")]
NewJournal = Annotated[
    bool,
    typer.Option(
        "--new-journal",
        help="Begin a new journal in place of the one that this namespace had and that is gone. Say it for one start.",
    ),
]
AcceptLoss = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Go on with a journal that lost its end: the commit it ends at, as the error named it.",
        metavar="COMMIT",
    ),
]
StartAddress = Annotated[
    str | None, typer.Option(help="Ray to join (default: RAY_ADDRESS, else a new one).", metavar="ADDRESS")
]

Detach = Annotated[
    bool,
    typer.Option(
        "--detach",
        help="Leave the system to the Ray that was joined, and end; `aiqueue down` stops it. Run again, it starts "
        "what is missing and leaves alone what runs.",
    ),
]


@commands.command()
def up(
    model: ModelFile = None,
    port: Port = None,
    host: Host = None,
    name: Names = None,
    config: ConfigFile = None,
    journal: JournalPath = None,
    accept_loss: AcceptLoss = None,
    new_journal: NewJournal = False,
    address: StartAddress = None,
    namespace: Namespace = None,
    no_http: Annotated[bool, typer.Option("--no-http", help="Without the HTTP front.")] = False,
    detach: Detach = False,
) -> None:
    """Run the whole system on this machine until Ctrl-C."""
    journals = {"path": journal and journal.absolute(), "accept_loss": accept_loss, "new": new_journal or None}
    http = {"port": port, "host": host, "hosts": name or None}
    settings = _settings(config, model, namespace=namespace, http=http, journal=journals)
    out = console()
    if (address or os.environ.get("RAY_ADDRESS") or "local") == "local":
        if detach:
            raise StartError("only a Ray that runs already can keep the system: name it with --address or RAY_ADDRESS")
        # Ray takes longer to load than these answers should.
        if not no_http:
            check_free(settings.http.host, settings.http.port)
        wait_until_free(settings.journal.path)
    quiet_start()
    from aiqueue import launch  # with Ray, a second to import

    with out.status("Bringing the system up: Ray, the queue, its workers, HTTP ..."):
        system = launch.start(settings, http=not no_http, address=address)
    if system.differing:
        out.print(_differs_in(system.differing), soft_wrap=True)
    if detach:
        out.print(describe(system, system.adapter.ping().journal, ends_by="`aiqueue down`"), soft_wrap=True)
        system.adapter.stop()
        return
    stopped, gone = _stop_signal(), False
    try:
        out.print(describe(system, system.adapter.ping().journal), soft_wrap=True)
        gone = not _serve_until(stopped, system, partial(out.print, soft_wrap=True))
        out.print("The system was stopped." if gone else "Stopping ...")
    finally:
        if gone:
            system.adapter.stop()  # it is all that is left; a Ray of our own ends with this process
        else:
            stop_quietly(system)


@commands.command()
def down(address: Address = None, namespace: Namespace = None) -> None:
    """Stop the system that runs; accepted jobs stay in its journal."""
    settings = load_settings()
    namespace = namespace or settings.namespace
    quiet_start()
    from aiqueue import launch

    if not launch.stop(namespace, address=address, drain_s=settings.http.drain_s):
        raise StartError(f"no system is running in the namespace {namespace!r}")
    console().print(f"Stopped the system in the namespace {namespace!r}.")
    if front := launch.declared_front(namespace):
        console().print(
            f"The application {front.name!r} of `serve deploy` answers 503 at {front.url} until a system is up again; "
            "`serve shutdown` ends it.",
            soft_wrap=True,
        )


def describe(system: System, journal: JournalInfo | None, *, ends_by: str = "Ctrl-C") -> str:
    """Return what a user needs to know of a system that has come up."""
    settings, url, address = system.settings, system.url, system.address
    tokens = " RAY_AUTH_MODE=token" if os.environ.get("RAY_AUTH_MODE") == "token" else ""
    lines = [f"aiqueue is up; {ends_by} stops it.", f"  HTTP       {f'{url}  (API: {url}/docs)' if url else 'off'}"]
    if elsewhere := system.elsewhere():
        lines.append(f"             {elsewhere}")
    lines.append(f"  Ray        {address}, namespace {settings.namespace}")
    lines.append(f"             where several Rays run: export RAY_ADDRESS={address}{tokens}")
    for name, provider in settings.providers.items():
        lines.append(f"  provider   {name} ({provider.kind}): {', '.join(provider.models) or 'any model'}")
    for name, pool in settings.pools.items():
        rule = scaling_rule(settings, name)
        size = f"{rule.min_workers} to {rule.max_workers}" if rule.auto_scale else f"{rule.default_workers}"
        lines.append(
            f"  pool       {name}: {size} x {slots_of(settings, name).all} jobs at once for {', '.join(pool.providers)}"
        )
    lines.append(f"  journal    {journal or settings.journal.path}")
    if warning := system.warning():
        lines.append(f"  warning    {warning}")
    lines.append('Try: aiqueue submit --wait "Why is the sky blue?"   aiqueue watch   aiqueue stats')
    return "\n".join(lines)


def _differs_in(names: Sequence[str]) -> str:
    return (
        f"It ran already, and keeps its own settings. Yours differ in {', '.join(names)}; to use yours: "
        "`aiqueue down`, then `aiqueue up`."
    )


def _settings(
    config: Path | None, model: Path | None, *, namespace: str | None, http: dict[str, Any], journal: dict[str, Any]
) -> Settings:
    """Return the settings with the options in the places of what file and environment say."""
    settings = load_settings(config)
    if model is not None and settings.providers:
        raise ValidationError([FieldError("--model", "providers are configured already; name the file in their entry")])
    update: dict[str, Any] = {"http": _changed(settings.http, http), "journal": _changed(settings.journal, journal)}
    if namespace:
        update["namespace"] = namespace
    return complete(settings.model_copy(update=update), os.environ, model)


def _changed(section: Section, options: dict[str, Any]) -> Section:
    """Return a section of the settings with the options that were given."""
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return type(section).model_validate({**dict(section), **given})
    except pydantic.ValidationError as error:
        raise ValidationError(field_errors(error)) from None


def _stop_signal() -> threading.Event:
    """Return an event that Ctrl-C or SIGTERM sets; a second Ctrl-C interrupts what the first one began."""
    stopped = threading.Event()

    def stop(*_: object) -> None:
        stopped.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    return stopped


def _serve_until(stopped: threading.Event, system: System, say: Callable[[str], None]) -> bool:
    """Wait for ``stopped`` (True), or until somebody else has ended the system (False): `aiqueue down` does.

    A queue that restarts or fails is still there, and what is wrong with it is said once.
    """
    seen, told = time.monotonic(), ""
    while not stopped.wait(_POLL_S):
        trouble = ""
        try:
            if not _answers(system.adapter, stopped):
                return True
        except QueueNotRunning:
            if time.monotonic() - seen > _GONE_AFTER_S:
                return False
            continue
        except QueueUnavailable:
            trouble = _trouble(system)
        except IncompatibleVersion as error:
            say(f"Another release's system has taken the place of this one: {error}")
            return False
        except Exception as error:  # whatever it is, it is no reason to end a system that others use
            trouble = f"The queue does not answer as it should: {error}"
        seen = time.monotonic()
        if trouble != told:
            told = trouble
            say(trouble or "The queue is up again.")
    return True


def _trouble(system: System) -> str:
    try:
        cause = system.trouble()
    except Exception as error:
        return f"The queue does not answer, and Ray neither: {error}"
    return f"The queue can't start again, and goes on trying: {cause}" if cause else ""


def _answers(adapter: AIQueueAdapter, stopped: threading.Event) -> bool:
    """Return True when the queue has answered, False if ``stopped`` comes first: a silent queue takes its time.

    Raises what it answers, or what keeps it from that.
    """
    call = adapter.begin(adapter.asynchronous.ping())
    while not call.done():
        if stopped.wait(_LOOK_S):
            call.cancel()
            return False
    call.result()
    return True
