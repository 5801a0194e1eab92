"""The demo's rigs: their configuration files, their daemons, and the planes from which a search starts."""

from __future__ import annotations

import socket
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from focusd.config import RecordedConfig, SimulatedConfig, load_config
from focusd.demo.rigs import daemons, free_ports, recorded_rig, simulated_rig, starting_planes, to_toml
from focusd.errors import FocusdError
from focusd.microscope.recorded import Stack

keys = st.from_regex(r"[a-z][a-z_]{0,10}", fullmatch=True)
plain_text = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E) | st.sampled_from("µ×éλ\n\t"))
numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**31), 2**31)
scalars = plain_text | numbers | st.booleans() | st.lists(numbers, max_size=3)
tables = st.dictionaries(keys, scalars, max_size=4)


def stack_of(z_um: list[float], pixel_um: float | None = None) -> Stack:
    return Stack(np.zeros((len(z_um), 4, 4), np.uint16), np.array(z_um), pixel_um)


@given(st.dictionaries(keys, scalars | tables, max_size=5))
def test_values_survive_their_way_through_toml(values: dict[str, Any]) -> None:
    assert tomllib.loads(to_toml(values)) == values


def test_any_path_survives_its_way_through_toml() -> None:
    values = {"state_dir": "/home/ada/🔬/state"}
    assert tomllib.loads(to_toml(values)) == values


def test_the_simulated_rig_is_a_valid_configuration(tmp_path: Path) -> None:
    file = tmp_path / "rig.toml"
    file.write_text(to_toml(simulated_rig(tmp_path / "state", "cells", 3, -41.5)), encoding="utf-8")

    config = load_config(file)

    assert isinstance(config.microscope, SimulatedConfig)
    assert (config.microscope.sample, config.microscope.seed) == ("cells", 3)
    assert config.microscope.focus_z_um == -41.5
    assert config.stage.min_um <= -150
    assert config.stage.max_um >= 150
    assert config.state_dir == tmp_path / "state"


def test_the_recorded_rig_stays_inside_its_stack(tmp_path: Path) -> None:
    file = tmp_path / "rig.toml"
    path = tmp_path / "wafer pattern (2).ome.tif"
    values = recorded_rig(tmp_path / "state", path, stack_of([-30.0, 0.0, 50.5], 0.65), 7.0)
    file.write_text(to_toml(values), encoding="utf-8")

    config = load_config(file)

    assert isinstance(config.microscope, RecordedConfig)
    assert (config.microscope.stack, config.microscope.start_z_um) == (path, 7.0)
    assert (config.stage.min_um, config.stage.max_um) == (-30.0, 50.5)
    assert (config.name, config.camera.pixel_um) == ("demo-wafer-pattern--2-", 0.65)
    assert config.objective.na is None, "of a recorded stack the optics are not known"


@pytest.mark.parametrize("focus_um", [-80.0, 0.0, 13.0, 100.0])
def test_searches_start_on_recorded_planes_away_from_the_focus(focus_um: float) -> None:
    z_um = [float(z) for z in range(-100, 101, 5)]

    starts = starting_planes(stack_of(z_um), focus_um, 5)

    assert len(set(starts)) == 5
    assert set(starts) <= set(z_um)
    assert all(abs(start - focus_um) > 4 for start in starts)
    assert starts == sorted(starts)
    reachable = [z for z in z_um[1:-1] if abs(z - focus_um) > 4]
    assert (starts[0], starts[-1]) == (reachable[0], reachable[-1]), "both sides, all but the ends"


def test_a_short_stack_gives_each_of_its_planes_once() -> None:
    assert starting_planes(stack_of([-20.0, -10.0, 0.0, 10.0, 20.0]), 0.0, 5) == [-10, 10]


def test_a_stack_of_the_focus_alone_gives_no_start() -> None:
    assert starting_planes(stack_of([0.0, 0.1, 100.0]), 0.0, 5) == []
    assert starting_planes(stack_of([0.0, 0.0, 0.0]), 0.0, 5) == []


def test_ports_are_free_and_no_two_daemons_that_start_at_once_are_given_the_same() -> None:
    ports = [*free_ports(4), *free_ports(4)]
    assert len(set(ports)) == 8
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ports[-1] + 1))  # the one that would come next
        assert ports[-1] + 1 not in free_ports(4)


def test_a_daemon_that_ends_at_once_is_an_error_with_its_reason(tmp_path: Path) -> None:
    rig = simulated_rig(tmp_path, "cheese", 1, 0.0)
    with pytest.raises(FocusdError, match=r"the daemon did not start: (.|\n)*there is no 'cheese'"):  # noqa: SIM117
        with daemons([rig], tmp_path) as running:
            next(running)
