"""Which schema a state store has, and its way to the newest.

alembic is imported where there is something to migrate: it is a fifth of what it takes to start `fleetctl status`,
and every command but a store's first finds the newest schema.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sqlalchemy.engine import Connection

MIGRATIONS = Path(__file__).parent / "migrations"
# The names of the steps' files begin with v and their revision.
KNOWN = frozenset(step.name[1:5] for step in (MIGRATIONS / "versions").glob("v[0-9][0-9][0-9][0-9]_*.py"))
NEWEST = max(KNOWN)


class Newer(Exception):
    """The store has a schema that this fleetctl does not know; the message names it."""


def revision(connection: Connection) -> str | None:
    """The store's own, None for a fresh one."""
    named = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'alembic_version'"
    if connection.exec_driver_sql(named).first() is None:
        return None
    found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return None if found is None else str(found)


def bring_up_to_date(connection: Connection, back_up: Callable[[], None]) -> None:
    """The newest schema, whatever it was before; `back_up` is called first where there is an older. Raises Newer."""
    before = revision(connection)
    if before == NEWEST:
        return
    if before is not None and before not in KNOWN:
        raise Newer(f"its schema is revision {before}")
    import alembic.command
    import alembic.config

    if before is not None:
        back_up()
    config = alembic.config.Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    alembic.command.upgrade(config, "head")
