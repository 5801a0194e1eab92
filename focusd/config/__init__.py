"""Configuration of a rig: one TOML file, every key checked, unknown keys refused."""

from focusd.config.focusing import AutofocusConfig, CalibrationConfig, ScorerConfig
from focusd.config.hold import HoldConfig
from focusd.config.instrument import CameraConfig, ObjectiveConfig
from focusd.config.loading import load_config
from focusd.config.microscopes import (
    ClientConfig,
    CoreConfig,
    EmbeddedConfig,
    MicroManagerConfig,
    MicroscopeConfig,
    RecordedConfig,
    RehearsalConfig,
    SceneConfig,
    SimulatedConfig,
)
from focusd.config.rig import RigConfig
from focusd.config.serving import HttpConfig, LogConfig, MetricsConfig, ServerConfig, is_local
from focusd.config.stage import StageConfig

__all__ = [
    "AutofocusConfig",
    "CalibrationConfig",
    "CameraConfig",
    "ClientConfig",
    "CoreConfig",
    "EmbeddedConfig",
    "HoldConfig",
    "HttpConfig",
    "LogConfig",
    "MetricsConfig",
    "MicroManagerConfig",
    "MicroscopeConfig",
    "ObjectiveConfig",
    "RecordedConfig",
    "RehearsalConfig",
    "RigConfig",
    "SceneConfig",
    "ScorerConfig",
    "ServerConfig",
    "SimulatedConfig",
    "StageConfig",
    "is_local",
    "load_config",
]
