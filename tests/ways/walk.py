"""The ways that README and configs/ tell people to go: the commands that they type, against a daemon of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from focusd.demo.rigs import free_ports
from tests.system.daemon import ALONE, Daemon

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
PATIENCE_S = 60.0
"""Nothing that a person asks for takes as long, on a busy machine too: a hang is meant."""

PROGRAMS = {"focusd": "focusd", "focusctl": "focusd.ctl"}
Done = subprocess.CompletedProcess[str]


@dataclass
class Walker:
    """Somebody in a folder of their own, who types commands.

    Attributes:
        folder: where they are; `configs/` lies in it, and whatever the commands leave behind.
        control, events, http: the addresses that their copies of the configurations name.
    """

    folder: Path
    control: str
    events: str
    http: str

    @classmethod
    def in_folder(cls, folder: Path) -> Walker:
        """Copy configs/ into a folder, as it is but for addresses that are free on this machine."""
        *sockets, http = free_ports(3)
        control, events = (f"tcp://127.0.0.1:{port}" for port in sockets)
        server = f'\n[server]\ncontrol = "{control}"\nevents = "{events}"\n'
        (folder / "configs").mkdir(parents=True)
        for path in CONFIGS.glob("*.toml"):
            shipped = path.read_text(encoding="utf-8").replace("port = 5572", f"port = {http}")
            (folder / "configs" / path.name).write_text(shipped + server, encoding="utf-8")
        return cls(folder, control, events, f"http://127.0.0.1:{http}/rpc")

    @property
    def environment(self) -> dict[str, str]:
        """Of all that they start: their own state, their own addresses."""
        own = {"STATE_DIRECTORY": str(self.folder / "state")}
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        return {
            **ALONE,
            **own,
            "FOCUSD_ENDPOINT": self.control,
            "FOCUSD_EVENTS": self.events,
            "PYTHONPATH": path,
        }

    def start(self, program: str, *arguments: str, **given: Any) -> subprocess.Popen[str]:
        """A command that runs while others are typed."""
        command = [sys.executable, "-m", PROGRAMS[program], *arguments]
        return subprocess.Popen(command, text=True, cwd=self.folder, env=self.environment, **given)

    def type(self, program: str, *arguments: str) -> Done:
        """A command, run to its end; raises TimeoutExpired if it hangs."""
        command = [sys.executable, "-m", PROGRAMS[program], *arguments]
        return self.run(command)

    def run(self, command: list[str]) -> Done:
        """Any command, in the folder."""
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            cwd=self.folder,
            env=self.environment,
        )

    def ctl(self, *arguments: str) -> str:
        """What `focusctl` prints when it succeeds."""
        done = self.type("focusctl", *arguments)
        assert done.returncode == 0, f"focusctl {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout

    def state(self) -> dict[str, Any]:
        """What `focusctl status` knows."""
        state: dict[str, Any] = json.loads(self.ctl("status", "--json"))
        return state

    def state_when(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The state as soon as it is as wanted."""
        deadline_s = time.perf_counter() + PATIENCE_S
        while not wanted(state := self.state()):
            assert time.perf_counter() < deadline_s, f"the state never came: {state}"
            time.sleep(0.2)
        return state

    @contextmanager
    def daemon(self, *arguments: str) -> Iterator[Daemon]:
        """`focusd` with these arguments, ready."""
        log = self.folder / "daemon.log"
        with log.open("wb") as file:
            process = self.start("focusd", *arguments, stdout=file, stderr=file)
        daemon = Daemon(process, Path(arguments[-1]), log, self.control, self.events)
        try:
            daemon.wait_until_ready()
            yield daemon
        finally:
            daemon.close()

    @contextmanager
    def half_done(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """A `focusctl` command that has shown its first exposures, and would show hundreds more."""
        with self.start("focusctl", *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as command:
            assert command.stderr
            for line in command.stderr:
                if "exposure=3" in line:
                    break
            try:
                yield command
            finally:
                command.kill()


def end(command: subprocess.Popen[str], number: signal.Signals | None = None) -> tuple[int, str]:
    """Exit code and what it still printed, after a signal if one is given."""
    if number:
        command.send_signal(number)
    _, told = command.communicate(timeout=PATIENCE_S)
    return command.returncode, told
