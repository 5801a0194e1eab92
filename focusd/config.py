"""Configuration of a rig: one TOML file, every key checked, unknown keys refused."""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
import unicodedata
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from platformdirs import user_state_dir
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from focusd.addresses import CONTROL, EVENTS
from focusd.errors import ConfigError

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


def _state_dir() -> Path:
    try:
        return Path(os.environ.get("STATE_DIRECTORY") or user_state_dir("focusd", appauthor=False))
    except RuntimeError as error:
        raise ConfigError(
            f"state_dir: {error}; or say in the configuration where to keep what a rig remembers"
        ) from None


class Section(BaseModel):
    """A table of the configuration file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ObjectiveConfig(Section):
    """The objective in use. NA and magnification give the depth of field and the score's scale.

    Where they are not known (someone else's recorded stack), the calibration absorbs the scale.
    """

    name: str
    """Calibrations and focus maps belong to it: another kind of light needs another name."""
    magnification: Positive | None = None
    """From the sample to the camera."""
    na: Positive | None = None
    """Numerical aperture."""
    immersion_index: Annotated[float, Field(ge=1.0, le=2.0)] = 1.0
    """Refractive index: 1.0 air, 1.33 water, 1.515 oil."""
    wavelength_um: Annotated[float, Field(ge=0.2, le=2.0)] = 0.55
    """The middle of the light that reaches the camera."""

    @model_validator(mode="after")
    def _na_below_index(self) -> Self:
        if self.na is not None and self.na >= self.immersion_index:
            raise ValueError(f"na {self.na} must be below immersion_index {self.immersion_index}")
        return self


class CameraConfig(Section):
    """The camera: pitch of its physical pixels, on-chip binning and exposure."""

    name: str = "camera"
    """A calibration belongs to the camera of this name."""
    pixel_um: Positive
    """Pitch on the chip, before binning."""
    binning: Annotated[int, Field(ge=1, le=8)] = 1
    """On the chip, in both directions."""
    exposure_ms: Positive = 10.0
    """Of each frame that focusd takes."""
    acquisition: Literal["snap", "sequence"] = "snap"
    """sequence: the camera streams through an operation, and frames exposed during a move are dropped."""
    bit_depth: Annotated[int, Field(ge=8, le=16)] | None = None
    """Bits of a pixel's full scale; None: as the camera says."""


class StageConfig(Section):
    """The z stage and the limits that no move may pass."""

    min_um: Finite
    """No move ever goes below."""
    max_um: Finite
    """No move ever goes above."""
    towards_sample: Literal["increasing", "decreasing"]
    """Which way of z brings objective and sample closer. It must be said: a wrong guess breaks objectives."""
    max_step_um: Positive = 300.0
    """Longer moves are split into steps of this."""
    max_travel_um: Positive = 3000.0
    """Total path of one operation."""
    tolerance_um: Positive = 0.5
    """A stage that reads back further than this from where it was sent is at fault."""
    timeout_s: Positive = 10.0
    """A hardware call that takes longer is a fault, after which focusd stands still."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_um >= self.max_um:
            raise ValueError(f"min_um {self.min_um} must be below max_um {self.max_um}")
        return self


class SceneConfig(Section):
    """A simulated sample at a hidden focus, and the light that reaches the camera from it."""

    sample: str = "cells"
    """One of the names in `focusd.microscope.samples.SAMPLES`."""
    seed: int = 0
    """The same seed gives the same sample and the same noise."""
    focus_z_um: Finite = 0.0
    """Where the sample is in focus; the daemon never looks at it."""
    electrons: Positive = 8000.0
    """Mean signal of the brightest parts of the sample at the configured exposure."""
    background_electrons: NonNegative = 200.0
    """Mean light between the objects, in electrons."""
    read_noise_electrons: NonNegative = 1.6
    """Standard deviation of the camera's own noise."""
    vignetting: Annotated[float, Field(ge=0, le=0.9)] = 0.1
    """Loss of light in the corners."""
    tilt_y_um: Finite = 0.0
    """Change of the focus from the first row to the last."""
    tilt_x_um: Finite = 0.0
    """Change of the focus from the first column to the last."""
    drift_um_per_min: Finite = 0.0
    """How fast the focus moves."""
    spherical_waves: Finite = 0.0
    """Primary spherical aberration, waves RMS."""


class SimulatedConfig(SceneConfig):
    """The simulated microscope: no hardware at all."""

    kind: Literal["simulated"] = "simulated"
    width: Annotated[int, Field(ge=32, le=4096)] = 512
    """Of a frame, in pixels."""
    height: Annotated[int, Field(ge=32, le=4096)] = 512
    """Of a frame, in pixels."""
    backlash_um: NonNegative = 0.0
    """Play between the motor of the stage, which is read back, and what it moves."""
    velocity_um_per_s: Positive = 1000.0
    """Of the stage."""
    settling_ms: NonNegative = 20.0
    """From the end of a move until the stage stands still."""


class CoreConfig(Section):
    """What Micro-Manager's core loads."""

    config_file: str
    """Path; `MMConfig_demo.cfg` is searched beside the adapters when it does not exist as given."""
    adapter_path: str | None = None
    """Folder of the device adapters; None: where pymmcore-plus finds them."""
    camera: str | None = None
    """Device label; None: the configuration file's default camera."""
    stage: str | None = None
    """Device label; None: the configuration file's default focus stage."""


class MicroManagerConfig(CoreConfig):
    """Any Micro-Manager configuration file."""

    kind: Literal["micromanager"]


class RehearsalConfig(CoreConfig, SceneConfig):
    """Micro-Manager's camera and stage, exposed and moved as ever, in front of a simulated sample."""

    kind: Literal["rehearsal"]

    @property
    def note(self) -> str:
        """What everybody has to know who sees a result of a rehearsal."""
        drifts = f", drifting by {self.drift_um_per_min:g} µm/min" if self.drift_um_per_min else ""
        return (
            "rehearsal: camera and stage are Micro-Manager's, the picture is simulated, in focus at "
            f"z = {self.focus_z_um:g} µm{drifts}"
        )


class RecordedConfig(Section):
    """A through-focus stack on disk plays the microscope."""

    kind: Literal["recorded"]
    stack: Path
    """An OME-TIFF with the z of each plane, or a TIFF stack."""
    z_step_um: Positive | None = None
    """Distance of the planes, for files that do not say."""
    start_z_um: Finite | None = None
    """Where the stage stands at first; None: the middle of the stack."""


class ClientConfig(Section):
    """The clients own camera and stage: they send frames and are told where to expose (`focus.ask`)."""

    kind: Literal["client"]


class EmbeddedConfig(Section):
    """The microscope of a program that has opened it already: `focusd.attach(core, "rig.toml")`."""

    kind: Literal["embedded"]
    channel: str | None = None
    """The preset to focus in; None: whatever the program has set at that moment."""
    channel_group: str | None = None
    """The preset's group; None: the core's channel group."""
    sockets: Literal["if_free", "required", "none"] = "if_free"
    """Whether clients and monitors are served. if_free: where another program has the ports, none are."""


MicroscopeConfig = Annotated[
    SimulatedConfig | MicroManagerConfig | RehearsalConfig | RecordedConfig | ClientConfig | EmbeddedConfig,
    Field(discriminator="kind"),
]


class CalibrationConfig(Section):
    """The calibration stack, centred on where the stage stands (the user has focused by eye)."""

    range_um: Positive | None = None
    """Half the stack's extent; None: as the objective asks for (`focusd.focus.planes.stack_um`)."""
    step_um: Positive | None = None
    """Distance of the planes; None: likewise."""

    @model_validator(mode="after")
    def _enough_planes(self) -> Self:
        if self.range_um and self.step_um and self.range_um < 3 * self.step_um:
            raise ValueError("range_um must be at least 3 step_um, or there is no curve to fit")
        return self


class AutofocusConfig(Section):
    """The search."""

    strategy: Literal["posterior", "published"] = "posterior"
    """focusd's own search, or that of the paper."""
    max_exposures: Annotated[int, Field(ge=2, le=100)] = 8
    """Exposures of one refocus."""
    max_seconds: Positive | None = None
    """No exposure is begun later than this after the request."""
    max_dose_ms: Positive | None = None
    """Exposure time of one refocus."""
    target_dof: Annotated[float, Field(gt=0, le=1)] = 0.1
    """The posterior search ends when σ is below this fraction of the depth of field."""
    verify: bool = True
    """The posterior search ends with an exposure at the focus."""
    surface: Literal["mean", "median", "nearest", "sharpest"] = "mean"
    """What of a tilted, stepped or thick field is brought into focus; nearest: to the objective; sharpest: the plane at
    which most of the field is sharp."""
    structure_threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Patches less likely than this to hold structure are left out."""
    max_saturated: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Fraction of pixels at full scale above which a frame is refused."""


class HoldConfig(Section):
    """How tightly the focus is held, and at which price in light."""

    fraction: Annotated[float, Field(gt=0, le=5)] = 0.5
    """Of the depth of field: a check is due before |drift| + 2σ exceeds it."""
    min_interval_s: Positive = 20.0
    """Between two checks in the long run; while the drift is learnt some may follow one another within seconds."""
    max_interval_s: Positive = 1800.0
    """At least one check in so many seconds."""
    drift_um_per_min: Positive = 10.0
    """Standard deviation of the drift as far as it is known before the first check; the hold learns what it is."""
    step_um: Positive = 5.0
    """Size of the steps to be expected, as of a medium change."""
    reach_um: Positive = 30.0
    """A check exposes no further than this from where the focus is expected."""
    retries: Annotated[int, Field(ge=0, le=1000)] = 10
    """Checks of a lost hold, ever further apart, before an operator has to look."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_interval_s >= self.max_interval_s:
            raise ValueError("min_interval_s must be below max_interval_s")
        return self


class ScorerConfig(Section):
    """The network."""

    weights: Path | None = None
    """None: the weights shipped with focusd."""
    backend: Literal["auto", "cpu", "cuda", "tensorrt"] = "auto"
    """Where it is computed; auto: the best that works. One that fails is left for the next."""
    batch: Annotated[int, Field(ge=1, le=1024)] = 16
    """Tiles that a thread scores at once on the CPU; a GPU takes 256."""
    threads: Annotated[int, Field(ge=1, le=64)] | None = None
    """On the CPU; None: one a core."""
    max_tiles: Annotated[int, Field(ge=1, le=10_000)] = 16
    """Of a frame, those of most contrast; more of them cost time and tell little more."""
    budget_ms: Positive = 40.0
    """For the scores of a frame: a machine that is too slow for `max_tiles` scores fewer, at least four."""


_TCP = re.compile(r"tcp://(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._*-]+)):(?P<port>\*|[0-9]{1,5})")
_IPC = re.compile(r"ipc://[^;]+")


def is_local(endpoint: str) -> bool:
    """Whether nobody but this machine can reach an endpoint to listen on.

    Raises:
        ValueError: it is no plain endpoint. ZeroMQ would take more, two addresses in one for instance.
    """
    if _IPC.fullmatch(endpoint) and endpoint.isprintable():
        return True
    parts = _TCP.fullmatch(endpoint)
    if parts is None or (parts["port"] != "*" and int(parts["port"]) > 65535):
        raise ValueError(
            f"{endpoint!r} is no address to listen on: it looks like tcp://127.0.0.1:5570 or ipc:///path"
        )
    try:
        address = ipaddress.ip_address(parts["v6"] or parts["host"])
    except ValueError:
        return parts["host"] == "localhost"
    return address.is_loopback and (address.version == 4 or address == ipaddress.IPv6Address("::1"))


class ServerConfig(Section):
    """Where clients and monitors connect, and whether they have to say who they are."""

    control: str = CONTROL
    """Where requests are answered."""
    events: str = EVENTS
    """Where events are published."""
    keys: Path | None = None
    """Folder of CURVE keys (`focusctl keys`): only clients on its list are answered. None: this machine alone."""
    max_requests_per_s: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 200.0
    """Of one client; more are answered with `busy`."""

    @model_validator(mode="after")
    def _strangers_need_keys(self) -> Self:
        for endpoint in (self.control, self.events):
            if not is_local(endpoint) and self.keys is None:
                raise ValueError(
                    f"{endpoint!r} can be reached from other machines, which needs keys: run `focusctl keys new "
                    "focusd` here and `focusctl keys allow CLIENT.key` for each client, then set server.keys to the "
                    "folder; or listen on 127.0.0.1"
                )
        return self


class HttpConfig(Section):
    """JSON-RPC over HTTP, for programs without ZeroMQ."""

    port: Annotated[int, Field(ge=0, le=65535)] | None = None
    """On loopback; 0: any free one; None: HTTP is not served."""


class MetricsConfig(Section):
    """Figures for Prometheus, for this machine alone."""

    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """None: no figures are served."""


class LogConfig(Section):
    """What is logged and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important messages that are still logged."""
    format: Literal["auto", "console", "json"] = "auto"
    """auto: a console for people at a terminal, JSON lines otherwise."""


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


def load_config(path: Path) -> RigConfig:
    """Read and check a configuration file.

    Relative paths in the file are taken from the file's own folder.

    Raises:
        ConfigError: names the file, the key and the reason.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text: {error}") from error
    except tomllib.TOMLDecodeError as error:
        hint = f"; {_BACKSLASH}" if "\\" in str(error) or "hex" in str(error) else ""
        raise ConfigError(f"{path}: is not valid TOML: {error}{hint}") from error
    if garbled := next(_with_control_characters(values), None):
        raise ConfigError(f"{path}: {garbled} holds a control character; {_BACKSLASH}")
    try:
        config = RigConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_explain(error)}") from error
    return _anchored(config, path.resolve().parent)


