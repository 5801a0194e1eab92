"""`focusctl keys`: who may talk to a focusd that is reached from other machines."""

from __future__ import annotations

from pathlib import Path

import click

from focusd.protocol import keys

HERE = Path("~/.config/focusd/keys").expanduser()

folder_option = click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=HERE,
    show_default=True,
    help="Folder of the keys: the daemon's server.keys.",
)


@click.group("keys")
def app() -> None:
    """CURVE keys: make them, and say which clients a daemon answers."""


@app.command()
@click.argument("name")
@folder_option
def new(name: str, folder: Path) -> None:
    """Make a pair: NAME.key to give away, NAME.key_secret to keep.

    NAME is `focusd` for the daemon, any other for a client.
    """
    secret = keys.new_pair(folder, name)
    click.echo(f"secret, keep it:     {secret}\npublic, give it away: {secret.with_suffix('.key')}")


@app.command()
@click.argument("public", type=click.Path(dir_okay=False, path_type=Path))
@folder_option
def allow(public: Path, folder: Path) -> None:
    """Let the daemon answer a client, whose NAME.key is PUBLIC, from its next connection on.

    To take it back, delete the file.
    """
    click.echo(f"allowed: {keys.allow(folder, public)}")


@app.command("list")
@folder_option
def listed(folder: Path) -> None:
    """Show the clients that the daemon answers."""
    for name, key in keys.allowed(folder).items():
        click.echo(f"{name}  {key.decode('ascii')}")
