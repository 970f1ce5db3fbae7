"""When an agent replaces a worker process by a new one, for models that leak memory."""

from __future__ import annotations

from pydantic import Field

from fleet_controller.spec.part import Part
from fleet_controller.spec.size import Size


class RecycleSpec(Part):
    """When a worker is replaced between two batches; nothing is, unless one of these is set."""

    after_requests: int | None = Field(
        default=None, ge=1, description="Once it has answered so many requests; none: never for that."
    )
    memory_growth_bytes: Size | None = Field(
        default=None,
        alias="memory_growth",
        description="Once it holds that much more than after its models were loaded, as 2GiB: on a GPU what torch "
        "has reserved there, else memory of the process; none: never for that.",
    )
