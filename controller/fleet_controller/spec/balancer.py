"""The `balancer:` block: where clients connect, who may, and what they may send."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from fleet_controller.spec.address import Endpoint, Listen, endpoint
from fleet_controller.spec.duration import Duration, PositiveDuration
from fleet_controller.spec.localpath import LocalPath, home
from fleet_controller.spec.part import Part, Text
from fleet_controller.spec.share import Share
from fleet_controller.spec.size import Size
from fleet_wire.balancer import BalancerLimits, Engine, Routing

STDOUT = Path("-")


def _log_path(value: Path) -> Path:
    return value if value == STDOUT else home(value)


class QueueSpec(Part):
    """Requests that wait while no host has room."""

    size: int = Field(default=1024, ge=0, description="Most requests that wait; more are refused with 503.")
    timeout: Duration = Field(default=30.0, description="How long a request may wait.")


class TlsSpec(Part):
    """TLS for clients. Both files are PEM and are read again when they change."""

    certificate: LocalPath = Field(
        description="The certificate with those that it needs, from this file's folder."
    )
    key: LocalPath = Field(description="Its private key, not encrypted, from this file's folder.")


class AccessLogSpec(Part):
    """One JSON line for each request. A file that is moved away is made anew."""

    path: Annotated[Path, AfterValidator(_log_path), WithJsonSchema({"type": "string"})] = Field(
        description='Where the lines go, from this file\'s folder; "-": into the log of the balancer.'
    )
    sample: Share = Field(
        default=1.0, description="Share (0..1) of requests written; errors and refusals always are."
    )


class LimitsSpec(Part):
    """What a client may send; more is refused."""

    head: Annotated[Size, Field(ge=1024, le=1024**2)] = Field(
        default=BalancerLimits().head_bytes, description="Longest request line and headers together (431)."
    )
    target: Annotated[Size, Field(ge=256, le=1024**2)] = Field(
        default=BalancerLimits().target_bytes, description="Longest request target (414)."
    )
    fields: int = Field(
        default=BalancerLimits().fields, ge=8, le=10_000, description="Most header lines (431)."
    )
    body: Size = Field(default=BalancerLimits().body_bytes, description="Longest request body (413).")


class TimeoutsSpec(Part):
    """How long a connection may keep the balancer waiting."""

    header: PositiveDuration = Field(
        default=BalancerLimits().header_timeout_s, description="For a request's headers, and a TLS handshake."
    )
    body: PositiveDuration = Field(
        default=BalancerLimits().body_timeout_s, description="Without a byte of a request's body."
    )
    idle: PositiveDuration = Field(
        default=BalancerLimits().idle_timeout_s, description="Between two requests of a connection."
    )
    connect: PositiveDuration = Field(
        default=BalancerLimits().connect_timeout_s, description="For connecting to a host."
    )


class BalancerSpec(Part):
    """The front door: one address that clients know."""

    listen: Listen = Field(default="127.0.0.1:8080", description="Where clients connect, HOST:PORT.")
    admin: Listen = Field(default="127.0.0.1:8081", description="Where the controller connects, HOST:PORT.")
    engine: Engine = Field(
        default="builtin",
        description='"builtin", or "haproxy": HAProxy does the work, told by the same file.',
    )
    workers: int = Field(
        default=1, ge=1, le=64, description="Processes that share the work, one a CPU core at most."
    )
    zone: Text | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="Rack or zone where it stands: hosts of the same zone are preferred.",
    )
    routing: Routing = Field(default="least_connections", description="How a host is picked.")
    queue: QueueSpec = Field(default=QueueSpec(), description="Requests that wait for a host.")
    request_timeout: PositiveDuration = Field(
        default=300.0, description="How long a request may take in all."
    )
    keys: Literal["off", "required"] = Field(
        default="off",
        description='"required": only clients with an API key (`fleetctl keys create`) come in.',
    )
    tls: TlsSpec | None = Field(
        default=None, description="Speak HTTPS with this certificate; none: plain HTTP."
    )
    access_log: AccessLogSpec | None = Field(
        default=None, description="Write down each request; none: nothing is written."
    )
    limits: LimitsSpec = Field(default=LimitsSpec(), description="What a client may send.")
    timeouts: TimeoutsSpec = Field(
        default=TimeoutsSpec(), description="How long clients and hosts may keep it waiting."
    )

    @property
    def listen_endpoint(self) -> Endpoint:
        return endpoint(self.listen)

    @property
    def admin_endpoint(self) -> Endpoint:
        return endpoint(self.admin)

    def under(self, folder: Path) -> BalancerSpec:
        """The same with paths that start at `folder` made whole."""
        changes: dict[str, object] = {}
        if self.tls is not None:
            files = {"certificate": folder / self.tls.certificate, "key": folder / self.tls.key}
            changes["tls"] = self.tls.model_copy(update=files)
        if self.access_log is not None and self.access_log.path != STDOUT:
            changes["access_log"] = self.access_log.model_copy(update={"path": folder / self.access_log.path})
        return self.model_copy(update=changes)
