"""What users submit, validated: payloads, options and the bodies of HTTP requests.

Names are snake_case in Python and camelCase in JSON; both are accepted on input. ``extra="forbid"`` everywhere: a
misspelt field must not pass in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeVar
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    FailFast,
    Field,
    JsonValue,
    Strict,
    TypeAdapter,
    field_validator,
    model_validator,
)
from pydantic import Tag as UnionTag
from pydantic.alias_generators import to_camel

from aiqueue import texts
from aiqueue.json_text import encode
from aiqueue.levels import AIJobPriority
from aiqueue.strict_fields import NULL_IS_ABSENT, Flag, level, level_or_number, moment, number, without_null

Role = Literal["system", "developer", "user", "assistant", "tool"]
#: Strict: bytes would pass for text, and then be stored as base64.
Text = Annotated[str, Strict()]
JsonObject = dict[Text, JsonValue]
_Item = TypeVar("_Item")


class _FailFast(FailFast):
    __hash__ = object.__hash__  # pydantic's own has none, so it can't stand in a union


#: A list of which the first wrong item is told: an error takes 6 µs and 1 KiB, and a body has room for millions.
Items = Annotated[list[_Item], _FailFast()]
ModelName = Annotated[Text, texts.MODEL.field(), AfterValidator(texts.clean)]
ProviderName = Annotated[
    Text, texts.PROVIDER.field(description="name of a configured provider"), AfterValidator(texts.clean)
]
Tag = Annotated[Text, texts.TAG.field(), AfterValidator(texts.clean)]
Name = Annotated[Text, texts.NAME.field(), AfterValidator(texts.clean)]
IdempotencyKey = Annotated[Text, texts.IDEMPOTENCY_KEY.field(), AfterValidator(texts.clean)]
StepName = Annotated[Text, Field(json_schema_extra={"pattern": texts.STEP}), AfterValidator(texts.step)]

MAX_BATCH_JOBS = 10_000
_MAX_WAIT_MS = 366 * 86_400_000
MAX_COUNT = 2**31 - 1  #: of whatever is counted and has no smaller limit; larger numbers fit no message to the queue
_METADATA = "kept with the job, not interpreted; as JSON it may have limits.max_metadata_bytes, 16 KiB by default"


class AIJobType(StrEnum):
    """What is asked of the model."""

    CHAT_COMPLETION = "chat_completion"
    TEXT_COMPLETION = "text_completion"
    EMBEDDING = "embedding"


class _Model(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True, allow_inf_nan=False
    )


class _Verbatim(BaseModel):
    """Fields whose JSON names are the providers' own snake_case. JSON has no NaN and no infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


class ChatMessage(_Verbatim):
    """One turn. ``content`` is text, or the providers' list of parts (text, images …)."""

    role: Role
    content: Text | Items[JsonObject] | None = None
    name: Text | None = None
    tool_calls: Items[JsonObject] | None = None
    tool_call_id: Text | None = None


class GenerationConfig(_Verbatim):
    """Sampling and limits. Absent means the provider's default; a provider ignores none of them in silence.

    Strict: what was validated is what is stored, so ``"0.7"`` is not quietly a number.
    """

    model_config = ConfigDict(strict=True)

    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0, le=MAX_COUNT)
    min_p: float | None = Field(None, ge=0, le=1)
    max_tokens: int | None = Field(None, ge=1, le=MAX_COUNT)
    stop: str | Items[str] | None = None
    seed: int | None = Field(None, description="its range is the provider's")
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    response_format: JsonObject | None = None
    tools: Items[JsonObject] | None = None
    tool_choice: str | JsonObject | None = None
    dimensions: int | None = Field(None, ge=1, le=MAX_COUNT, description="embeddings only")
    extra_body: JsonObject | None = Field(None, description="sent to the provider as it is")


_NO_CONFIG = GenerationConfig()


class _Payload(_Verbatim):
    provider: ProviderName
    model: ModelName
    config: GenerationConfig = Field(default_factory=lambda: _NO_CONFIG)  # shared: a default is copied for each job


class ChatPayload(_Payload):
    """A conversation to continue."""

    type: Literal[AIJobType.CHAT_COMPLETION]
    messages: Items[ChatMessage] = Field(min_length=1)


class CompletionPayload(_Payload):
    """A text to continue."""

    type: Literal[AIJobType.TEXT_COMPLETION]
    prompt: Text = Field(min_length=1)


