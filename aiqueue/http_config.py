"""Settings of the HTTP front."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

HostName = Annotated[str, Field(pattern=r"^(\*|(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*)$", max_length=255)]
Origin = Annotated[str, Field(pattern=r"^https?://[A-Za-z0-9_.:\[\]-]+$", max_length=300)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class HttpConfig(_Section):
    """The HTTP front. Without authentication it belongs on loopback."""

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65_535, description="0: a free one")
    route_prefix: str = Field(
        "",
        pattern=r"^(/|(/[A-Za-z0-9._-]+)+)?$",
        description="path below which it is served; empty: /, or one of its own if another application has that",
    )
    replicas: int | None = Field(
        None, ge=1, description="default: 1, and 2 on several nodes where the host is not a loopback address"
    )
    max_body_bytes: int = Field(64 * 2**20, ge=1024)
    hosts: tuple[HostName, ...] = Field(
        (), description="names it answers to, besides loopback names and addresses; *.example.com: all below; *: any"
    )
    origins: tuple[Origin, ...] = Field(
        (), description="other sites whose pages may use it, as browsers write them: https://tools.example.com"
    )
    drain_s: float = Field(
        30.0, ge=0, description="when it stops: longest wait for requests and streams in flight to end by themselves"
    )
