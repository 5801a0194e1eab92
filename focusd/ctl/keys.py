"""`focusctl keys`: who may talk to a focusd that is reached from other machines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from focusd.protocol import keys

app = typer.Typer(help="CURVE keys: make them, and say which clients a daemon answers.", no_args_is_help=True)

Folder = Annotated[Path, typer.Option(help="Folder of the keys: the daemon's server.keys.", file_okay=False)]
HERE = Path("~/.config/focusd/keys").expanduser()


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="`focusd` for the daemon, any other for a client.")],
    folder: Folder = HERE,
) -> None:
    """Make a pair: NAME.key to give away, NAME.key_secret to keep."""
    secret = keys.new_pair(folder, name)
    typer.echo(f"secret, keep it:     {secret}\npublic, give it away: {secret.with_suffix('.key')}")


@app.command()
def allow(
    public: Annotated[Path, typer.Argument(help="The client's NAME.key.", dir_okay=False)],
    folder: Folder = HERE,
) -> None:
    """Let the daemon answer a client, from its next connection on. To take it back, delete the file."""
    typer.echo(f"allowed: {keys.allow(folder, public)}")


@app.command("list")
def listed(folder: Folder = HERE) -> None:
    """Show the clients that the daemon answers."""
    for name, key in keys.allowed(folder).items():
        typer.echo(f"{name}  {key.decode('ascii')}")
