"""What a schedule may be, validated, and what is shown of one."""

from __future__ import annotations

import time
from datetime import UTC, datetime, tzinfo
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import msgspec
from pydantic import AfterValidator, BaseModel, Field, ValidationInfo, field_validator

from aiqueue import cron, texts
from aiqueue.engine.schedule_records import ScheduleRun, ScheduleView
from aiqueue.levels import LEVELS
from aiqueue.models import JobOptions, JobPayload, PriorityBeside, Text
from aiqueue.strict_fields import NULL_IS_ABSENT, Flag, number
from aiqueue.views import moment

MAX_JITTER_MS = 86_400_000
ScheduleName = Annotated[Text, texts.SCHEDULE_NAME.field(), AfterValidator(texts.SCHEDULE_NAME.clean)]


class ScheduledJobOptions(JobOptions):
    """Options of each job that a schedule starts. What names one job or one moment has no place here."""

    job_id: None = None
    idempotency_key: None = None
    run_at: None = None
    deadline: None = None


_NO_OPTIONS = ScheduledJobOptions()


class ScheduleDefinition(BaseModel):
    """When a job is to run, and by which rules."""

    model_config = JobOptions.model_config

    name: ScheduleName = Field(description="unique among the schedules")
    timezone: Annotated[Text, texts.TIMEZONE.field(), AfterValidator(texts.clean), NULL_IS_ABSENT] = Field(
        "UTC", description="IANA name, such as Europe/London"
    )
    cron_expression: Annotated[Text, texts.CRON_EXPRESSION.field(), AfterValidator(texts.clean)] = Field(
        description="minute hour day month weekday, with a second in front if there are six; or @daily and its like"
    )
    enabled: Annotated[Flag, NULL_IS_ABSENT] = Field(True, description="false: paused from the start")
    overlap: Annotated[Literal["skip", "queue", "cancel_running"], NULL_IS_ABSENT] = Field(
        "skip", description="when the last run has not ended: leave the tick out, let it wait, or cancel that run"
    )
    catch_up: Annotated[Literal["none", "last", "all"], NULL_IS_ABSENT] = Field(
        "last", description="ticks that passed while the queue was down: none of them runs, the last one, or up to 100"
    )
    jitter: Annotated[int, Field(ge=0, le=MAX_JITTER_MS), NULL_IS_ABSENT] = Field(
        0, description="each tick starts up to this many ms later"
    )
    priority: PriorityBeside = None
    options: Annotated[ScheduledJobOptions, NULL_IS_ABSENT] = Field(default_factory=lambda: _NO_OPTIONS)

    _numbers = field_validator("jitter", mode="before")(number)

    @field_validator("timezone")
    @classmethod
    def _timezone_is_known(cls, value: str) -> str:
        _ask(lambda: cron.Cron("@daily", value))
        return value

    @field_validator("cron_expression")
    @classmethod
    def _cron_line_fires(cls, value: str, info: ValidationInfo) -> str:
        zone = info.data.get("timezone", "UTC")
        _ask(lambda: cron.check(value, zone, now=time.time()))
        return value

    @field_validator("catch_up")
    @classmethod
    def _runs_are_not_cancelled_by_the_next(cls, value: str, info: ValidationInfo) -> str:
        if value == "all" and info.data.get("overlap") == "cancel_running":
            raise ValueError("with overlap cancel_running each run would cancel the one before: take last or none")
        return value

    def job_options(self) -> JobOptions:
        """Return the options of its jobs. Raises ValueError where a priority is given twice and differs."""
        return self.options.at_level(self.priority)


class ScheduleBody(ScheduleDefinition):
    """``POST /ai/schedules``: a schedule and the payload of its jobs."""

    payload: JobPayload


def _ask(question: Any) -> None:
    try:
        question()
    except cron.CronError as error:
        raise ValueError(error.message) from None


class _View(msgspec.Struct, kw_only=True, rename="camel", omit_defaults=True):
    """Camel-case JSON."""


class ScheduleRunInfo(_View):
    """One tick and what came of it; or several that were skipped or missed for one reason."""

    tick: datetime  #: the time that the cron line names; of a manual run, when it was asked for
    at: datetime  #: when the queue acted on it
    outcome: str  #: ``fired``, ``manual``, ``skipped``, ``missed`` or ``refused``
    job_id: str | None = None
    status: str | None = None  #: how its job ended; None while it has not
    ended_at: datetime | None = None
    reason: str | None = None
    count: int = 1  #: ticks that this stands for


class ScheduleInfo(_View):
    """A schedule as users see it; ``str()`` of it is its id. Times of runs are in its own time zone."""

    schedule_id: str
    name: str
    cron_expression: str
    timezone: str
    enabled: bool
    overlap: str
    catch_up: str
    jitter: int  #: milliseconds
    priority: str
    type: str
    provider: str
    model: str
    max_retries: int
    timeout: int  #: milliseconds one attempt may take
    created_at: datetime
    tags: tuple[str, ...] = ()
    metadata: dict[str, Any] = {}
    payload: dict[str, Any] | None = None  #: where it was asked for
    next_run: datetime | None = None
    next_runs: list[datetime] = []  #: the coming ones, where a single schedule was asked for
    last_run: ScheduleRunInfo | None = None
    fired: int = 0  #: jobs started in all
    waiting: int = 0  #: ticks that wait for the run before them, or for room in the queue
    running: list[str] = []  #: jobs that have not ended
    problem: str | None = None  #: why the queue itself has paused it

    def __str__(self) -> str:
        return self.schedule_id


def schedule_info(view: ScheduleView) -> ScheduleInfo:
    """Return ``view`` as users see it."""
    spec, state = view.spec, view.state
    zone = _zone(spec.timezone)
    coming = [datetime.fromtimestamp(at, zone) for at in view.next_ticks]
    return ScheduleInfo(
        schedule_id=spec.id,
        name=spec.name,
        cron_expression=spec.expression,
        timezone=spec.timezone,
        enabled=state.enabled,
        overlap=spec.overlap,
        catch_up=spec.catch_up,
        jitter=spec.jitter_ms,
        priority=LEVELS[spec.header.level],
        type=spec.header.type,
        provider=spec.header.provider,
        model=spec.header.model,
        max_retries=spec.header.max_retries,
        timeout=spec.header.timeout_ms,
        tags=spec.header.tags,
        metadata=msgspec.json.decode(spec.header.metadata) if spec.header.metadata else {},
        payload=msgspec.json.decode(spec.payload) if spec.payload else None,
        created_at=datetime.fromtimestamp(spec.created_at, UTC),
        next_run=coming[0] if coming else None,
        next_runs=coming,
        last_run=_run_info(state.runs[-1], zone) if state.runs else None,
        fired=state.fired,
        waiting=len(state.waiting),
        running=[run.job_id for run in state.runs if run.job_id and not run.status],
        problem=state.problem or None,
    )


def history_of(view: ScheduleView) -> list[ScheduleRunInfo]:
    """Return the last runs, the newest first."""
    zone = _zone(view.spec.timezone)
    return [_run_info(run, zone) for run in reversed(view.state.runs)]


def _run_info(run: ScheduleRun, zone: tzinfo) -> ScheduleRunInfo:
    return ScheduleRunInfo(
        tick=datetime.fromtimestamp(run.tick, zone),
        at=datetime.fromtimestamp(run.at, zone),
        outcome=run.outcome,
        job_id=run.job_id or None,
        status=run.status or None,
        ended_at=moment(run.ended_at),
        reason=run.reason or None,
        count=run.count,
    )


def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):  # this machine's database may be older than the queue's
        return UTC
