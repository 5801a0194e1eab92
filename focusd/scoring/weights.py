"""The network's weights on disk: safetensors beside a SHA-256, checked before anything is loaded."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from focusd.errors import ModelError
from focusd.scoring.network import FocusNet

DEFAULT_NAME = "focusnet-4"
_PACKAGE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Model:
    """A network ready to score.

    Attributes:
        network: in evaluation mode.
        name: of the weights file.
        sha256: of the weights file; calibrations record it.
        metadata: what the file says of its training.
        path: of the weights file; None: it was not loaded from one.
    """

    network: FocusNet
    name: str
    sha256: str
    metadata: dict[str, str]
    path: Path | None = None


def shipped_weights() -> Path:
    """The weights that come with focusd, in an installed package or in a checkout."""
    installed = _PACKAGE / "_models"
    folder = installed if installed.is_dir() else _PACKAGE.parent / "models"
    return folder / f"{DEFAULT_NAME}.safetensors"


def load_model(path: Path | None = None) -> Model:
    """Load weights whose hash is the one in `<file>.sha256`.

    Raises:
        ModelError: missing, changed, or of another network.
    """
    path = path or shipped_weights()
    sha256 = _checked(path)
    network = FocusNet()
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            network.load_state_dict({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]  # torch goes on to list every tensor
        raise ModelError(
            f"{path}: not weights of this version of focusd's network ({reason}); reinstall focusd"
        ) from error
    return Model(network.eval(), path.stem, sha256, metadata, path)


def save_model(network: FocusNet, path: Path, metadata: dict[str, object]) -> str:
    """Write weights and their hash; returns the hash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(tensors, path, {key: json.dumps(value) for key, value in metadata.items()})
    path.chmod(0o644)  # safetensors writes for its user alone
    sha256 = _sha256(path)
    _hash_file(path).write_text(f"{sha256}  {path.name}\n", encoding="ascii")
    return sha256


def _checked(path: Path) -> str:
    """The file's hash, once it has been found right."""
    try:
        promised = _hash_file(path).read_text(encoding="ascii").split()[0]
        actual = _sha256(path)
    except (OSError, IndexError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: weights or their .sha256 cannot be read; reinstall focusd") from error
    if actual != promised:
        raise ModelError(
            f"{path}: the weights are corrupt or were changed (SHA-256 {actual[:12]}…, {promised[:12]}… expected); "
            "reinstall focusd"
        )
    return actual


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _hash_file(path: Path) -> Path:
    return path.with_suffix(path.suffix + ".sha256")
