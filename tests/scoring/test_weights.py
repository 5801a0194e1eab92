"""Weights on disk: what was saved is what is loaded, and nothing else is."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from focusd.errors import ModelError
from focusd.scoring.network import FocusNet
from focusd.scoring.weights import load_model, save_model, shipped_weights

MOST_BYTES = 16 * 1024 * 1024


@pytest.fixture
def network() -> FocusNet:
    """Untrained, but no buffer of it is as it was made."""
    torch.manual_seed(2)
    network = FocusNet()
    network.sigma_correction.uniform_(-1, 1)
    network.spectrum_norm.get_buffer("running_mean").uniform_(-1, 1)
    return network


@pytest.fixture
def weights(network: FocusNet, tmp_path: Path) -> Path:
    """Weights on disk, beside their hash."""
    path = tmp_path / "some" / "net-7.safetensors"
    save_model(network, path, {"recipe": {"seed": 3}, "preprocessing": 1})
    return path


def hash_file(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def promise(path: Path) -> None:
    """Write the right hash beside a file."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    hash_file(path).write_text(f"{digest}  {path.name}\n", encoding="ascii")


def refused(path: Path) -> str:
    """The message with which a file is refused."""
    with pytest.raises(ModelError) as error:
        load_model(path)
    assert str(path) in error.value.message
    return error.value.message


def test_what_was_saved_is_loaded_tensor_by_tensor(network: FocusNet, weights: Path) -> None:
    saved, loaded = network.state_dict(), load_model(weights).network.state_dict()
    assert saved.keys() == loaded.keys()
    assert all(torch.equal(saved[name], loaded[name]) for name in saved)


def test_a_loaded_model_is_ready_to_score_and_says_what_it_is(weights: Path) -> None:
    model = load_model(weights)
    assert not model.network.training
    assert model.name == "net-7"
    assert model.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()


def test_metadata_survive_as_json(weights: Path) -> None:
    metadata = load_model(weights).metadata
    assert {key: json.loads(value) for key, value in metadata.items()} == {
        "recipe": {"seed": 3},
        "preprocessing": 1,
    }


def test_saving_returns_the_hash_that_it_writes_as_sha256sum_does(network: FocusNet, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    digest = save_model(network, path, {})
    assert hash_file(path).read_text(encoding="ascii") == f"{digest}  a.safetensors\n"


def test_saving_a_network_laid_out_for_speed_keeps_its_values(network: FocusNet, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    expected = {name: value.clone() for name, value in network.state_dict().items()}
    laid_out = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
    save_model(laid_out, path, {})
    loaded = load_model(path).network.state_dict()
    assert all(torch.equal(expected[name], loaded[name]) for name in expected)


@pytest.mark.parametrize("place", [0.0, 0.5, 0.999])
def test_weights_with_a_flipped_bit_are_refused(weights: Path, place: float) -> None:
    content = bytearray(weights.read_bytes())
    content[int(place * len(content))] ^= 1
    weights.write_bytes(content)
    assert "SHA-256" in refused(weights)


def test_weights_that_were_cut_short_are_refused(weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "SHA-256" in refused(weights)


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff\xfe", b"0" * 64])
def test_a_hash_that_is_missing_or_means_nothing_is_refused(weights: Path, content: bytes | None) -> None:
    hash_file(weights).unlink()
    if content is not None:
        hash_file(weights).write_bytes(content)
    refused(weights)


def test_missing_weights_are_refused(weights: Path) -> None:
    weights.unlink()
    refused(weights)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"layer.weight": torch.zeros(3, 3)}, path)
    promise(path)
    assert "not weights of this version" in refused(path)


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_weights_of_another_version_of_the_network_are_refused(
    network: FocusNet, tmp_path: Path, change: str
) -> None:
    tensors = {name: value.contiguous() for name, value in network.state_dict().items()}
    if change == "missing":
        del tensors["sigma_correction"]
    if change == "extra":
        tensors["more"] = torch.zeros(2)
    if change == "shape":
        tensors["sigma_correction"] = torch.zeros(3)
    path = tmp_path / "old.safetensors"
    save_file(tensors, path)
    promise(path)
    assert "not weights of this version" in refused(path)


def test_a_file_that_is_no_safetensors_is_refused_even_with_its_right_hash(tmp_path: Path) -> None:
    path = tmp_path / "pickle.safetensors"
    torch.save({"a": torch.zeros(2)}, path)
    promise(path)
    refused(path)


def test_the_shipped_weights_load_and_are_small() -> None:
    path = shipped_weights()
    assert load_model().sha256 == load_model(path).sha256
    assert path.stat().st_size < MOST_BYTES


def test_the_shipped_weights_say_how_they_were_made() -> None:
    assert {"recipe", "preprocessing"} <= load_model().metadata.keys()


def test_weights_are_as_readable_as_their_hash(weights: Path) -> None:
    assert weights.stat().st_mode & 0o777 == hash_file(weights).stat().st_mode & 0o777
