"""The shipped unit as a test reads it, and what of its restrictions a machine without systemd as PID 1 can apply."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

SYSTEMD = Path(__file__).parents[2] / "systemd"
UNIT = SYSTEMD / "focusd.service"
NEEDED = ("systemd-analyze", "unshare", "setpriv", "mount")


def directives(unit: Path = UNIT) -> dict[str, list[str]]:
    """All values of each directive, in order."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", unit.read_text(encoding="utf-8"), re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


@cache
def system_calls() -> frozenset[str]:
    """The names that SystemCallFilter= leaves allowed."""
    allowed: set[str] = set()
    for value in directives()["SystemCallFilter"]:
        names = set().union(*map(_members, value.removeprefix("~").split()))
        allowed = allowed - names if value.startswith("~") else allowed | names
    return frozenset(allowed | _members("@default"))


def _members(name: str) -> set[str]:
    """A system call, or all in a set of them."""
    if not name.startswith("@"):
        return {name}
    listing = subprocess.run(
        ["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True
    )
    lines = (line.strip() for line in listing.stdout.splitlines()[1:])
    return set().union(*(_members(line) for line in lines if line and not line.startswith("#")))


def why_not_confined() -> str:
    """Why this machine cannot apply the restrictions; empty: it can."""
    if missing := [tool for tool in NEEDED if shutil.which(tool) is None]:
        return f"no {', '.join(missing)} here"
    tried = subprocess.run(confined(Path("/tmp"), ["true"]), capture_output=True, text=True)
    return tried.stderr.strip()


def confined(writable: Path, command: list[str]) -> list[str]:
    """The command under the unit's restrictions: read-only root, no capabilities, no new privileges, system calls and
    address families filtered, its umask and limits. Left out, for want of a PID 1: cgroups, devices, user namespace.
    """
    mounts = 'mount --bind "$1" "$1" && mount -o remount,bind,ro / && shift && exec "$@"'
    namespace = ["unshare", "--mount", "--propagation", "private", "sh", "-c", mounts, "sh", str(writable)]
    privileges = ["setpriv", "--no-new-privs", "--bounding-set", "-all", "--inh-caps", "-all"]
    return [*namespace, *privileges, sys.executable, "-m", "tests.systemd.confine", *command]
