"""How many workers a pool needs, which of them go, and which are ill. Pure: time and facts come in as values."""

from aiqueue.scaling.health import Health, HealthLimits, Verdict
from aiqueue.scaling.load import PoolLoad, WorkerReport
from aiqueue.scaling.policy import Scaler, ScalingRule, scaler_for
from aiqueue.scaling.roster import Action, Announce, Drain, GiveBack, Kill, Roster, Start

__all__ = [
    "Action",
    "Announce",
    "Drain",
    "GiveBack",
    "Health",
    "HealthLimits",
    "Kill",
    "PoolLoad",
    "Roster",
    "Scaler",
    "ScalingRule",
    "Start",
    "Verdict",
    "WorkerReport",
    "scaler_for",
]
