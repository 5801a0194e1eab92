"""Pictures are drawn from JSON alone, whatever it leaves open, by who needs no window and no other daemon part."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from focusd.errors import RequestError
from focusd.focus.blocks import LocalMap
from focusd.focus.geometry import describe, geometry_of
from focusd.pictures import checked, draw_field, draw_map
from focusd.slide.focusmap import FocusMap, Position


def geometry(
    rows: int, columns: int, gaps: float, pixel_um: float | None, tilt_um: float = 20.0
) -> dict[str, Any]:
    """As a client receives it."""
    y, x = np.meshgrid(128.0 + 128 * np.arange(rows), 128.0 + 128 * np.arange(columns), indexing="ij")
    focus_um = tilt_um * x / 1000
    focus_um[np.random.default_rng(1).uniform(size=x.shape) < gaps] = np.nan
    blocks = LocalMap(focus_um, np.full_like(x, 0.5), y, x)
    found = geometry_of(blocks, pixel_um, 8.0, "increasing")
    told: dict[str, Any] = json.loads(json.dumps(describe(blocks, found, pixel_um).model_dump(mode="json")))
    return told


def focus_map(*positions: Position) -> dict[str, Any]:
    """As a client receives it."""
    told: dict[str, Any] = json.loads(json.dumps(FocusMap(positions).describe().model_dump(mode="json")))
    return told


@pytest.mark.parametrize("kind", [".png", ".svg", ".pdf"])
@pytest.mark.parametrize(
    ("rows", "columns", "gaps", "pixel_um", "tilt_um"),
    [
        (7, 9, 0.2, 0.65, 20.0),
        (7, 9, 0.0, None, 0.0),
        (1, 9, 0.0, 0.65, 20.0),
        (1, 1, 0.0, 0.65, 0.0),
        (3, 3, 1.0, None, 0.0),
    ],
)
def test_any_field_can_be_drawn(
    tmp_path: Path, kind: str, rows: int, columns: int, gaps: float, pixel_um: float | None, tilt_um: float
) -> None:
    path = tmp_path / f"field{kind}"

    draw_field(geometry(rows, columns, gaps, pixel_um, tilt_um), path)

    assert path.stat().st_size > 1000


def test_the_picture_says_what_was_found(tmp_path: Path) -> None:
    path = tmp_path / "field.svg"

    draw_field(geometry(7, 9, 0.0, 0.65), path)

    text = path.read_text(encoding="utf-8")
    for told in (
        "<!-- tilted: tip ",
        "µm, tilt +25.60 ± ",
        "<!-- σ(z) ",
        "<!-- x (µm)",
        "<!-- Δz (µm) from z = 12.80 µm",
    ):
        assert told in text


def test_the_falling_side_is_blue_and_gaps_are_hatched(tmp_path: Path) -> None:
    path = tmp_path / "field.png"
    draw_field(geometry(7, 9, 0.0, 0.65), path)
    pixels = imread(path)[..., :3]
    red, blue = (np.argwhere(pixels[..., a] - pixels[..., b] > 0.4)[:, 1] for a, b in ((0, 2), (2, 0)))
    whole = red[red < 0.8 * pixels.shape[1]]

    assert blue[blue < 0.8 * pixels.shape[1]].mean() < whole.mean(), "low on the left, high on the right"


def test_a_map_can_be_drawn_from_its_first_position_on(tmp_path: Path) -> None:
    path = tmp_path / "map.svg"
    draw_map(focus_map(Position(0, 0, 50, 0.2)), path)
    assert "<!-- focus map of 1 positions; slope along x +0.00 ± " in path.read_text(encoding="utf-8")

    level = [Position(1000.0 * x, 1000.0 * y, 50, 0.2) for x in range(3) for y in range(3)]
    draw_map(focus_map(*level, Position(500, 500, 90, 0.2)), path)
    assert "<!-- left out -->" in path.read_text(encoding="utf-8")


def test_an_empty_map_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="the map is empty"):
        draw_map(focus_map(), tmp_path / "map.png")


def test_a_wrong_name_is_told(tmp_path: Path) -> None:
    assert checked(tmp_path / "a.PNG") == tmp_path / "a.PNG"
    with pytest.raises(RequestError, match=r"ends with .png, .svg, .pdf"):
        checked(tmp_path / "a.jpeg")
    with pytest.raises(RequestError, match="no such folder"):
        checked(tmp_path / "absent" / "a.png")


def test_who_draws_nothing_loads_nothing_to_draw_with() -> None:
    code = "import json, sys, focusd.ctl; print(json.dumps([*sys.modules]))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    loaded = {name.partition(".")[0] for name in json.loads(ran.stdout)}
    assert "click" in loaded
    assert not loaded & {"numpy", "matplotlib", "scipy", "torch"}