_BACKSLASH = "in double quotes a backslash begins an escape: put Windows paths into single quotes, or write them with /"


def _with_control_characters(values: object, key: str = "") -> Iterator[str]:
    """The keys of texts that hold a control character, such as the tab that "C:\\temp" becomes."""
    if isinstance(values, dict):
        for name, value in values.items():
            yield from _with_control_characters(value, f"{key}.{name}".lstrip("."))
    elif isinstance(values, str) and any(unicodedata.category(letter) == "Cc" for letter in values):
        yield key


def _explain(error: ValidationError) -> str:
    """One line per wrong key: `stage.min_um: reason`."""
    lines = []
    for item in error.errors(include_url=False):
        key = ".".join(str(part) for part in item["loc"]) or "file"
        reason = _unknown(item["loc"]) if item["type"] == "extra_forbidden" else item["msg"]
        lines.append(f"{key}: {reason}")
    return "; ".join(lines)


def _unknown(location: tuple[int | str, ...]) -> str:
    """That there is no such key, with the one that was most likely meant."""
    table, key = str(location[0]) if len(location) > 1 else "", str(location[-1])
    known = list(_keys(RigConfig))
    here = [name for place, name in known if place == table]
    meant = [(table, name) for name in get_close_matches(key, here, 1)]
    meant += [(place, name) for place, name in known if name == key]
    return f"unknown key; did you mean {'.'.join(filter(None, meant[0]))}?" if meant else "unknown key"


