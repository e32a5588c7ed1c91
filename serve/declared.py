"""The application for a Serve configuration file: `serve deploy`, `serve run` and KubeRay's RayService.

Serve imports ``build`` on a node of the cluster and calls it with the file's ``args``; the rest of the file says where
and how often the application runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import pydantic
import ray
from pydantic import BaseModel, ConfigDict
from ray.serve.deployment import Application
from ray.serve.exceptions import RayServeException

from aiqueue.http_config import HostName, HttpConfig, Origin
from aiqueue.validation import field_errors
from serve.deployment import adapter_over_ray, front
from serve.running import check_taken, running_serve


class BuildArgs(BaseModel):
    """The ``args`` of an application in a Serve configuration file."""

    model_config = ConfigDict(extra="forbid")

    namespace: str = pydantic.Field("aiqueue", min_length=1)
    max_body_bytes: int = HttpConfig.model_fields["max_body_bytes"].default
    hosts: tuple[HostName, ...] = ()
    origins: tuple[Origin, ...] = ()


def build(args: dict[str, Any]) -> Application:
    """Return the application. Raises RayServeException: Serve shows its text, and of other errors a traceback."""
    namespace, http = _checked(args)
    if ray.is_initialized() and (running := running_serve()):
        check_taken(args, running)
    return front().bind(partial(adapter_over_ray, namespace), http)


def _checked(args: Mapping[str, Any]) -> tuple[str, HttpConfig]:
    """Return the namespace and the settings.

    Serve would do it by the annotation of ``build``, if that were a class and no text, and with a traceback.
    """
    try:
        given = BuildArgs.model_validate(args)
        return given.namespace, HttpConfig(**given.model_dump(exclude={"namespace"}))
    except pydantic.ValidationError as error:
        wrong = "; ".join(f"args.{each.field}: {each.message}" for each in field_errors(error))
        raise RayServeException(f"the application can't be built: {wrong}") from None
