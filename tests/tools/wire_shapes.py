"""What messages and calls look like, as text: kept of each protocol that is understood, and compared with today's."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from typing import Any, get_args

import msgspec

import aiqueue
from aiqueue.protocol import Wire
from aiqueue.results import JobResult
from aiqueue.views import Stats

_MODULE = re.compile(r"\b(?:aiqueue|typing|msgspec)(?:\.[a-z_]+)*\.(?=[A-Z_])")
_NOT_OURS = (
    "aiqueue.cli",
    "aiqueue.testing",
    "aiqueue.__main__",
    "aiqueue.llama",
)  # they say nothing to other processes


def messages() -> list[type[msgspec.Struct]]:
    """Return all that is sent or kept as arrays, and what is sent as maps."""
    for found in pkgutil.walk_packages(aiqueue.__path__, "aiqueue."):
        if not found.name.startswith(_NOT_OURS):
            importlib.import_module(found.name)
    return sorted({*_below(Wire), *_within(Stats), *_within(JobResult)}, key=lambda cls: cls.__name__)


def _below(root: type[Wire]) -> Iterator[type[Wire]]:
    for child in root.__subclasses__():
        if child.__module__.startswith("aiqueue."):
            yield child
            yield from _below(child)


def _within(cls: type[msgspec.Struct]) -> Iterator[type[msgspec.Struct]]:
    yield cls
    for field in msgspec.structs.fields(cls):
        for kind in (field.type, *get_args(field.type)):
            if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
                yield from _within(kind)


def fields_of(cls: type[msgspec.Struct]) -> list[str]:
    """Return the fields of a message in their order: ``name: type``, with ``= …`` for those that may be absent."""
    return [
        f"{field.name}: {_text(field.type)}" + ("" if field.required else " = …")
        for field in msgspec.structs.fields(cls)
    ]


def calls_of(cls: type) -> dict[str, list[str]]:
    """Return what may be called in a class that is called by name, with the parameters in their order."""
    found = {name: value for name, value in inspect.getmembers(cls, inspect.isfunction) if not name.startswith("_")}
    return {f"{cls.__name__}.{name}": _parameters(value) for name, value in found.items()} | {
        cls.__name__: _parameters(cls.__init__)
    }


def _parameters(function: Any) -> list[str]:
    given = list(inspect.signature(function).parameters.values())[1:]
    return [f"{each.name}: {each.annotation}" + ("" if each.default is each.empty else " = …") for each in given]


def _text(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not hasattr(kind, "__origin__") else _MODULE.sub("", str(kind))


def shapes() -> dict[str, list[str]]:
    """Return all of it, by name."""
    from actors.llama_worker_actor import LlamaWorkerActor
    from actors.pool_manager import PoolManager
    from actors.queue_actor import QueueActor
    from actors.worker_actor import WorkerActor

    found = {cls.__name__: fields_of(cls) for cls in messages()}
    for actor in (QueueActor, PoolManager, WorkerActor, LlamaWorkerActor):
        found |= calls_of(actor)
    return found


if __name__ == "__main__":
    for name, parts in sorted(shapes().items()):
        print(name, *parts, sep="\n    ")
