"""Many jobs as one, and jobs that come again. All of it is the queue's and survives its callers."""

from aiqueue.orchestrator.handles import JobChain, JobGraph
from aiqueue.orchestrator.orchestrator import AsyncAIJobOrchestrator
from aiqueue.orchestrator.sync_orchestrator import AIJobOrchestrator

__all__ = ["AIJobOrchestrator", "AsyncAIJobOrchestrator", "JobChain", "JobGraph"]