def _keys(model: type[BaseModel], table: str = "") -> Iterator[tuple[str, str]]:
    """Table and name of every key there is."""
    for name, field in model.model_fields.items():
        yield table, name
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, Section):
                yield from _keys(part, name)


def _anchored(config: RigConfig, folder: Path) -> RigConfig:
    """The same configuration with its paths made absolute, and a rehearsal's calibrations kept apart."""
    update: dict[str, object] = {"state_dir": folder / config.state_dir.expanduser()}
    microscope = config.microscope
    if isinstance(microscope, RecordedConfig):
        stack = folder / microscope.stack.expanduser()
        update["microscope"] = microscope.model_copy(update={"stack": stack})
    if isinstance(microscope, CoreConfig):
        update["microscope"] = microscope.model_copy(update=_anchored_adapters(microscope, folder))
    if isinstance(microscope, RehearsalConfig):  # what is calibrated on it must never serve a real sample
        name = f"{config.objective.name} (rehearsal)"
        update["objective"] = config.objective.model_copy(update={"name": name})
    if config.server.keys is not None:
        keys = folder / config.server.keys.expanduser()
        update["server"] = config.server.model_copy(update={"keys": keys})
    if config.scorer.weights is not None:
        weights = folder / config.scorer.weights.expanduser()
        update["scorer"] = config.scorer.model_copy(update={"weights": weights})
    return config.model_copy(update=update)


def _anchored_adapters(microscope: CoreConfig, folder: Path) -> dict[str, str]:
    """A configuration file that does not lie beside ours is looked for beside the adapters, by its name."""
    paths = {}
    if (file := folder / Path(microscope.config_file).expanduser()).exists():
        paths["config_file"] = str(file)
    if microscope.adapter_path is not None:
        paths["adapter_path"] = str(folder / Path(microscope.adapter_path).expanduser())
    return paths
