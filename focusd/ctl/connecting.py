"""How each command of focusctl reaches the daemon, and how its errors are told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType

import click

from focusd.addresses import CONTROL, EVENTS
from focusd.client import Client, EventStream
from focusd.ctl.showing import say
from focusd.errors import BusyError, FocusdError, UnreachableError
from focusd.protocol.events import Event
from focusd.protocol.keys import ClientKeys
from focusd.terminal import printable

SILENCE_S = 5.0
"""The daemon's heart beats once a second."""
HINTS: dict[type[FocusdError], str] = {
    BusyError: "`focusctl monitor` follows the running job, `focusctl cancel` ends it",
    UnreachableError: "--endpoint and --events say where to look",
}
my_keys: ContextVar[ClientKeys | None] = ContextVar("my_keys", default=None)
"""Of this command, for a focusd that asks for them."""

endpoint_option = click.option(
    "--endpoint", default=CONTROL, show_default=True, help="The daemon's server.control address."
)
events_option = click.option(
    "--events", default=EVENTS, show_default=True, help="The daemon's server.events address."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for a program to read.")


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
            say(f"hint: {hint}", err=True)
        raise SystemExit(1) from None
    except OSError as error:
        _print_error(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def tell(error: FocusdError) -> None:
    """Print an error in one line."""
    _print_error(error.message)


def subscribed(client: Client) -> EventStream[Event]:
    """All events; silence for longer than the heart's beat is an error."""
    return client.events(silence_s=SILENCE_S)


def pictures() -> ModuleType:
    """The module that draws. It needs matplotlib, which an installation that only talks to a daemon may lack.

    Raises:
        FocusdError: matplotlib is not installed.
    """
    try:
        from focusd import pictures
    except ImportError as error:
        raise FocusdError(
            f"pictures are drawn with matplotlib, which cannot be imported ({error}); run `pip install "
            "'focusd-client[plots]'`"
        ) from None
    return pictures


def _print_error(message: str) -> None:
    click.echo(click.style("error: ", fg="red") + printable(message), err=True)
