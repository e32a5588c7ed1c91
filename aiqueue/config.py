"""Settings: defaults, then a TOML file, then ``AIQUEUE_*`` environment variables, then arguments; the last one wins.

Nested settings in the environment use two underscores: ``AIQUEUE_JOURNAL__DURABILITY=normal``. Secrets are not
settings: a provider names the environment variable that holds its key on the workers.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from aiqueue import texts
from aiqueue.errors import StartError
from aiqueue.http_config import HttpConfig
from aiqueue.levels import DEFAULT_SLA_MS, LEVELS, AIJobPriority
from aiqueue.llama_config import LlamaConfig, ModelsConfig
from aiqueue.own_version import own_version
from aiqueue.pools import scaling_rule
from aiqueue.scaling.policy import PolicyName
from aiqueue.scaling.presets import PresetName

ProviderKind = Literal["openai", "anthropic", "llama_cpp", "simulated"]
Durability = Literal["full", "normal", "off"]

CONFIG_FILE_VARIABLE = "AIQUEUE_CONFIG"
_POLL_MARGIN_S = 15.0
_NOT_READ = "AIQUEUE_DEAD_LETTER_CONFIG"  # variables are read by the names of the fields
DEFAULT_PROVIDERS_ENV = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class GateConfig(_Section):
    """What may be asked of a provider, per credential and model. Absent: no limit."""

    max_concurrent: int | None = Field(None, ge=1, description="calls at once")
    requests_per_minute: float | None = Field(None, gt=0)
    tokens_per_minute: float | None = Field(None, gt=0, description="counted when known, so one call may overdraw it")
    adaptive: bool = Field(True, description="halve the calls at once when the provider is overloaded")
    breaker_failures: int = Field(5, ge=1, description="failures in a row that open the circuit breaker")
    breaker_ratio: float = Field(0.5, gt=0, le=1, description="or this share of the last breaker_window calls")
    breaker_window: int = Field(20, ge=2)
    breaker_open_s: float = Field(30.0, gt=0, description="then one call is let through to see")
    breaker_timeout_s: float = Field(10.0, ge=0, description="a timeout counts as a failure from this limit on")


class ProviderConfig(_Section):
    """One provider: vLLM, Ollama, a proxy or a second account are entries like this, not code."""

    kind: ProviderKind
    base_url: str | None = Field(None, description="absent: the kind's own endpoint")
    credential: str | None = Field(None, description="environment variable on the workers that holds the key")
    models: tuple[str, ...] = Field((), description="models it may be asked for; empty: any")
    model_path: Path | None = Field(None, description="llama_cpp: the GGUF file; absent: models are in the catalogue")
    llama: LlamaConfig = LlamaConfig()
    context_tokens: int = Field(4_096, ge=256, description="llama_cpp: prompts and answers of all requests at once")
    threads: int = Field(1, ge=1, description="llama_cpp: more than the actor's cores makes all of them slow")
    gpu_layers: int = Field(0, ge=-1, description="llama_cpp: layers on the GPU; -1: all")
    connect_timeout_s: float = Field(5.0, gt=0)
    stream: bool = Field(False, description="openai, anthropic: chats are streamed; a cancelled one keeps what it said")
    latency_ms: float = Field(0.0, ge=0, description="simulated: how long an answer takes")
    gate: GateConfig = GateConfig()

    @property
    def key_variable(self) -> str:
        """Name of the environment variable that holds the key; empty where none is sent.

        An entry with a ``base_url`` gets a key only if it names one: the account's key at OpenAI or Anthropic must not
        go to another server because someone forgot to say what that server wants.
        """
        return self.credential or ("" if self.base_url else DEFAULT_PROVIDERS_ENV.get(self.kind, ""))

    @model_validator(mode="after")
    def _llama_needs_a_file(self) -> ProviderConfig:
        if self.kind == "llama_cpp" and self.model_path is None and not self.models:
            raise ValueError("a provider of kind llama_cpp needs model_path, the GGUF file, or models of the catalogue")
        return self


class PoolConfig(_Section):
    """Workers of one kind, and the providers they serve. What is absent is the preset's, else the specification's."""

    providers: tuple[str, ...] = Field(min_length=1)
    preset: PresetName | None = Field(None, description="absent: the settings' own preset, if any")
    workers: int | None = Field(None, ge=0, description="always that many, instead of all about scaling below")
    slots: int | None = Field(None, ge=1, description="jobs one worker runs at once: 64, or what its model serves")
    urgent_slots: int | None = Field(None, ge=0, description="of these, kept free for urgent jobs; none by default")
    num_cpus: float | None = Field(
        None, ge=0, description="what Ray reserves for each worker; absent: 0.05, or 0 with a GPU or on a small machine"
    )
    num_gpus: float = Field(0.0, ge=0)
    memory_mb: float = Field(0.0, ge=0, description="what Ray reserves; max_memory_mb is what is watched")
    resources: dict[str, float] = Field(default_factory=dict)

    min_workers: int | None = Field(None, ge=0, description="1 by default")
    max_workers: int | None = Field(None, ge=0, description="50 by default")
    default_workers: int | None = Field(
        None, ge=0, description="to begin with: 10, or the fewest where each has a model"
    )
    scale_up_threshold: int | None = Field(None, ge=0, description="more waiting jobs: grow; 100 by default")
    scale_down_threshold: int | None = Field(None, ge=0, description="fewer waiting jobs: shrink; 10 by default")
    scale_up_step: int | None = Field(None, ge=1, description="2 by default")
    scale_down_step: int | None = Field(None, ge=1, description="1 by default")
    auto_scale: bool | None = Field(None, description="True by default; False: default_workers whatever waits")
    scaling_policy: PolicyName = Field("threshold", description="sla: by the time left for what waits")
    utilisation: float = Field(0.8, gt=0, le=1, description="sla: how full slots are to be under a steady load")
    scale_up_cooldown_ms: int = Field(1_000, ge=0, description="between two steps up")
    scale_down_cooldown_ms: int = Field(30_000, ge=0, description="from the last change to a step down")
    prewarm_workers: int = Field(0, ge=0, description="for so many Ray's autoscaler keeps nodes, needed or not")
    drain_ms: int = Field(30_000, ge=0, description="for running jobs of a worker that goes; then they are handed back")

    health_check_interval_ms: int = Field(60_000, ge=100)
    max_memory_mb: float | None = Field(None, ge=0, description="private memory; 512 by default, 0: no limit")
    hard_memory_factor: float = Field(1.5, ge=1, description="at this multiple a worker is ended with its jobs")
    max_execution_time_ms: int | None = Field(None, ge=1, description="caps the time limits that jobs bring along")
    max_loop_lag_ms: int = Field(5_000, ge=10, description="for which the worker's event loop may stand still")
    max_start_ms: int = Field(
        1_800_000, ge=1_000, description="until a worker can work; to fetch and load a model is part of it"
    )
    overrun_ms: int = Field(10_000, ge=0, description="a job that outlives its limit by that has hung its worker")
    gc_between_jobs: bool = Field(False, description="collect garbage when a job has ended, once a second at most")


class JournalConfig(_Section):
    """Where and how safely the queue writes."""

    path: Path = Path("~/.aiqueue/journal.db")
    durability: Durability = Field("full", description="full: fsync before any answer; normal and off can lose the end")
    accept_loss: int | None = Field(None, ge=0, description="go on without what is lost: the number that is named")
    new: bool = Field(False, description="begin a new journal, though this namespace had another one; for one start")
    notes: Path = Field(Path("~/.aiqueue/journals"), description="folder where a start notes which journal it found")
    payload_cache_bytes: int = Field(256 * 2**20, ge=0, description="payloads of waiting jobs kept in memory")


class RetryConfig(_Section):
    """Waits between attempts: ``base_s * 2**n`` plus ``jitter``, at most ``cap_s``."""

    base_s: float = Field(1.0, ge=0)
    cap_s: float = Field(30.0, ge=0)
    jitter: float = Field(0.1, ge=0, le=1)
    max_crashes: int = Field(
        3, ge=1, description="workers that may die while they run a job and no other, before it is given up"
    )
    max_refusals: int = Field(50, ge=0, description="how often a job waits as asked before it is a failed attempt")


class DeadLetterConfig(_Section):
    """Jobs out of attempts. ``dead_letter_config`` is another name of this section."""

    enabled: bool = Field(True, description="False: they are merely failed")
    max_retries: int = Field(3, ge=0, le=10, description="for jobs that do not say")
    queue_name: str = Field(
        "ai-jobs-dlq", min_length=1, max_length=64, description="their name in statistics and lists"
    )


class RetentionConfig(_Section):
    """How long jobs that have ended are kept. Whichever limit is reached first."""

    max_age_s: float = Field(86_400.0, gt=0)
    max_jobs: int = Field(
        1_000_000,
        ge=0,
        description="the last ended jobs are kept; older ones go, but those that a live job needs and failed ones "
        "whose redrive, retry or next try is kept",
    )
    idempotency_s: float = Field(86_400.0, gt=0, description="how long an idempotency key is remembered")


class LeaseConfig(_Section):
    """How a silent worker is told from a slow one."""

    heartbeat_s: float = Field(30.0, gt=0)
    missed_heartbeats: int = Field(3, ge=1)

    @property
    def lease_s(self) -> float:
        """How long a lease lasts without a word of its worker."""
        return self.heartbeat_s * self.missed_heartbeats

    @property
    def poll_s(self) -> float:
        """How long the queue lets a worker wait for work: its next call is its heartbeat.

        At most a third of a lease, so that a call may be lost and the next one still comes in time.
        """
        return min(self.heartbeat_s, self.lease_s / 3)

    @property
    def poll_limit_s(self) -> float:
        """After how long without an answer a worker takes a call for lost and sends another one.

        A lease counts from the last call that arrived. If the one after it is lost without a word, the next leaves
        ``poll_s`` + ``poll_limit_s`` later: at five sixths of a lease at the latest. The queue has up to 15 s beyond
        ``poll_s`` for its answer.
        """
        return self.poll_s + min(_POLL_MARGIN_S, self.lease_s / 2 - self.poll_s)


EntryName = Annotated[str, texts.PROVIDER.field(), AfterValidator(texts.clean)]


class LimitsConfig(_Section):
    """What one job may weigh, and how many may wait."""

    max_payload_bytes: int = Field(4 * 2**20, ge=256)
    max_metadata_bytes: int = Field(16 * 2**10, ge=2, le=2**20, description="metadata of one job, as JSON")
    max_result_bytes: int = Field(16 * 2**20, ge=256)
    max_queue_depth: int | None = Field(2_000_000, ge=1, description="waiting jobs in all")
    max_level_depth: dict[AIJobPriority, int] = Field(default_factory=dict, description="waiting jobs of a level")


class Settings(BaseSettings):
    """All settings of one system."""

    model_config = SettingsConfigDict(
        env_prefix="AIQUEUE_", env_nested_delimiter="__", extra="forbid", frozen=True, protected_namespaces=()
    )

    namespace: str = Field("aiqueue", description="Ray namespace: one system per namespace")
    providers: dict[EntryName, ProviderConfig] = Field(default_factory=dict)
    pools: dict[EntryName, PoolConfig] = Field(default_factory=dict)
    preset: PresetName | None = Field(None, description="for pools that name none")
    scaling_interval_ms: int = Field(250, ge=50, description="how often the pools' sizes are decided")
    models: ModelsConfig = ModelsConfig()
    sla_ms: dict[AIJobPriority, int] = Field(default_factory=lambda: dict(DEFAULT_SLA_MS))
    journal: JournalConfig = JournalConfig()
    retry: RetryConfig = RetryConfig()
    lease: LeaseConfig = LeaseConfig()
    http: HttpConfig = HttpConfig()
    limits: LimitsConfig = LimitsConfig()
    dead_letter: DeadLetterConfig = DeadLetterConfig()
    retention: RetentionConfig = RetentionConfig()
    ageing: float = Field(2.0, ge=0, description="SLAs a job waits to count one level higher; 0: never")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the TOML file that ``AIQUEUE_CONFIG`` names (if any) below the environment."""
        path = os.environ.get(CONFIG_FILE_VARIABLE)
        if path and not Path(path).is_file():
            raise StartError(f"{CONFIG_FILE_VARIABLE} names {path}, but there is no such file")
        if misnamed := min((name for name in os.environ if name.upper().startswith(_NOT_READ)), default=""):
            raise StartError(
                f"{misnamed}: in the environment the names of this section begin with AIQUEUE_DEAD_LETTER__"
            )
        file = (TomlConfigSettingsSource(settings_cls, toml_file=path),) if path else ()
        return init_settings, env_settings, *file

    @model_validator(mode="before")
    @classmethod
    def _dead_letters_have_two_names(cls, found: dict[str, Any]) -> dict[str, Any]:
        """Take ``dead_letter_config``, as the specification calls it (arguments and files), for ``dead_letter``."""
        if "dead_letter_config" not in found:
            return found
        if "dead_letter" in found:
            raise ValueError("dead_letter and dead_letter_config are one section: give it once, by one of its names")
        return {"dead_letter" if name == "dead_letter_config" else name: value for name, value in found.items()}

    @model_validator(mode="after")
    def _a_model_in_memory_has_a_pool_of_its_own(self) -> Settings:
        for name, pool in self.pools.items():
            local = [entry for entry in pool.providers if self._kind(entry) == "llama_cpp"]
            if local and len(pool.providers) > 1:
                raise ValueError(
                    f"pool {name}: a llama_cpp provider needs a pool of its own, its model fills the worker"
                )
        return self

    @model_validator(mode="after")
    def _models_in_memory_have_files(self) -> Settings:
        for name, entry in self.providers.items():
            missing = sorted(set(entry.models) - set(self.models.files))
            if entry.kind == "llama_cpp" and entry.model_path is None and missing:
                raise ValueError(f"provider {name} has models without a file (models.files): {', '.join(missing)}")
        return self

    @model_validator(mode="after")
    def _pools_serve_known_providers(self) -> Settings:
        served = [name for pool in self.pools.values() for name in pool.providers]
        unknown = sorted(set(served) - set(self.providers))
        if unknown:
            raise ValueError(f"pools serve providers that are not configured: {', '.join(unknown)}")
        twice = sorted({name for name in served if served.count(name) > 1})
        if twice:
            raise ValueError(f"a provider belongs to one pool, but these stand in several: {', '.join(twice)}")
        return self

    @model_validator(mode="after")
    def _pool_limits_do_not_cross(self) -> Settings:
        for name in self.pools:
            scaling_rule(self, name)
        return self

    def _kind(self, provider: str) -> ProviderKind | None:
        entry = self.providers.get(provider)
        return entry.kind if entry else None

    def serves_local_model(self, pool: str) -> bool:
        """Tell whether ``pool``'s workers hold a model in memory."""
        return any(self._kind(name) == "llama_cpp" for name in self.pools[pool].providers)

    def sla_by_rank(self) -> tuple[int, ...]:
        """SLA in milliseconds by level rank; a level that the settings leave out has its default."""
        return tuple(self.sla_ms.get(level, DEFAULT_SLA_MS[level]) for level in LEVELS)

    def pool_of(self, provider: str) -> str:
        """Name of the pool that serves ``provider``; empty where none does (its jobs wait)."""
        return next((name for name, pool in self.pools.items() if provider in pool.providers), "")


class SentSettings(Settings):
    """Settings as they were sent to an actor: nothing of its own node's environment or files is mixed in."""

    @classmethod
    def received(cls, sent: str) -> SentSettings:
        """Return settings from JSON. Raises StartError for those that another release sent and this one can't read."""
        try:
            return cls.model_validate_json(sent)
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
            raise StartError(
                f"this node has aiqueue {own_version().release}, which can't read the settings that another release "
                f"sent ({wrong}): install the same release on every node"
            ) from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take what was sent, and that alone."""
        return (init_settings,)
