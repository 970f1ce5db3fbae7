"""The state store: what each host is meant to be and was last seen as, open actions, operator requests, events."""

from fleet_controller.journal.journal import Busy, Journal, KeyExists
from fleet_controller.journal.store import JournalError, JournalGone
from fleet_controller.records import (
    Action,
    Answer,
    DecisionRecord,
    Event,
    HostRecord,
    KeyRecord,
    Mark,
    Minute,
    PoolRecord,
    Request,
)

__all__ = [
    "Action",
    "Answer",
    "Busy",
    "DecisionRecord",
    "Event",
    "HostRecord",
    "Journal",
    "JournalError",
    "JournalGone",
    "KeyExists",
    "KeyRecord",
    "Mark",
    "Minute",
    "PoolRecord",
    "Request",
]
