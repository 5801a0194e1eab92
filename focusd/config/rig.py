"""Everything about one rig: all tables together, and what they ask of each other."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from platformdirs import user_state_dir
from pydantic import Field, field_validator, model_validator

from focusd.config.focusing import AutofocusConfig, CalibrationConfig, ScorerConfig
from focusd.config.hold import HoldConfig
from focusd.config.instrument import CameraConfig, ObjectiveConfig
from focusd.config.microscopes import MicroscopeConfig, RehearsalConfig, SceneConfig
from focusd.config.section import Section
from focusd.config.serving import HttpConfig, LogConfig, MetricsConfig, ServerConfig
from focusd.config.stage import StageConfig
from focusd.errors import ConfigError


def _state_dir() -> Path:
    try:
        return Path(os.environ.get("STATE_DIRECTORY") or user_state_dir("focusd", appauthor=False))
    except RuntimeError as error:
        raise ConfigError(
            f"state_dir: {error}; or say in the configuration where to keep what a rig remembers"
        ) from None


class RigConfig(Section):
    """Everything about one rig."""

    name: str = "rig"
    """What the rig keeps lies below this name; letters, digits, - and _."""
    state_dir: Path = Field(default_factory=_state_dir)
    """Calibrations live here, below the rig's name. Under systemd: what StateDirectory= says; else where this
    system keeps such things."""
    objective: ObjectiveConfig
    camera: CameraConfig
    stage: StageConfig
    microscope: MicroscopeConfig
    calibration: CalibrationConfig = CalibrationConfig()
    autofocus: AutofocusConfig = AutofocusConfig()
    hold: HoldConfig = HoldConfig()
    scorer: ScorerConfig = ScorerConfig()
    server: ServerConfig = ServerConfig()
    http: HttpConfig = HttpConfig()
    metrics: MetricsConfig = MetricsConfig()
    log: LogConfig = LogConfig()

    @model_validator(mode="after")
    def _simulation_knows_its_optics(self) -> Self:
        known = self.objective.na is not None and self.objective.magnification is not None
        if isinstance(self.microscope, SceneConfig) and not known:
            raise ValueError("a simulated picture needs objective.na and objective.magnification")
        return self

    @model_validator(mode="after")
    def _keys_have_no_back_door(self) -> Self:
        if self.http.port is not None and self.server.keys is not None:
            raise ValueError(
                "http.port serves every program of this machine without asking for a key, and server.keys asks "
                "everybody for one: leave out one of the two"
            )
        return self

    @property
    def state_folder(self) -> Path:
        """Where all that outlives a run of this rig is kept."""
        return self.state_dir / self.name

    @property
    def note(self) -> str:
        """What everybody has to know who sees a result of this rig; empty where the sample is a real one."""
        return self.microscope.note if isinstance(self.microscope, RehearsalConfig) else ""

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if not name or not all(c.isalnum() or c in "-_" for c in name):
            raise ValueError("may hold letters, digits, '-' and '_' only: it names a folder")
        return name
