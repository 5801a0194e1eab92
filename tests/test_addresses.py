"""Where the daemon listens: without keys on this machine alone, and never where nobody has written it."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from focusd.config import ServerConfig, is_local

LOCAL = [
    "tcp://127.0.0.1:5570",
    "tcp://127.0.0.1:*",
    "tcp://127.0.0.1:0",
    "tcp://127.8.9.10:5570",
    "tcp://localhost:5570",
    "tcp://[::1]:5570",
    "ipc:///run/focusd/control",
    "ipc://@focusd",
]
FOREIGN = [
    "tcp://0.0.0.0:5570",
    "tcp://*:5570",
    "tcp://192.168.1.5:5570",
    "tcp://[::]:5570",
    "tcp://[::ffff:0.0.0.0]:5570",
    "tcp://[::ffff:127.0.0.1]:5570",
    "tcp://[fe80::1]:5570",
    "tcp://eth0:5570",
    "tcp://scope.example:5570",
    "tcp://127.0.0.1.evil.example:5570",
    "tcp://localhost.evil:5570",
    "tcp://Localhost.:5570",
    "tcp://127.1:5570",
    "tcp://127.0.0.01:5570",
    "tcp://0:5570",
    "tcp://2130706433:5570",
]
ODD = [
    "tcp://127.0.0.1:7760;0.0.0.0:7762",
    "tcp://127.1:5570;0.0.0.0:7762",
    "tcp://0.0.0.0:1;127.0.0.1:5570",
    "tcp://127.0.0.1:5570 ",
    " tcp://127.0.0.1:5570",
    "tcp://127.0.0.1:5570\n",
    "tcp://127.0.0.1:5570/x",
    "tcp://127.0.0.1:5570,tcp://0.0.0.0:1",
    "tcp://user@127.0.0.1:5570",
    "tcp://127.0.0.1:",
    "tcp://127.0.0.1:65536",
    "tcp://127.0.0.1:-1",
    "tcp://127.0.0.1:٥٥٧٠",
    "tcp://127.0.0.1",
    "tcp://*",
    "tcp://0",
    "tcp://:5570",
    "tcp://[::1%eth0]:5570",
    "tcp://[::1]extra:5570",
    "TCP://127.0.0.1:5570",
    "udp://127.0.0.1:5570",
    "pgm://127.0.0.1;239.0.0.1:5570",
    "inproc://focusd",
    "ws://127.0.0.1:5570",
    "ipc://",
    "ipc:///a;tcp://0.0.0.0:1",
    "ipc:///a\x1b[2J",
    "",
    "127.0.0.1:5570",
]


@pytest.mark.parametrize("name", ["control", "events"])
@pytest.mark.parametrize("endpoint", LOCAL)
def test_local_addresses_need_no_keys(name: str, endpoint: str) -> None:
    assert is_local(endpoint)
    assert getattr(ServerConfig.model_validate({name: endpoint}), name) == endpoint


@pytest.mark.parametrize("name", ["control", "events"])
@pytest.mark.parametrize("endpoint", FOREIGN)
def test_what_others_can_reach_needs_keys(name: str, endpoint: str) -> None:
    with pytest.raises(ValidationError, match="can be reached from other machines, which needs keys"):
        ServerConfig.model_validate({name: endpoint})
    assert ServerConfig.model_validate({name: endpoint, "keys": "keys"})


@pytest.mark.parametrize("name", ["control", "events"])
@pytest.mark.parametrize("endpoint", ODD)
def test_what_is_no_plain_address_is_refused_with_keys_too(name: str, endpoint: str) -> None:
    for keys in ({}, {"keys": "keys"}):
        with pytest.raises(ValidationError, match="is no address to listen on: it looks like"):
            ServerConfig.model_validate({name: endpoint} | keys)
