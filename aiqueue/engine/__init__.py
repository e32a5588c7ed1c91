"""The pure core: every decision of the queue, without Ray, asyncio, clock, random draw or I/O."""

from aiqueue.engine.commands import (
    AddSchedule,
    Announce,
    Cancel,
    ChangeSchedule,
    Claim,
    Exchange,
    LoseWorker,
    Report,
    RunSchedule,
    Submit,
    Tick,
)
from aiqueue.engine.effects import Effects, Rows
from aiqueue.engine.engine import QueueEngine
from aiqueue.engine.policy import EnginePolicy, GatePolicy, RetryPolicy, Route
from aiqueue.engine.states import MOVES, TERMINAL, JobState

__all__ = [
    "MOVES",
    "TERMINAL",
    "AddSchedule",
    "Announce",
    "Cancel",
    "ChangeSchedule",
    "Claim",
    "Effects",
    "EnginePolicy",
    "Exchange",
    "GatePolicy",
    "JobState",
    "LoseWorker",
    "QueueEngine",
    "Report",
    "RetryPolicy",
    "Route",
    "Rows",
    "RunSchedule",
    "Submit",
    "Tick",
]
