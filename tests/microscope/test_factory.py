"""The shipped configurations open the microscope of their kind, and it works."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import tifffile

from focusd.config import RecordedConfig, RigConfig, load_config
from focusd.microscope.factory import open_microscope
from focusd.microscope.guard import GuardedStage

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize("name", ["simulated-10x", "micromanager-demo", "recorded"])
def test_shipped_configuration_opens_moves_and_exposes(tmp_path: Path, name: str) -> None:
    config = _with_a_stack(load_config(CONFIGS / f"{name}.toml"), tmp_path)

    with closing(open_microscope(config)) as microscope:
        z_um = GuardedStage(microscope, config.stage).move_to(7.5)
        frame = microscope.snap()

    assert z_um == pytest.approx(7.5, abs=config.stage.tolerance_um)
    assert frame.z_um == pytest.approx(z_um)
    assert frame.pixels.ndim == 2
    assert frame.pixels.dtype in (np.uint8, np.uint16)
    assert frame.pixels.max() <= frame.full_scale


def _with_a_stack(config: RigConfig, folder: Path) -> RigConfig:
    """The shipped recorded.toml names the user's stack; here is one."""
    if not isinstance(config.microscope, RecordedConfig):
        return config
    stack = folder / config.microscope.stack.name
    planes = np.full((9, 12, 10), 40, np.uint8)
    positions = {"PositionZ": [10.0 * index for index in range(-4, 5)]}
    tifffile.imwrite(stack, planes, ome=True, metadata={"axes": "ZYX", "Plane": positions})
    return config.model_copy(update={"microscope": config.microscope.model_copy(update={"stack": stack})})
