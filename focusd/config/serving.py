"""Who is served where, and what is logged."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from focusd.addresses import CONTROL, EVENTS
from focusd.config.section import Section

_TCP = re.compile(r"tcp://(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._*-]+)):(?P<port>\*|[0-9]{1,5})")
_IPC = re.compile(r"ipc://[^;]+")


def is_local(endpoint: str) -> bool:
    """Whether nobody but this machine can reach an endpoint to listen on.

    Raises:
        ValueError: it is no plain endpoint. ZeroMQ would take more, two addresses in one for instance.
    """
    if _IPC.fullmatch(endpoint) and endpoint.isprintable():
        return True
    parts = _TCP.fullmatch(endpoint)
    if parts is None or (parts["port"] != "*" and int(parts["port"]) > 65535):
        raise ValueError(
            f"{endpoint!r} is no address to listen on: it looks like tcp://127.0.0.1:5570 or ipc:///path"
        )
    try:
        address = ipaddress.ip_address(parts["v6"] or parts["host"])
    except ValueError:
        return parts["host"] == "localhost"
    return address.is_loopback and (address.version == 4 or address == ipaddress.IPv6Address("::1"))


class ServerConfig(Section):
    """Where clients and monitors connect, and whether they have to say who they are."""

    control: str = CONTROL
    """Where requests are answered."""
    events: str = EVENTS
    """Where events are published."""
    keys: Path | None = None
    """Folder of CURVE keys (`focusctl keys`): only clients on its list are answered. None: this machine alone."""
    max_requests_per_s: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 200.0
    """Of one client; more are answered with `busy`."""

    @model_validator(mode="after")
    def _strangers_need_keys(self) -> Self:
        for endpoint in (self.control, self.events):
            if not is_local(endpoint) and self.keys is None:
                raise ValueError(
                    f"{endpoint!r} can be reached from other machines, which needs keys: run `focusctl keys new "
                    "focusd` here and `focusctl keys allow CLIENT.key` for each client, then set server.keys to the "
                    "folder; or listen on 127.0.0.1"
                )
        return self


class HttpConfig(Section):
    """JSON-RPC over HTTP, for programs without ZeroMQ."""

    port: Annotated[int, Field(ge=0, le=65535)] | None = None
    """On loopback; 0: any free one; None: HTTP is not served."""


class MetricsConfig(Section):
    """Figures for Prometheus, for this machine alone."""

    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """None: no figures are served."""


class LogConfig(Section):
    """What is logged and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important messages that are still logged."""
    format: Literal["auto", "console", "json"] = "auto"
    """auto: a console for people at a terminal, JSON lines otherwise."""
