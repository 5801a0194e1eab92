"""A daemon that cannot start says why in one line, and how to go on."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import tifffile
import torch
from safetensors.torch import save_file

from focusd.scoring.weights import shipped_weights
from tests.system.daemon import failed_start, rig, write


def refused(config: Path) -> str:
    """What a start that fails as it should prints."""
    ended = failed_start(config)
    assert ended.returncode == 1, ended.stderr
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def hash_beside(weights: Path) -> None:
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    weights.with_name(f"{weights.name}.sha256").write_text(f"{digest}  {weights.name}\n", encoding="ascii")


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    absent = tmp_path / "absent.toml"
    assert refused(absent) == f"error: {absent}: cannot be read: No such file or directory"


def test_a_wrong_key_is_named(tmp_path: Path) -> None:
    config = write(tmp_path, rig(tmp_path, stage={"maximum_um": 5.0}))
    assert refused(config) == f"error: {config}: stage.maximum_um: unknown key; did you mean stage.max_um?"


def test_an_unknown_sample_is_named_and_the_known_are_listed(tmp_path: Path) -> None:
    line = refused(write(tmp_path, rig(tmp_path, microscope={"sample": "cheese"})))
    assert "microscope.sample: there is no 'cheese'; choose one of" in line
    assert "gravel" in line


def test_a_stack_without_z_positions_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "plain.tif", np.zeros((9, 64, 64), np.uint16), photometric="minisblack")
    values = rig(tmp_path) | {"microscope": {"kind": "recorded", "stack": "plain.tif"}}
    line = refused(write(tmp_path, values))
    assert line.endswith("plain.tif: does not say the z of its planes; give z_step_um, their distance in µm")


def test_one_flipped_bit_in_the_weights_is_noticed(tmp_path: Path) -> None:
    shipped = shipped_weights()
    weights = tmp_path / shipped.name
    content = bytearray(shipped.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    shutil.copy(shipped.with_name(f"{shipped.name}.sha256"), tmp_path)

    line = refused(write(tmp_path, rig(tmp_path, scorer={"weights": weights.name})))

    assert f"{weights}: the weights are corrupt or were changed (SHA-256 " in line
    assert "reinstall focusd" in line


def test_weights_of_another_network_are_refused_in_one_line(tmp_path: Path) -> None:
    weights = tmp_path / "other.safetensors"
    save_file({"layer.weight": torch.zeros(2)}, weights)
    hash_beside(weights)

    line = refused(write(tmp_path, rig(tmp_path, scorer={"weights": weights.name})))

    assert f"{weights}: not weights of this version" in line


def test_brackets_in_a_path_are_shown(tmp_path: Path) -> None:
    absent = tmp_path / "rig [red] [/b]" / "absent.toml"
    assert refused(absent) == f"error: {absent}: cannot be read: No such file or directory"
