"""A refocus goes onto the slide's map, below the rig's state, and the map tells where to move."""

from __future__ import annotations

import json

import pytest

from focusd.daemon.slidemap import map_files
from focusd.errors import RequestError
from focusd.protocol.states import Usable
from tests.documents import DOCS, blocks
from tests.system.conftest import Bench


def test_a_refocus_is_kept_on_disk_and_predicts_the_focus_beside_it(bench: Bench) -> None:
    client = bench.daemon.client
    found = client.refocus()

    added = client.map_add(1000.0, -500.0)
    (told,) = client.map_predict([(1010.0, -500.0)]).predictions

    assert (added.z_um, added.sigma_um) == (found.z_found_um, found.sigma_um)
    assert told.z_um == pytest.approx(found.z_found_um, abs=0.1)
    assert (told.sigma_um or 0.0) >= found.sigma_um
    file, _ = map_files(bench.calibration_file.parent.parent / "maps", "10x/0.3")
    assert client.map_get().path == str(file)
    assert json.loads(file.read_text(encoding="utf-8"))["positions"][0]["z_um"] == found.z_found_um
    assert client.map_clear().cleared == 1


def test_a_refocus_that_failed_is_not_added(bench: Bench) -> None:
    client = bench.daemon.client
    client.refocus()
    bench.calibration_file.unlink()
    with pytest.raises(Exception, match="no calibration"):
        client.refocus()

    with pytest.raises(RequestError, match="no refocus to add"):
        client.map_add(0.0, 0.0)


def test_the_scan_of_the_documents_works_as_written(bench: Bench) -> None:
    (code,) = (block for block in blocks(DOCS / "howto" / "slide.md", "python") if "map_predict" in block)
    client = bench.daemon.client
    client.map_clear()
    visited: list[tuple[float, float]] = []
    ends_um: list[float | None] = []

    def move_xy(x_um: float, y_um: float) -> None:
        ends_um.append(client.state().z_um)
        visited.append((x_um, y_um))

    positions = [(200.0 * x, 200.0 * y) for x in range(3) for y in range(2)]
    exec(code, {"positions": positions, "move_xy": move_xy, "focus": client})
    ends_um.append(client.state().z_um)

    calibration = client.state().calibration
    assert isinstance(calibration, Usable)
    dof_um = calibration.dof_um
    assert visited == positions
    assert all(z_um and abs(z_um - bench.true_focus_um) <= dof_um for z_um in ends_um[1:])
    assert 1 <= client.map_clear().cleared <= len(positions)
