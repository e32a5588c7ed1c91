"""The demo's prompts: JSON Lines, one job a line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic
from pydantic import BaseModel, ConfigDict, Field, model_validator

from aiqueue.errors import FieldError, ValidationError
from aiqueue.levels import AIJobPriority
from aiqueue.models import AIJobType, ChatMessage, GenerationConfig
from aiqueue.validation import field_errors

SHIPPED_PROMPTS = Path(__file__).with_name("demo_prompts.jsonl")


class PromptLine(BaseModel):
    """One line of the file. ``prompt`` is short for ``messages`` with one message of the user."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    priority: AIJobPriority = AIJobPriority.MEDIUM
    prompt: str | None = Field(None, min_length=1)
    messages: list[ChatMessage] | None = Field(None, min_length=1)
    config: GenerationConfig = GenerationConfig()

    @model_validator(mode="after")
    def _says_what_to_ask(self) -> PromptLine:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either prompt or messages")
        return self


@dataclass(frozen=True)
class DemoJob:
    """What is sent: under its own id, so that sending it again makes no second job."""

    id: str
    priority: str
    payload: dict[str, Any]

    @property
    def prompt(self) -> str:
        """The last message, for the table."""
        content = self.payload["messages"][-1].get("content") or ""
        return content if isinstance(content, str) else str(content)


def read_prompts(path: Path) -> list[PromptLine]:
    """Return the lines of ``path``; empty ones are skipped. Raises ValidationError with every line that is wrong."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValidationError([FieldError(str(path), f"is not UTF-8: {error}")]) from None
    found, errors = list[PromptLine](), list[FieldError]()
    for number, line in enumerate(lines, start=1):
        try:
            if line.strip():
                found.append(PromptLine.model_validate_json(line))
        except pydantic.ValidationError as error:
            errors += field_errors(error, prefix=f"{path.name} line {number}")
    if errors:
        raise ValidationError(errors)
    if not found:
        raise ValidationError([FieldError(str(path), "holds no prompt")])
    return found


def make_jobs(lines: list[PromptLine], ids: list[str], *, provider: str, model: str) -> list[DemoJob]:
    """Return a chat job for each line."""
    return [
        DemoJob(job_id, line.priority.value, _payload(line, provider, model))
        for job_id, line in zip(ids, lines, strict=True)
    ]


def _payload(line: PromptLine, provider: str, model: str) -> dict[str, Any]:
    asked = line.model_dump(mode="json", exclude_none=True, exclude_defaults=True, include={"messages", "config"})
    messages = [{"role": "user", "content": line.prompt}]
    return {
        "type": AIJobType.CHAT_COMPLETION.value,
        "provider": provider,
        "model": model,
        "messages": messages,
        **asked,
    }
