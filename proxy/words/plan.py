"""What a worker must know, as plain data: workers read this from their standard input and never import the
configuration's machinery, which would double their memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class RoutePlan:
    """One route, its URL already taken apart. `base` is the upstream's path without a trailing slash."""

    name: str
    scheme: str
    host: str
    port: int
    base: str
    path_prefix: str
    match_host: str
    strip_prefix: bool
    ca_file: str

    @property
    def authority(self) -> str:
        """The Host header that the upstream gets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.scheme == "https" else 80
        return host if self.port == default else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """Bytes and seconds, named as in the configuration."""

    routes: tuple[RoutePlan, ...]
    x_forwarded: bool
    serve_half_closed: bool
    request_copy_bytes: int
    response_copy_bytes: int
    copies_bytes: int
    head_bytes: int
    valve_bytes: int
    connect_s: float
    silence_s: float
    upstream_keepalive_s: float
    client_keepalive_s: float
    drain_s: float

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        routes = tuple(RoutePlan(**route) for route in values["routes"])
        return cls(**{**values, "routes": routes})
