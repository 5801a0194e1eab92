"""CURVE keys on disk: a daemon's and a client's pair, and the list of clients that a daemon answers.

A folder holds `NAME.key` (public) and `NAME.key_secret` (both halves, for its owner's eyes alone); a daemon's own pair
is called `focusd`, and `allowed/` has the public key of each client.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from focusd.errors import FocusdError

DAEMON = "focusd"
ALLOWED = "allowed"


class KeyFileError(FocusdError):
    """A key is missing, unreadable, or readable by others."""


@dataclass(frozen=True)
class Pair:
    """A public and a secret key, Z85."""

    public: bytes
    secret: bytes


@dataclass(frozen=True)
class ClientKeys:
    """What a client needs to reach a daemon that wants to know it: its own pair and the daemon's public key."""

    own: Pair
    daemon: bytes

    @classmethod
    def load(cls, own: Path, daemon: Path) -> ClientKeys:
        """Read the client's `.key_secret` and the daemon's `.key`.

        Raises:
            KeyFileError: one cannot be used.
        """
        return cls(load_pair(own), load_public(daemon))


def new_pair(folder: Path, name: str) -> Path:
    """Make `NAME.key` and `NAME.key_secret`, which only their owner can read; returns the latter's path.

    Raises:
        KeyFileError: there is one of this name already, or the folder cannot be written.
    """
    secret = folder / f"{_checked(name)}.key_secret"
    if secret.exists():
        raise KeyFileError(
            f"{secret} exists; take another name, or move it away: those who know it will not know you"
        )
    from zmq.auth import create_certificates

    before = os.umask(0o077)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        create_certificates(folder, name)
    except OSError as error:
        raise KeyFileError(f"{folder}: cannot be written: {error.strerror}") from error
    finally:
        os.umask(before)
    return secret


def allow(folder: Path, public: Path) -> Path:
    """Put a client's public key on the list of a daemon; it holds from the client's next connection on.

    Raises:
        KeyFileError: no public key, or the folder cannot be written.
    """
    name, key = _checked(public.stem), load_public(public)
    if public.suffix != ".key":
        raise KeyFileError(
            f"{public}: give the client's public key, NAME.key; its secret stays with the client"
        )
    listed = folder / ALLOWED / f"{name}.key"
    if listed.exists() and load_public(listed) != key:
        raise KeyFileError(f"{listed} is another client's key; rename one of the two files")
    try:
        listed.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        listed.write_bytes(public.read_bytes())
    except OSError as error:
        raise KeyFileError(f"{listed}: cannot be written: {error.strerror}") from error
    return listed


def allowed(folder: Path) -> dict[str, bytes]:
    """The clients' public keys by name; a file that holds none is left out."""
    keys = {}
    for path in sorted((folder / ALLOWED).glob("*.key")):
        try:
            keys[path.stem] = load_public(path)
        except KeyFileError:
            continue
    return keys


def load_public(path: Path) -> bytes:
    """The public key in a file.

    Raises:
        KeyFileError: there is none.
    """
    return _read(path)[0]


def load_pair(path: Path) -> Pair:
    """The pair in a `.key_secret`.

    Raises:
        KeyFileError: there is none, or others may read it.
    """
    public, secret = _read(path)
    if secret is None:
        raise KeyFileError(f"{path}: holds no secret key; give the file NAME.key_secret")
    if os.name == "posix" and (mode := stat.S_IMODE(path.stat().st_mode)) & 0o077:
        raise KeyFileError(
            f"{path}: others may read this secret key (mode {mode:04o}); run `chmod 600 {path}`"
        )
    return Pair(public, secret)


def _read(path: Path) -> tuple[bytes, bytes | None]:
    if path.exists() and not path.is_file():
        raise KeyFileError(f"{path}: is no ordinary file, and holds no key; remove it")  # a pipe would block
    from zmq.auth import load_certificate  # here, because most clients use no keys

    try:
        return load_certificate(path)
    except OSError as error:
        raise KeyFileError(
            f"{path}: cannot be read: {error.strerror or error}; see `focusctl keys`"
        ) from error
    except ValueError as error:
        raise KeyFileError(f"{path}: holds no key; make one with `focusctl keys new NAME`") from error


def _checked(name: str) -> str:
    if not name or not all(c.isalnum() or c in "-_" for c in name):
        raise KeyFileError(f"{name!r} names no key: letters, digits, '-' and '_' only")
    return name