class EmbeddingPayload(_Payload):
    """One text or several to turn into vectors."""

    type: Literal[AIJobType.EMBEDDING]
    input: Text | Items[Text] = Field(min_length=1)


JobPayload = Annotated[ChatPayload | CompletionPayload | EmbeddingPayload, Field(discriminator="type")]

#: Validates a payload given as a dict (or a model); see ``aiqueue.validation.validate_job_payload``.
PAYLOAD: TypeAdapter[ChatPayload | CompletionPayload | EmbeddingPayload] = TypeAdapter(JobPayload)


class JobOptions(_Model):
    """How a job is to be treated. Durations are in milliseconds, as in the specification."""

    priority: Annotated[AIJobPriority, NULL_IS_ABSENT] = Field(AIJobPriority.MEDIUM, description="urgent runs first")
    max_retries: int | None = Field(
        None, ge=0, le=10, description="attempts after the first one; absent: the system's default, 3 if not configured"
    )
    timeout: Annotated[int, Field(ge=100, le=86_400_000), NULL_IS_ABSENT] = Field(
        30_000, description="ms one attempt may take"
    )
    tags: Annotated[tuple[Tag, ...], _FailFast(), Field(max_length=texts.MAX_TAGS), NULL_IS_ABSENT] = ()
    metadata: Annotated[Mapping[Text, JsonValue], NULL_IS_ABSENT] = Field(
        default_factory=dict,
        description="kept with the job, not interpreted; as JSON up to limits.max_metadata_bytes, 16 KiB by default",
    )
    run_at: AwareDatetime | None = Field(None, description="not before this time")
    delay: int | None = Field(None, ge=0, le=_MAX_WAIT_MS, description="not before this many ms from now")
    deadline: AwareDatetime | None = Field(None, description="to be started by then, or it expires and nothing runs")
    expires_in: int | None = Field(None, ge=1, le=_MAX_WAIT_MS, description="the same, in ms from now")
    start_timeout: int | None = Field(None, ge=1, le=_MAX_WAIT_MS, description="as expires_in; the sooner one counts")
    on_gate: Annotated[Literal["wait", "fail"], NULL_IS_ABSENT] = Field(
        "wait", description="while the provider takes no calls: wait, or fail at once"
    )
    idempotency_key: IdempotencyKey | None = Field(
        None, description="a second submit with this key is the first one, for 24 h"
    )
    job_id: UUID | None = Field(None, description="chosen by the caller; a second submit of the same job is the first")

    _numbers = field_validator("max_retries", "timeout", "delay", "expires_in", "start_timeout", mode="before")(number)
    _times = field_validator("run_at", "deadline", mode="before")(moment)
    _nulls = model_validator(mode="before")(without_null("priority"))

    def at_level(self, beside: AIJobPriority | int | None) -> JobOptions:
        """Return the options with the priority that stands beside them. Raises ValueError if they have another."""
        if beside is None:
            return self
        wanted = level(beside)
        if "priority" in self.model_fields_set and self.priority is not wanted:
            raise ValueError(f"{wanted} here, but {self.priority} in options: give one of them")
        return self.model_copy(update={"priority": wanted})

    @field_validator("timeout", mode="before")
    @classmethod
    def _timeout_is_in_ms(cls, value: Any) -> Any:
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 100:
            raise ValueError(
                f"timeout is in milliseconds: {value} would end every attempt; for seconds write {round(value * 1000)}"
            )
        return value

    @field_validator("metadata")
    @classmethod
    def _metadata_is_json(cls, value: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
        if texts.depth_of(value, texts.MAX_METADATA_DEPTH) > texts.MAX_METADATA_DEPTH:
            raise ValueError(f"may be nested {texts.MAX_METADATA_DEPTH} deep")
        if value:
            encode(value)  # refuses what pydantic lets pass: text that is no Unicode
        return value

    @field_validator("priority", mode="before")
    @classmethod
    def _priority_by_name_or_number(cls, value: Any) -> Any:
        return level(value)


_NO_OPTIONS = JobOptions()


#: A priority that stands beside the payload.
PriorityBeside = Annotated[
    AIJobPriority | Literal[15, 10, 5, 1] | None,
    BeforeValidator(level_or_number),
    Field(description="as in options, where it may stand instead; null: it is the one in options"),
]


class SubmitBody(_Model):
    """``POST /ai/jobs``. ``priority`` may stand here or in ``options``."""

    payload: JobPayload
    priority: PriorityBeside = None
    options: Annotated[JobOptions, NULL_IS_ABSENT] = Field(default_factory=lambda: _NO_OPTIONS)


class BatchOptions(JobOptions):
    """Options of a batch: each job gets them, and the batch its name."""

    job_id: None = None
    idempotency_key: None = None
    name: Name | None = None
    max_concurrency: int | None = Field(
        None, ge=1, le=MAX_COUNT, description="jobs of the batch that run at once at most"
    )
    fail_fast: Annotated[Flag, NULL_IS_ABSENT] = Field(False, description="the first job that fails stops the others")
    max_failed_ratio: Annotated[float, Field(ge=0, le=1), NULL_IS_ABSENT] = Field(
        1.0, description="so does a greater share of failed ones"
    )

    _batch_numbers = field_validator("max_concurrency", "max_failed_ratio", mode="before")(number)


class GraphOptions(JobOptions):
    """Options of a chain, a graph or a fan-in: each job gets them."""

    job_id: None = None
    idempotency_key: None = None
    name: Name | None = None
    max_concurrency: int | None = Field(None, ge=1, le=MAX_COUNT, description="jobs of it that run at once at most")

    _graph_numbers = field_validator("max_concurrency", mode="before")(number)


class BatchBody(_Model):
    """``POST /ai/jobs/batch``: payloads, all of them accepted or none."""

    jobs: list[JobPayload] = Field(min_length=1, max_length=MAX_BATCH_JOBS)
    options: Annotated[BatchOptions, NULL_IS_ABSENT] = BatchOptions()


class ChainOptions(GraphOptions):
    """Options of a chain."""

    stop_on_error: Annotated[Flag, NULL_IS_ABSENT] = Field(
        True, description="False: go on after a failed step, with its error as the input"
    )

    def for_jobs(self) -> GraphOptions:
        """Return what the jobs get."""
        return GraphOptions.model_validate(self.model_dump(exclude={"stop_on_error"}, exclude_unset=True))


class ChainStep(_Model):
    """A step with a name, which later steps may use: ``{{steps.name.content}}``."""

    name: StepName | None = None
    payload: JobPayload


def _form_of_step(value: Any) -> str:
    """Return which of its two forms a step is meant to have, so that its errors are those of that form alone."""
    if isinstance(value, Mapping):
        return _STEP if "payload" in value or "type" not in value else _PAYLOAD
    return _STEP if isinstance(value, ChainStep) else _PAYLOAD


_STEP, _PAYLOAD = "[step]", "[payload]"  # brackets: no field is called so, and errors leave it out of their paths
_Step = Annotated[
    Annotated[ChainStep, UnionTag(_STEP)] | Annotated[JobPayload, UnionTag(_PAYLOAD)], Discriminator(_form_of_step)
]


class ChainBody(_Model):
    """``POST /ai/chains``: payloads, with or without names."""

    steps: list[_Step] = Field(min_length=1, max_length=1_000)
    options: Annotated[ChainOptions, NULL_IS_ABSENT] = ChainOptions()

    def named_steps(self) -> list[ChainStep]:
        """Return the steps in one form."""
        return [step if isinstance(step, ChainStep) else ChainStep(payload=step) for step in self.steps]


class GraphNodeBody(_Model):
    """One job of a graph."""

    payload: JobPayload
    # Names of other nodes: they are looked up.
    depends_on: Annotated[Items[Text], NULL_IS_ABSENT] = Field(default_factory=list)
    on_error: Annotated[Literal["fail", "skip", "include"], NULL_IS_ABSENT] = Field(
        "fail", description="what the job does when one that it needs did not complete"
    )

    def as_node(self) -> dict[str, Any]:
        """Return the node as ``submit_graph`` takes it."""
        return {"payload": self.payload, "depends_on": self.depends_on, "on_error": self.on_error}


class GraphBody(_Model):
    """``POST /ai/graphs``."""

    nodes: dict[StepName, GraphNodeBody] = Field(min_length=1, max_length=10_000)
    options: Annotated[GraphOptions, NULL_IS_ABSENT] = GraphOptions()


class FanInBody(_Model):
    """``POST /ai/fan-in``: a payload whose texts use the results of other jobs."""

    job_ids: Items[UUID] = Field(min_length=1, max_length=MAX_BATCH_JOBS)
    payload: JobPayload
    on_error: Annotated[Literal["fail", "skip", "include"], NULL_IS_ABSENT] = Field(
        "fail", description="what the job does when one of the others did not complete"
    )
    options: Annotated[GraphOptions, NULL_IS_ABSENT] = GraphOptions()
