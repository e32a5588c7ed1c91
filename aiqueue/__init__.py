"""aiqueue: a durable queue for AI inference on Ray.

>>> from aiqueue import AIJobPriority
>>> AIJobPriority.URGENT.value
'urgent'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from aiqueue.levels import AIJobPriority

if TYPE_CHECKING:
    from aiqueue.client.adapter import AsyncAIQueueAdapter
    from aiqueue.client.sync_adapter import AIQueueAdapter
    from aiqueue.config import Settings
    from aiqueue.launch import System, connect, connect_async, start
    from aiqueue.models import AIJobType, JobOptions
    from aiqueue.orchestrator.orchestrator import AsyncAIJobOrchestrator
    from aiqueue.orchestrator.sync_orchestrator import AIJobOrchestrator
    from aiqueue.results import JobResult
    from aiqueue.validation import validate_job_payload

__version__ = "0.1.0"

__all__ = [
    "AIJobOrchestrator",
    "AIJobPriority",
    "AIJobType",
    "AIQueueAdapter",
    "AsyncAIJobOrchestrator",
    "AsyncAIQueueAdapter",
    "JobOptions",
    "JobResult",
    "Settings",
    "System",
    "connect",
    "connect_async",
    "start",
    "validate_job_payload",
]

#: Loaded when first used. What needs Ray takes seconds to import; and a process that Ray starts for a task, as for a
#: fan-in, imports what it needs while somebody waits.
_LAZY = {
    "AIJobOrchestrator": "aiqueue.orchestrator.sync_orchestrator",
    "AIJobType": "aiqueue.models",
    "AsyncAIJobOrchestrator": "aiqueue.orchestrator.orchestrator",
    "AIQueueAdapter": "aiqueue.client.sync_adapter",
    "AsyncAIQueueAdapter": "aiqueue.client.adapter",
    "JobOptions": "aiqueue.models",
    "JobResult": "aiqueue.results",
    "Settings": "aiqueue.config",
    "System": "aiqueue.launch",
    "connect": "aiqueue.launch",
    "connect_async": "aiqueue.launch",
    "start": "aiqueue.launch",
    "validate_job_payload": "aiqueue.validation",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
