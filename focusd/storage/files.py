"""Files that outlive a power cut: written whole or not at all, sealed with a checksum, set aside when they are bad."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
import time
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from focusd.storage.claims import claim, hold_file

log = structlog.get_logger(__name__)

SEAL = "sha256"
LARGEST_BYTES = 16 << 20
"""Of a file that focusd reads at once; the largest that it writes, a calibration, takes less than a tenth of it."""
WINDOWS_PAUSES_S = (0.01, 0.05, 0.2)
"""Windows replaces no file that somebody reads at that moment, a virus scanner for one."""


def sealed(values: dict[str, Any]) -> str:
    """The values as readable JSON with a checksum over them."""
    return json.dumps(values | {SEAL: _digest(values)}, indent=1)


def unsealed(text: str) -> dict[str, Any]:
    """The values that `sealed` was given.

    Raises:
        ValueError: not JSON, no object, or not what was sealed.
    """
    values = parsed(text)
    if not isinstance(values, dict) or SEAL not in values:
        raise ValueError("it holds no checksum")
    if values.pop(SEAL) != _digest(values):
        raise ValueError("its checksum does not fit: it was changed or damaged")
    return values


def parsed(text: str) -> Any:
    """The values of a JSON text.

    Raises:
        ValueError: it is not JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_small_text(path: Path, largest_bytes: int = LARGEST_BYTES) -> str:
    """Read a file of ours, whatever lies in its place: a pipe or a device never blocks, a huge file is not loaded.

    Raises:
        OSError: it cannot be read; FileNotFoundError: it is not there.
        ValueError: it is no ordinary file, too large, or no text.
    """
    # A pipe that nobody writes into would block the opening itself; Windows would change the ends of lines.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is no ordinary file")
        content = file.read(largest_bytes + 1)
    if len(content) > largest_bytes:
        raise ValueError(f"it is larger than {largest_bytes} bytes")
    return content.decode()


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a crash leaves either the old one or the new one, never half of it.

    Raises:
        OSError: the disk refuses; the old file is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".new")
    try:
        temporary.unlink(missing_ok=True)  # left by a kill, or a pipe or link that somebody put there
        _write_through(temporary, text)
        _replace(temporary, path)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)  # on a full disk it would only take up room
        raise
    _sync_folder(path.parent)


def _replace(new: Path, old: Path) -> None:
    """Give a file another name, whether or not one of that name exists."""
    for pause_s in WINDOWS_PAUSES_S if sys.platform == "win32" else ():
        try:
            os.replace(new, old)
        except PermissionError:
            time.sleep(pause_s)
        else:
            return
    os.replace(new, old)


def _sync_folder(path: Path) -> None:
    """Write a folder's entries to disk. Windows cannot open one; NTFS keeps a journal of them."""
    if sys.platform == "win32":
        return
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _write_through(path: Path, text: str) -> None:
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def set_aside(path: Path, reason: object) -> Path:
    """Rename a bad file, so that it can be looked at and does no more harm; returns its new path."""
    aside = path.with_name(f"{path.name}.bad-{datetime.now(UTC):%Y%m%dT%H%M%S%f}")
    _replace(path, aside)
    log.error("a bad file was set aside", file=str(path), aside=str(aside), reason=str(reason))
    return aside


def make_way(path: Path) -> None:
    """Set aside what lies in the place of a file of ours and is none: a pipe, a device, a folder, a broken link.

    Raises:
        OSError: it cannot be set aside.
    """
    if os.path.lexists(path) and not os.path.isfile(path):
        set_aside(path, "it is no ordinary file")


def lock(path: Path, resources: ExitStack) -> None:
    """Hold `path` locked against other processes until `resources` close, or this process ends however it does.

    On Linux it stays locked for other processes of this machine when the file is deleted.

    Raises:
        BlockingIOError: another process holds it.
        OSError: it cannot be made.
    """
    path.parent.stat()  # a folder that is not there is an error, and not to be made
    if sys.platform == "linux":
        claim(f"path {os.path.realpath(path.parent)}/{path.name}", resources)
    hold_file(path, resources)
