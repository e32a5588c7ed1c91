"""``aiqueue submit``, ``get`` and ``cancel``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from aiqueue.cli.joining import Address, AsJson, JobId, Joined, Namespace, joined
from aiqueue.cli.output import print_json
from aiqueue.cli.payloads import Request, payload_of, read_payload
from aiqueue.client.display import duration
from aiqueue.errors import FieldError, JobError, JobNotFound, ValidationError
from aiqueue.levels import AIJobPriority
from aiqueue.models import AIJobType
from aiqueue.views import JobInfo

commands = typer.Typer()


@commands.command()
def submit(
    ctx: typer.Context,
    prompt: Annotated[str | None, typer.Argument(help="The prompt; - reads it from stdin.", show_default=False)] = None,
    file: Annotated[
        Path | None, typer.Option(help="JSON file with a whole payload, instead.", exists=True, dir_okay=False)
    ] = None,
    provider: Annotated[str | None, typer.Option(help="Default: the only one.")] = None,
    model: Annotated[str | None, typer.Option(help="Default: the provider's only one.")] = None,
    type_: Annotated[AIJobType, typer.Option("--type", help="What is asked.")] = AIJobType.CHAT_COMPLETION,
    system: Annotated[str | None, typer.Option(help="System message of a chat.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Length of the answer at most.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, max=2)] = None,
    priority: Annotated[AIJobPriority, typer.Option(help="urgent runs first.")] = AIJobPriority.MEDIUM,
    max_retries: Annotated[int | None, typer.Option(min=0, max=10, help="Attempts after the first.")] = None,
    timeout: Annotated[int | None, typer.Option(min=100, help="Milliseconds one attempt may take.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Kept with the job; may be repeated.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the answer and print it.")] = False,
    as_json: AsJson = False,
    address: Address = None,
    namespace: Namespace = None,
) -> None:
    """Submit a job and print its id; it is on the queue's disk then."""
    config = {"max_tokens": max_tokens, "temperature": temperature}
    given = {"provider": provider, "model": model, "system": system, **config}
    source: Path | Request
    if file is not None:
        source = _only_file(file, prompt=prompt, **given)
    else:
        source = Request(prompt=_text(prompt), type=type_, provider=provider, model=model, system=system, config=config)
    options = {"priority": priority, "max_retries": max_retries, "timeout": timeout, "tags": tuple(tag or ())}
    with joined(ctx, namespace, address) as queue:
        payload = read_payload(source) if isinstance(source, Path) else payload_of(source, queue.providers())
        job_id = queue.adapter.submit_job(payload, {name: v for name, v in options.items() if v is not None})
        if wait:
            _print_answer(queue, job_id, as_json=as_json)
        elif as_json:
            print_json({"jobId": job_id, "status": "queued"})
        else:
            typer.echo(job_id)


@commands.command()
def get(
    ctx: typer.Context, job_id: JobId, as_json: AsJson = False, address: Address = None, namespace: Namespace = None
) -> None:
    """Show a job: its status, and its answer or error once it has ended."""
    with joined(ctx, namespace, address) as queue:
        info = queue.adapter.get_job_status(job_id)
    if info is None:
        raise JobNotFound(job_id)
    if as_json:
        print_json(info)
    else:
        typer.echo("\n".join(f"{name:10} {value}" for name, value in job_lines(info)))


@commands.command()
def cancel(
    ctx: typer.Context, job_id: JobId, as_json: AsJson = False, address: Address = None, namespace: Namespace = None
) -> None:
    """Cancel a job: at once if it waits, through its worker if it runs."""
    with joined(ctx, namespace, address) as queue:
        answer = queue.adapter.cancel_job(job_id)
    if as_json:
        print_json(answer)
    else:
        typer.echo(answer.status if answer else f"not cancelled: it is {answer.status} already", err=not answer)
    if not answer:
        raise typer.Exit(1)


def job_lines(info: JobInfo) -> list[tuple[str, Any]]:
    """Return what there is to say of a job, as names and values."""
    lines = [
        ("job", info.job_id),
        ("status", info.status),
        ("priority", info.priority),
        ("asks", f"{info.type} of {info.provider}/{info.model}"),
        ("created", f"{info.created_at:%Y-%m-%d %H:%M:%S} UTC"),
        ("attempt", info.attempt),
        ("tags", ", ".join(info.tags)),
    ]
    if (sla := info.sla_compliance) is not None:
        kept = "met" if sla.met else "missed"
        lines.append(("took", f"{duration(sla.actual_ms)} (SLA {duration(sla.target_ms)} {kept})"))
    if info.error:
        lines.append(("error", f"{info.error.kind}: {info.error.message}"))
    if info.result:
        lines += [("tokens", info.result.tokens), ("answer", _answer(info))]
    return [(name, value) for name, value in lines if value != ""]


def _print_answer(queue: Joined, job_id: str, *, as_json: bool) -> None:
    """Wait for a job and print what came of it. Raises the JobError that ended it."""
    typer.echo(f"job {job_id}", err=True)  # not on stdout: that is for the answer
    try:
        info = queue.adapter.wait(job_id)
    except KeyboardInterrupt:
        typer.echo(f"the job goes on: aiqueue get {job_id}", err=True)
        raise
    if as_json:
        print_json(info)
    elif info.result:
        typer.echo(_answer(info))
    if info.status != "completed":
        raise info.exception() or JobError(f"the job ended as {info.status}")


def _answer(info: JobInfo) -> str:
    """Return a result as text: what the model wrote, or the vectors."""
    if info.result is None:
        return ""
    vectors = [item.embedding for item in info.result.response.data]
    return "\n".join(str(vector) for vector in vectors) if vectors else info.result.text


def _text(prompt: str | None) -> str:
    """Return the prompt, read from stdin if it is ``-``."""
    text = _read_stdin() if prompt == "-" else prompt
    if not text or not text.strip():
        raise ValidationError([FieldError("prompt", 'is missing: aiqueue submit "Why?", or - for stdin, or --file')])
    return text


def _read_stdin() -> str:
    """Return the text on stdin without a byte order mark. Raises ValidationError for bytes that are no text."""
    try:
        return sys.stdin.read().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        message = f"on stdin is not in {error.encoding}, the encoding of this terminal: byte {error.start}"
        raise ValidationError([FieldError("prompt", message)]) from None


def _only_file(file: Path, **given: object) -> Path:
    """Return ``file`` unless options say what the file says too."""
    twice = sorted(name.replace("_", "-") for name, value in given.items() if value is not None)
    if twice:
        raise ValidationError([FieldError("--file", f"holds the whole payload, so leave out: {', '.join(twice)}")])
    return file
