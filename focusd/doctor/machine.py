"""The machine that focusd runs on: weights, GPU, keys, ports."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
import zmq

from focusd.config import RigConfig, is_local
from focusd.doctor.finding import Finding, failure, ok, warning
from focusd.protocol import keys as key_files
from focusd.scoring.weights import load_model

LISTENERS = "netstat -ano" if sys.platform == "win32" else "ss -ltnp"


def weights(config: RigConfig) -> Iterator[Finding]:
    """The network, and that it is the one that its hash promises."""
    model = load_model(config.scorer.weights)
    yield ok("weights", f"{model.name}, SHA-256 {model.sha256[:12]}…")


def gpu(_config: RigConfig) -> Iterator[Finding]:
    """Whether torch sees the GPU that is there."""
    if torch.cuda.is_available():
        yield ok("GPU", torch.cuda.get_device_name())
    elif not _nvidia_is_there():
        yield ok("GPU", f"none; the CPU scores, with {torch.get_num_threads()} threads")
    elif torch.version.cuda is None:
        do = "install a CUDA build of torch (https://pytorch.org) into focusd's environment"
        yield warning("GPU", "there is one, and this torch is built without CUDA: the CPU scores", do)
    else:
        do = "run nvidia-smi as the same user; under systemd install the drop-in gpu.conf"
        yield warning("GPU", "there is one, and torch cannot use it: the CPU scores", do)


def _nvidia_is_there() -> bool:
    if sys.platform == "win32":
        return shutil.which("nvidia-smi") is not None  # it comes with the driver
    return any(Path("/dev").glob("nvidia[0-9]*"))


def keys(config: RigConfig) -> Iterator[Finding]:
    """Who may talk to this rig."""
    folder = config.server.keys
    if folder is None:
        yield ok("keys", "none: this machine alone is served")
        return
    key_files.load_pair(folder / f"{key_files.DAEMON}.key_secret")
    clients = key_files.allowed(folder)
    if not clients:
        do = f"run `focusctl keys allow CLIENT.key --folder {folder}`"
        yield failure("keys", "no client is on the list", do)
    else:
        yield ok("keys", f"{len(clients)} clients on the list: {', '.join(clients)}")


def ports(config: RigConfig) -> Iterator[Finding]:
    """That both addresses are free and ours to bind."""
    for name in ("control", "events"):
        endpoint: str = getattr(config.server, name)
        with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
            socket.ipv6 = "[" in endpoint
            try:
                socket.bind(endpoint)
            except zmq.ZMQError as error:
                do = f"stop what listens there (`{LISTENERS}` names it), or set another server.{name}"
                yield failure(f"server.{name}", f"{endpoint}: {error.strerror}", do)
                continue
        reach = "this machine" if is_local(endpoint) else "other machines"
        yield ok(f"server.{name}", f"{endpoint} is free, for {reach}")
