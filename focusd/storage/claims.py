"""Names that one process of a machine holds at a time, whichever user runs it."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import struct
import sys
from contextlib import ExitStack
from pathlib import Path

from filelock import FileLock, Timeout


def claim(name: str, resources: ExitStack) -> None:
    """Hold a name against all other processes until `resources` close, or this process ends however it does.

    On Linux the name is that of a socket in no folder, which nobody can delete. It holds within one network namespace:
    a container with a network of its own counts as another machine. Elsewhere a file is locked in a folder that all
    users share.

    Raises:
        BlockingIOError: another process holds it.
        OSError: it cannot be held.
    """
    digest = hashlib.sha256(name.encode()).hexdigest()
    if sys.platform == "linux":
        _hold_socket(f"\0focusd-{digest}", resources)
    else:
        folder = Path(os.environ.get("PROGRAMDATA", "/tmp"))
        hold_file(folder / f"focusd-{digest}.lock", resources, mode=0o666)


def hold_file(path: Path, resources: ExitStack, mode: int = 0o644) -> None:
    """Hold a file locked until `resources` close, or this process ends however it does.

    Raises:
        BlockingIOError: another process holds it.
        OSError: it cannot be made.
    """
    held = FileLock(path, mode=mode, thread_local=False)
    try:
        held.acquire(blocking=False)
    except Timeout:
        raise BlockingIOError(errno.EWOULDBLOCK, "another process holds it", str(path)) from None
    resources.callback(held.release)


if sys.platform == "linux":

    def _hold_socket(address: str, resources: ExitStack) -> None:
        held = resources.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        try:
            held.bind(address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise BlockingIOError(errno.EWOULDBLOCK, f"{_holder(address)} holds it") from None
        held.listen()  # who connects learns which process holds it

    def _holder(address: str) -> str:
        """Who holds an address, in words."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
                asking.setblocking(False)
                asking.connect(address)
                pid, _, _ = struct.unpack(
                    "3i", asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
                )
        except OSError:  # it has ended meanwhile, or too many have asked
            return "another process"
        return f"process {pid}" if pid else "another process"
