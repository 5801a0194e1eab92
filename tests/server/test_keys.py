"""Keys on real sockets: who is on the list is answered, everybody else hears nothing, careless files are refused."""

from __future__ import annotations

import asyncio
import selectors
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

import anyio
import anyio.to_thread
import pytest
import zmq

from focusd.client import Client, calls, streams
from focusd.client import exchange as exchange_module
from focusd.config import ServerConfig
from focusd.errors import UnreachableError
from focusd.protocol.keys import ClientKeys, KeyFileError, allow, allowed, load_pair, new_pair
from focusd.protocol.states import Session
from tests.server.daemon import Daemon, running_daemon

pytestmark = pytest.mark.anyio


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A daemon's keys, with `ada` on its list; `eve`'s are there too, and not on it."""
    new_pair(tmp_path / "daemon", "focusd")
    for name in ("ada", "eve"):
        new_pair(tmp_path / "clients", name)
    allow(tmp_path / "daemon", tmp_path / "clients" / "ada.key")
    return tmp_path


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange_module, "PATIENCE_S", 0.5)
    monkeypatch.setattr(calls, "SHORT_S", 0.5)
    monkeypatch.setattr(streams, "SUBSCRIBED_S", 0.5)


def config_of(folder: Path) -> ServerConfig:
    return ServerConfig(control="tcp://127.0.0.1:*", events="tcp://127.0.0.1:*", keys=folder / "daemon")


def keys_of(folder: Path, name: str) -> ClientKeys:
    return ClientKeys.load(folder / "clients" / f"{name}.key_secret", folder / "daemon" / "focusd.key")


async def asked(daemon: Daemon, keys: ClientKeys | None, ask: Callable[[Client], object]) -> object:
    """What a blocking client gets."""

    def talk() -> object:
        with Client(daemon.endpoints.control, daemon.endpoints.events, "test", keys) as client:
            return ask(client)

    return await anyio.to_thread.run_sync(talk)


def first_event(client: Client) -> object:
    with client.events() as events:
        return next(events).session


async def test_a_client_on_the_list_asks_and_listens(folder: Path) -> None:
    async with running_daemon(config_of(folder)) as daemon:
        assert await asked(daemon, keys_of(folder, "ada"), Client.ping) == Session(session=daemon.bus.session)
        assert await asked(daemon, keys_of(folder, "ada"), first_event) == daemon.bus.session


def test_an_event_loop_like_windows_ends_in_peace(folder: Path) -> None:
    async def main() -> None:
        async with running_daemon(config_of(folder)) as daemon:
            assert await asked(daemon, keys_of(folder, "ada"), Client.ping)
        await anyio.sleep(0.01)  # once more round the loop, whose select refuses sockets that are closed

    def plain_select() -> asyncio.SelectorEventLoop:
        return asyncio.SelectorEventLoop(selectors.SelectSelector())

    anyio.run(main, backend_options={"loop_factory": plain_select})


@pytest.mark.parametrize("name", ["eve", None])
@pytest.mark.parametrize("ask", [Client.ping, first_event])
async def test_everybody_else_hears_nothing_and_is_told_why(
    folder: Path, name: str | None, ask: Callable[[Client], object]
) -> None:
    keys = keys_of(folder, name) if name else None
    async with running_daemon(config_of(folder)) as daemon:
        with pytest.raises(UnreachableError, match="silent to a client whose key is not on its list"):
            await asked(daemon, keys, ask)
        assert await asked(daemon, keys_of(folder, "ada"), Client.ping)
    assert daemon.operations.runs == 0


async def test_a_client_that_takes_another_daemon_for_this_one_is_not_served(folder: Path) -> None:
    new_pair(folder / "other", "focusd")
    wrong = ClientKeys.load(folder / "clients" / "ada.key_secret", folder / "other" / "focusd.key")
    async with running_daemon(config_of(folder)) as daemon:
        with pytest.raises(UnreachableError):
            await asked(daemon, wrong, Client.ping)


async def test_what_is_no_handshake_harms_nobody(folder: Path) -> None:
    random = Random(1)
    async with running_daemon(config_of(folder)) as daemon:
        host, port = daemon.endpoints.control.removeprefix("tcp://").split(":")
        for length in (1, 10, 64, 1000, 100_000):
            async with await anyio.connect_tcp(host, int(port)) as stranger:
                with suppress(anyio.BrokenResourceError):
                    await stranger.send(b"\xff" + random.randbytes(length))
                    await stranger.send(
                        b"\xff\0\0\0\0\0\0\0\1\x7f\3\0CURVE" + bytes(random.randbytes(length))
                    )
        assert await asked(daemon, keys_of(folder, "ada"), Client.ping) == Session(session=daemon.bus.session)


async def test_the_list_holds_for_new_connections_without_a_restart(folder: Path) -> None:
    async with running_daemon(config_of(folder)) as daemon:
        allow(folder / "daemon", folder / "clients" / "eve.key")
        assert await asked(daemon, keys_of(folder, "eve"), Client.ping)
        (folder / "daemon" / "allowed" / "eve.key").unlink()
        with pytest.raises(UnreachableError):
            await asked(daemon, keys_of(folder, "eve"), Client.ping)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda keys: (keys / "focusd.key_secret").chmod(0o640), r"mode 0640.*chmod 600"),
        (lambda keys: (keys / "focusd.key_secret").unlink(), "focusctl keys"),
        (lambda keys: (keys / "focusd.key_secret").write_text("no key"), "keys new"),
        (lambda keys: (keys / "allowed" / "ada.key").unlink(), "lists no client.*keys allow"),
    ],
)
async def test_a_daemon_with_careless_keys_does_not_start(
    folder: Path, harm: Callable[[Path], object], says: str
) -> None:
    harm(folder / "daemon")
    with pytest.raises(ExceptionGroup) as refused:
        async with running_daemon(config_of(folder)):
            pass
    assert refused.group_contains(KeyFileError, match=says)


async def test_a_daemon_with_keys_may_serve_other_machines(folder: Path) -> None:
    everywhere = ServerConfig(control="tcp://*:*", events="tcp://0.0.0.0:*", keys=folder / "daemon")
    async with running_daemon(everywhere) as daemon:
        endpoint = daemon.endpoints.control.replace("0.0.0.0", "127.0.0.1")
        with zmq.Context() as context, context.socket(zmq.REQ) as stranger:
            stranger.linger = 0
            stranger.connect(endpoint)
            stranger.send(b'{"jsonrpc": "2.0", "id": 1, "method": "system.ping"}')
            assert not await anyio.to_thread.run_sync(stranger.poll, 500)


@pytest.mark.parametrize(
    "endpoint", ["tcp://*:5570", "tcp://0.0.0.0:5570", "tcp://192.168.1.5:5570", "tcp://[::]:1"]
)
@pytest.mark.parametrize("which", ["control", "events"])
def test_without_keys_other_machines_are_refused_with_what_to_do(endpoint: str, which: str) -> None:
    with pytest.raises(ValueError, match=r"focusctl keys new.*server\.keys.*127\.0\.0\.1"):
        ServerConfig.model_validate({which: endpoint})


def test_secrets_are_for_their_owner_alone(folder: Path) -> None:
    for secret in folder.rglob("*.key_secret"):
        assert secret.stat().st_mode & 0o777 == 0o600
        assert load_pair(secret).public


def test_a_key_is_never_overwritten_or_taken_for_another(folder: Path) -> None:
    with pytest.raises(KeyFileError, match="exists"):
        new_pair(folder / "daemon", "focusd")
    new_pair(folder / "impostor", "ada")
    with pytest.raises(KeyFileError, match="another client's key"):
        allow(folder / "daemon", folder / "impostor" / "ada.key")
    with pytest.raises(KeyFileError, match="its secret stays"):
        allow(folder / "daemon", folder / "clients" / "eve.key_secret")
    with pytest.raises(KeyFileError, match="names no key"):
        new_pair(folder, "../up")
    assert list(allowed(folder / "daemon")) == ["ada"]


def ctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "focusd.ctl", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


async def test_focusctl_makes_allows_lists_and_uses_keys(tmp_path: Path) -> None:
    daemon_keys, mine = str(tmp_path / "daemon"), str(tmp_path / "mine")
    assert ctl("keys", "new", "focusd", "--folder", daemon_keys).returncode == 0
    assert ctl("keys", "new", "ada", "--folder", mine).returncode == 0
    assert ctl("keys", "allow", f"{mine}/ada.key", "--folder", daemon_keys).returncode == 0
    assert ctl("keys", "list", "--folder", daemon_keys).stdout.startswith("ada  ")
    again = ctl("keys", "new", "ada", "--folder", mine)
    assert (again.returncode, again.stderr.startswith("error: ")) == (1, True)
    given = ["--key", f"{mine}/ada.key_secret", "--server-key", f"{daemon_keys}/focusd.key"]
    async with running_daemon(config_of(tmp_path)) as daemon:
        status = ["status", "--endpoint", daemon.endpoints.control]
        shown = await anyio.to_thread.run_sync(lambda: ctl(*given, *status))
        assert "scripted" in shown.stdout, shown.stderr
    assert ctl(*given[:2], *status).returncode == 2
