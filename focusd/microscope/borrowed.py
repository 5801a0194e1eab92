"""The microscope of a program that has opened it: its camera is borrowed for an operation, and given back as it was."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from pymmcore_plus import CMMCorePlus

from focusd.config import CameraConfig, EmbeddedConfig, StageConfig
from focusd.errors import BusyError, ConfigError, HardwareError
from focusd.focus.frame import Frame
from focusd.microscope.micromanager import (
    MicroManagerMicroscope,
    binning_value,
    reported,
    require_direction,
)

_SAME_MS = 1e-3
"""Exposures that differ by less are the same: cameras round them."""

Setting = tuple[str, str, str]
"""Device, property and value."""


class BorrowedMicroscope(MicroManagerMicroscope):
    """The current camera and focus device of another program's core.

    The first exposure of an operation borrows exposure time, binning, region, channel, shutter and live mode;
    `end_sequence` gives back what was changed, in the reverse order. A move alone borrows nothing. Nothing of the core
    is unloaded, and no setting of it changes outside an operation.

    Args:
        keeps_its_frames: whether the camera streams frames that the program wants to keep.
    """

    def __init__(
        self,
        core: CMMCorePlus,
        camera: CameraConfig,
        stage: StageConfig,
        embedded: EmbeddedConfig,
        keeps_its_frames: Callable[[], bool],
    ) -> None:
        self._camera = camera
        self._keeps_its_frames = keeps_its_frames
        self._lent: ExitStack | None = None
        super().__init__(core, camera, stage)
        self._channel = _preset(core, embedded, self._stage)

    def _set_up(self, camera: CameraConfig, stage: StageConfig) -> None:
        """Check that the camera can be set up as configured; nothing is set."""
        with reported("look at the camera"):
            self._binning = binning_value(self._core, self.camera_name, camera.binning)
            self._exposure_ms = camera.exposure_ms
            require_direction(self._core.getFocusDirection(self._stage), stage)

    def snap(self) -> Frame:
        """Expose one image where the stage stands; the first one borrows the camera.

        Raises:
            BusyError: the program streams frames that it keeps, or its own autofocus holds the stage.
            HardwareError: the camera failed.
            ConfigError: its pixels are of a kind that focusd cannot use.
        """
        if self._lent is None:
            self._borrow()
        return super().snap()

    def end_sequence(self) -> None:
        """End a stream of our own, and give back what was borrowed.

        Raises:
            HardwareError: a device failed; the others have been given back all the same.
        """
        lent, self._lent = self._lent, None
        if lent is not None:
            with reported("give the camera back"), lent:
                super().end_sequence()

    def close(self) -> None:
        """Give back what is borrowed; nothing is unloaded. May be called twice."""
        self.closed = True
        self.end_sequence()

    def _borrow(self) -> None:
        with reported("borrow the camera"), ExitStack() as lent:
            self._require_free()
            self._stop_live_mode(lent)
            self._light_by_exposures(lent)
            for setting in self._channel:
                self._set(lent, *setting)
            self._show_the_whole_field(lent)
            if self._binning is not None:
                self._set(lent, self.camera_name, "Binning", self._binning)
            self._set_exposure(lent)
            self._lent = lent.pop_all()

    def _require_free(self) -> None:
        if self._core.isContinuousFocusEnabled():
            raise BusyError(
                f"the autofocus device {self._core.getAutoFocusDevice()!r} holds the stage: switch its continuous "
                "focus off before focusd is to focus"
            )

    def _stop_live_mode(self, lent: ExitStack) -> None:
        if not self._core.isSequenceRunning():
            return
        if self._keeps_its_frames():
            raise BusyError("the program records a sequence of frames; ask again when it has ended")
        self._core.stopSequenceAcquisition()
        lent.callback(self._core.startContinuousSequenceAcquisition, 0)

    def _light_by_exposures(self, lent: ExitStack) -> None:
        """Let each exposure open the shutter, and nothing else."""
        shutter, automatic = self._core.getShutterDevice(), self._core.getAutoShutter()
        if not shutter or automatic:
            return
        if self._core.getShutterOpen(shutter):
            lent.callback(self._core.setShutterOpen, shutter, True)
        self._core.setAutoShutter(True)
        lent.callback(self._core.setAutoShutter, False)

    def _set(self, lent: ExitStack, device: str, name: str, value: str) -> None:
        before = self._core.getProperty(device, name)
        if str(before) == value:
            return
        lent.callback(self._restore, device, name, before)
        self._core.setProperty(device, name, value)
        self._wait_for(device)

    def _restore(self, device: str, name: str, value: str | float) -> None:
        try:
            self._core.setProperty(device, name, value)
        except ValueError:  # Python devices may give numbers, and take texts alone
            self._core.setProperty(device, name, str(value))
        self._wait_for(device)

    def _wait_for(self, device: str) -> None:
        if device != "Core":
            self._core.waitForDevice(device)

    def _show_the_whole_field(self, lent: ExitStack) -> None:
        """The region is set again after the binning, which some cameras answer with a region of their own."""
        region = tuple(self._core.getROI())
        lent.callback(self._restore_region, region)
        self._core.clearROI()

    def _restore_region(self, region: tuple[int, ...]) -> None:
        if tuple(self._core.getROI()) != region:
            x, y, width, height = region
            self._core.setROI(x, y, width, height)

    def _set_exposure(self, lent: ExitStack) -> None:
        before_ms = float(self._core.getExposure(self.camera_name))
        if abs(before_ms - self._camera.exposure_ms) > _SAME_MS:
            lent.callback(self._core.setExposure, self.camera_name, before_ms)
            self._core.setExposure(self.camera_name, self._camera.exposure_ms)
        self._exposure_ms = float(self._core.getExposure(self.camera_name))


def _preset(core: CMMCorePlus, embedded: EmbeddedConfig, stage: str) -> tuple[Setting, ...]:
    """Return the settings of the channel to focus in, none where it is the program's own.

    Raises:
        ConfigError: there is no such preset, or it moves the stage.
    """
    if embedded.channel is None:
        return ()
    group = embedded.channel_group or core.getChannelGroup()
    if not core.isConfigDefined(group, embedded.channel):
        offered = (
            ", ".join(core.getAvailableConfigs(group)) if group in core.getAvailableConfigGroups() else ""
        )
        raise ConfigError(
            f"microscope.channel: the group {group!r} has no preset {embedded.channel!r}; it has {offered or 'none'}"
        )
    settings = tuple(
        (device, name, value) for device, name, value in core.getConfigData(group, embedded.channel)
    )
    if any(device == stage for device, _, _ in settings):
        raise ConfigError(
            f"microscope.channel: the preset {embedded.channel!r} moves the stage {stage!r}, which only focusd's "
            "guard may do while it focuses: choose a preset without it"
        )
    return settings


def within_limits_of(core: CMMCorePlus, limits: StageConfig) -> StageConfig:
    """Return the limits, narrowed to those that the core's own stage has.

    Raises:
        ConfigError: nothing is left.
        HardwareError: the stage does not say.
    """
    stage = core.getFocusDevice()
    if not stage or not core.hasProperty(stage, "Position"):
        return limits
    try:
        if not core.hasPropertyLimits(stage, "Position"):
            return limits
        low_um = max(limits.min_um, core.getPropertyLowerLimit(stage, "Position"))
        high_um = min(limits.max_um, core.getPropertyUpperLimit(stage, "Position"))
    except Exception as error:
        raise HardwareError(f"the stage {stage!r} does not say its limits: {error}") from error
    if low_um >= high_um:
        raise ConfigError(
            f"stage: {limits.min_um:g} … {limits.max_um:g} µm has nothing in common with the limits of {stage!r} itself"
        )
    return limits.model_copy(update={"min_um": low_um, "max_um": high_um})
