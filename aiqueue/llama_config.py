"""Settings of models in memory: how one serves many requests, and which files there are."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class LlamaConfig(_Section):
    """How a model in memory serves many requests at once."""

    parallel: int = Field(8, ge=1, le=128, description="requests at once; they share context_tokens")
    urgent_slots: int = Field(0, ge=0, description="of these, kept free for urgent jobs")
    batch_tokens: int = Field(512, ge=32, description="tokens of one step, and of the longest text to embed")
    prompt_tokens: int = Field(128, ge=1, description="of a step, for prompts while others generate")
    remember_tokens: int | None = Field(
        None, ge=0, description="of ended jobs, for prompts that begin alike; absent: a quarter of context_tokens"
    )
    flash_attention: bool | None = Field(None, description="absent: llama.cpp decides")
    system_prompts: tuple[str, ...] = Field((), description="read at the start and remembered")
    swap_after_jobs: int = Field(32, ge=0, description="jobs of the loaded model that may pass one for another model")
    swap_after_s: float = Field(10.0, ge=0, description="how long they may")

    @model_validator(mode="after")
    def _all_fit(self) -> LlamaConfig:
        if self.urgent_slots >= self.parallel:
            raise ValueError(f"urgent_slots ({self.urgent_slots}) must leave a slot of parallel ({self.parallel})")
        if self.batch_tokens < self.parallel:
            raise ValueError(f"batch_tokens ({self.batch_tokens}) must be at least parallel ({self.parallel})")
        return self


class ModelFileConfig(_Section):
    """A GGUF file of the catalogue: a ``path`` in its folder, or a ``file`` of a Hugging Face ``repo``."""

    path: Path | None = Field(None, description="relative to models.folder, and nowhere outside of it")
    repo: str = Field("", pattern=r"^([\w.-]+/[\w.-]+)?$")
    file: str = Field("", pattern=r"^[\w./-]*$")
    revision: str = Field("main", pattern=r"^[\w.-]+$")
    sha256: str = Field("", pattern=r"^([0-9a-f]{64})?$", description="a file that is fetched needs it")

    @model_validator(mode="after")
    def _one_source(self) -> ModelFileConfig:
        if bool(self.path) == bool(self.repo):
            raise ValueError("a model needs either a path or a repo")
        if self.repo and not (self.file and self.sha256):
            raise ValueError("a model of a repo needs file and sha256 (the repo's page of the file shows it)")
        if any(part in ("", ".", "..") for part in self.file.split("/")) and self.file:
            raise ValueError(f"{self.file!r} is no path of a file in a repo")
        return self


class ModelsConfig(_Section):
    """The catalogue: names that jobs may give, and the files they stand for."""

    folder: Path = Field(Path("~/.aiqueue/models"), description="on each node that runs llama_cpp workers")
    hub_url: str = Field("https://huggingface.co", description="or a mirror of it")
    files: dict[str, ModelFileConfig] = Field(default_factory=dict)
