"""How each command of focusctl reaches the daemon, and how its errors are told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Annotated

import typer
from rich.text import Text

from focusd.client.client import EVENTS, Client, EventStream
from focusd.errors import BusyError, CalibrationError, FocusdError, UnreachableError
from focusd.protocol.keys import ClientKeys
from focusd.terminal import PlainConsole, printable

SILENCE_S = 5.0
"""The daemon's heart beats once a second."""
HINTS: dict[type[FocusdError], str] = {
    BusyError: "`focusctl monitor` follows the running job, `focusctl cancel` ends it",
    CalibrationError: "focus by eye on any flat textured sample, then run `focusctl calibrate`",
    UnreachableError: "--endpoint and --events say where to look",
}
my_keys: ContextVar[ClientKeys | None] = ContextVar("my_keys", default=None)
"""Of this command, for a focusd that asks for them."""
err = PlainConsole(stderr=True, highlight=False, markup=False)

Endpoint = Annotated[str, typer.Option(help="The daemon's server.control address.")]
Events = Annotated[str, typer.Option(help="The daemon's server.events address.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]


@contextmanager
def connected(endpoint: str, events: str = EVENTS) -> Iterator[Client]:
    """A client; errors end the program with one line and a hint."""
    with told(), Client(endpoint, events, name="focusctl", keys=my_keys.get()) as client:
        yield client


@contextmanager
def told() -> Iterator[None]:
    """Errors inside end the program with one line and a hint."""
    try:
        yield
    except FocusdError as error:
        tell(error)
        if hint := HINTS.get(type(error)):
            err.print(f"hint: {hint}", soft_wrap=True)
        raise typer.Exit(1) from None
    except OSError as error:
        err.print(Text("error: ", style="red") + Text(str(error)), soft_wrap=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def tell(error: FocusdError) -> None:
    """Print an error in one line."""
    err.print(Text("error: ", style="red") + Text(printable(error.message)), soft_wrap=True)


def subscribed(client: Client) -> EventStream:
    """All events; silence for longer than the heart's beat is an error."""
    return client.events(silence_s=SILENCE_S)
