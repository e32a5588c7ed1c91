"""aiqueue: a durable queue for AI inference on Ray.

>>> from aiqueue import AIJobPriority
>>> AIJobPriority.URGENT.value
'urgent'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from aiqueue.config import Settings
from aiqueue.levels import AIJobPriority
from aiqueue.models import AIJobType, JobOptions

if TYPE_CHECKING:
    from aiqueue.client.adapter import AsyncAIQueueAdapter
    from aiqueue.client.sync_adapter import AIQueueAdapter
    from aiqueue.launch import System, connect, connect_async, start
    from aiqueue.orchestrator import AIJobOrchestrator, AsyncAIJobOrchestrator
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

#: Loaded when first used: what needs Ray takes seconds to import, and most modules of this package do not need it.
_LAZY = {
    "AIJobOrchestrator": "aiqueue.orchestrator",
    "AsyncAIJobOrchestrator": "aiqueue.orchestrator",
    "AIQueueAdapter": "aiqueue.client.sync_adapter",
    "AsyncAIQueueAdapter": "aiqueue.client.adapter",
    "JobResult": "aiqueue.results",
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
