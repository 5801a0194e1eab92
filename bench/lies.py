"""Hardware that lies, at the seam where focusd sees hardware: a stage and a camera in front of the simulator.

The stage says where the optics stand and what it reads back; the camera says which image it hands over. An honest one
of each is the base class of the others, so that each lie is only what it changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

import torch

from bench.drifting import Clock
from focusd.config import CameraConfig, ObjectiveConfig
from focusd.errors import HardwareError
from focusd.focus.frame import Frame
from focusd.microscope.simulated import SimulatedMicroscope
from focusd.optics.instrument import Instrument

MOVE_S, EXPOSE_S = 0.1, 0.1
"""What a move with its settling takes on the clock, and an exposure with all that is computed from it."""
SETTLED_S = 60.0
"""After so long a stage creeps no more."""
SHIFT_PX = 40
_DARK = 65535 / 500
"""Counts of the simulated camera's dark pixel."""


class Eye:
    """The simulator, asked for the image at an optical z.

    Attributes:
        focus_um: the truth now; it may drift.
        shift_px: (y, x) by which the sample has moved sideways.
        objective: the one that is turned in.
    """

    focus_um = 0.0
    shift_px = 0, 0

    def __init__(self, inner: SimulatedMicroscope, objective: ObjectiveConfig, camera: CameraConfig) -> None:
        self._inner, self._camera, self.objective = inner, camera, objective
        self._own, self._still = objective, inner.world._scene

    def lay(self, sample: str, seed: int, focus_um: float) -> None:
        """Put another sample on the slide."""
        self._inner.set_scene(sample, seed, 0.0)
        self._still = self._inner.world._scene
        self.focus_um, self.shift_px, self.objective = focus_um, (0, 0), self._own

    def image(self, z_um: float) -> Frame:
        """Expose with the optics at z."""
        world = self._inner.world
        world._scene = replace(self._still, spectrum=self._moved()) if any(self.shift_px) else self._still
        instrument = Instrument.from_config(self.objective, self._camera)
        assert instrument is not None, "the simulator asks for its optics"
        world._instrument = instrument
        self._inner.move_to(z_um - self.focus_um)
        return self._inner.snap()

    def _moved(self) -> torch.Tensor:
        """The object's spectrum, `shift_px` away."""
        height, columns = self._still.spectrum.shape
        y, x = torch.fft.fftfreq(height), torch.fft.rfftfreq(2 * (columns - 1))
        turns = self.shift_px[0] * y[:, None] + self.shift_px[1] * x[None, :]
        return self._still.spectrum * torch.exp(-2j * math.pi * turns)


class Stage:
    """An honest stage."""

    asked_um = 0.0

    def take_over(self, z_um: float, now_s: float) -> None:
        """Stand at a z, after an honest stage."""
        self.asked_um = z_um

    def move(self, z_um: float, now_s: float) -> None:
        """Go to a z."""
        self.asked_um = z_um

    def about_to_expose(self) -> None:
        """Hear that the next exposure begins."""

    def optical_um(self, now_s: float) -> float:
        """Where the optics are."""
        return self.asked_um

    def reads_um(self, now_s: float) -> float:
        """What is read back."""
        return self.asked_um


class Camera:
    """An honest camera."""

    def take_over(self, eye: Eye, z_um: float, before: Frame) -> None:
        """Begin after an honest camera.

        Args:
            before: the last frame of that.
        """

    def show(self, eye: Eye, z_um: float) -> Frame:
        """The frame that is handed over for an exposure with the optics at z."""
        return eye.image(z_um)


@dataclass
class Lie:
    """What is wrong with the hardware; `told` says with which numbers."""

    told: str = ""
    stage: Stage | None = None
    camera: Camera | None = None


class LyingMicroscope:
    """A microscope that is honest until `begin`.

    Attributes:
        asked_um: all z it was sent to.
        exposures: so far.
        camera_name: as calibrations record it.
    """

    def __init__(self, eye: Eye, clock: Clock, start_um: float, camera_name: str) -> None:
        self.camera_name = camera_name
        self.asked_um: list[float] = []
        self.exposures = 0
        self._eye, self._clock = eye, clock
        self._stage, self._camera = Stage(), Camera()
        self._stage.take_over(start_um, clock())
        self._last = eye.image(start_um)

    def begin(self, lie: Lie) -> None:
        """Lie from now on."""
        z_um = self._stage.optical_um(self._clock())
        self._stage, self._camera = lie.stage or self._stage, lie.camera or self._camera
        self._stage.take_over(z_um, self._clock())
        self._camera.take_over(self._eye, z_um, self._last)

    def snap(self) -> Frame:
        """Expose one image."""
        self._stage.about_to_expose()
        self._clock.now_s += EXPOSE_S
        self.exposures += 1
        self._last = self._camera.show(self._eye, self._stage.optical_um(self._clock()))
        return replace(self._last, z_um=self.position_um(), sequence=self.exposures)

    def end_sequence(self) -> None:
        """It never streams."""

    def position_um(self) -> float:
        """What the stage reads back."""
        return self._stage.reads_um(self._clock())

    def move_to(self, z_um: float) -> None:
        """Go to a z."""
        self.asked_um.append(z_um)
        self._stage.move(z_um, self._clock())
        self._clock.now_s += MOVE_S

    def stop(self) -> None:
        """Nothing moves in between."""

    def close(self) -> None:
        """The simulator is used again."""

    def error_um(self, later_s: float = 0.0) -> float:
        """Where the optics are so much later, less where the focus is now."""
        return self._stage.optical_um(self._clock() + later_s) - self._eye.focus_um


# --- stages ---------------------------------------------------------------------------------------------------------


class Scaled(Stage):
    """Moves by a factor of what it is asked, from where it stood at first."""

    def __init__(self, factor: float) -> None:
        self._factor = factor

    def take_over(self, z_um: float, now_s: float) -> None:
        self._start_um = self.asked_um = z_um

    def optical_um(self, now_s: float) -> float:
        return self._start_um + self._factor * (self.asked_um - self._start_um)


class Stuck(Stage):
    """Moves no more after some moves."""

    def __init__(self, after: int) -> None:
        self._left = after

    def take_over(self, z_um: float, now_s: float) -> None:
        self._stays_um = self.asked_um = z_um

    def move(self, z_um: float, now_s: float) -> None:
        self.asked_um = z_um
        self._stays_um = z_um if self._left > 0 else self._stays_um
        self._left -= 1

    def optical_um(self, now_s: float) -> float:
        return self._stays_um


class Creeping(Stage):
    """Goes on after each move, in its direction, or arrives late; the way of an exponential."""

    def __init__(self, by_um: float, tau_s: float, *, arrives: bool) -> None:
        self._by_um, self._tau_s, self._arrives = by_um, tau_s, arrives
        self._since_s, self._direction = -math.inf, 0.0

    def move(self, z_um: float, now_s: float) -> None:
        self._direction = math.copysign(1.0, z_um - self.asked_um) if z_um != self.asked_um else 0.0
        self.asked_um, self._since_s = z_um, now_s

    def optical_um(self, now_s: float) -> float:
        left = math.exp(-max(0.0, now_s - self._since_s) / self._tau_s)
        share = -left if self._arrives else 1.0 - left
        return self.asked_um + self._direction * self._by_um * share


class Loose(Stage):
    """Has backlash, which its encoder does not see."""

    def __init__(self, play_um: float) -> None:
        self._half_um = play_um / 2

    def take_over(self, z_um: float, now_s: float) -> None:
        self._optical_um = self.asked_um = z_um

    def move(self, z_um: float, now_s: float) -> None:
        self.asked_um = z_um
        self._optical_um = min(max(self._optical_um, z_um - self._half_um), z_um + self._half_um)

    def optical_um(self, now_s: float) -> float:
        return self._optical_um


class SlowToRead(Stage):
    """Reads back where it is going, with a lag; the optics are there."""

    def __init__(self, tau_s: float) -> None:
        self._tau_s = tau_s

    def take_over(self, z_um: float, now_s: float) -> None:
        self._from_um = self.asked_um = z_um
        self._since_s = now_s

    def move(self, z_um: float, now_s: float) -> None:
        self._from_um, self._since_s, self.asked_um = self.reads_um(now_s), now_s, z_um

    def reads_um(self, now_s: float) -> float:
        left = math.exp(-(now_s - self._since_s) / self._tau_s)
        return self.asked_um + (self._from_um - self.asked_um) * left


class OneMoveLate(Stage):
    """Goes where the move before sent it."""

    def take_over(self, z_um: float, now_s: float) -> None:
        self._optical_um = self.asked_um = z_um

    def move(self, z_um: float, now_s: float) -> None:
        self._optical_um, self.asked_um = self.asked_um, z_um

    def optical_um(self, now_s: float) -> float:
        return self._optical_um


class Jumping(Stage):
    """Its zero jumps now and then, right before an exposure."""

    def __init__(self, random: Random, share: float) -> None:
        self._random, self._share, self._off_um = random, share, 0.0

    def about_to_expose(self) -> None:
        if self._random.random() < self._share:
            self._off_um += self._random.choice((-1, 1)) * self._random.uniform(2, 8)

    def optical_um(self, now_s: float) -> float:
        return self.asked_um + self._off_um


class Miscounting(Stage):
    """Drops a move now and then, or does it twice."""

    def __init__(self, random: Random, share: float) -> None:
        self._random, self._share = random, share

    def take_over(self, z_um: float, now_s: float) -> None:
        self._optical_um = self.asked_um = z_um

    def move(self, z_um: float, now_s: float) -> None:
        times = self._random.choice((0, 2)) if self._random.random() < self._share else 1
        self._optical_um += times * (z_um - self.asked_um)
        self.asked_um = z_um

    def optical_um(self, now_s: float) -> float:
        return self._optical_um


class Gridded(Stage):
    """Goes to the nearest plane of a coarse grid only."""

    def __init__(self, step_um: float, phase_um: float) -> None:
        self._step_um, self._phase_um = step_um, phase_um

    def optical_um(self, now_s: float) -> float:
        return self._step_um * round((self.asked_um - self._phase_um) / self._step_um) + self._phase_um


class FailingStage(Stage):
    """Fails in one move."""

    def __init__(self, after: int) -> None:
        self._left = after

    def move(self, z_um: float, now_s: float) -> None:
        self._left -= 1
        if self._left == -1:
            raise HardwareError("the stage's controller did not understand a message")
        self.asked_um = z_um


# --- cameras --------------------------------------------------------------------------------------------------------


class Frozen(Camera):
    """Hands over one frame for ever, bit for bit, after some frames.

    Args:
        after: honest frames.
        off_um: where the frame was taken, from where the optics were when the lie began; for `after` 0.
    """

    def __init__(self, after: int, off_um: float = 0.0) -> None:
        self._left, self._off_um = after, off_um

    def take_over(self, eye: Eye, z_um: float, before: Frame) -> None:
        self._kept = eye.image(z_um + self._off_um)

    def show(self, eye: Eye, z_um: float) -> Frame:
        if self._left > 0:
            self._kept = eye.image(z_um)
        self._left -= 1
        return self._kept


class FrozenPlane(Camera):
    """Shows one plane for ever, with new noise in each frame, after some honest frames."""

    def __init__(self, after: int, off_um: float = 0.0) -> None:
        self._left, self._off_um = after, off_um

    def take_over(self, eye: Eye, z_um: float, before: Frame) -> None:
        self._plane_um = z_um + self._off_um

    def show(self, eye: Eye, z_um: float) -> Frame:
        self._plane_um = z_um if self._left > 0 else self._plane_um
        self._left -= 1
        return eye.image(self._plane_um)


class Stale(Camera):
    """Hands over the frame before, or the one before that; always, or now and then.

    Args:
        by: so many frames late.
        share: of the frames that come late.
    """

    def __init__(self, by: int, share: float, random: Random) -> None:
        self._by, self._share, self._random = by, share, random

    def take_over(self, eye: Eye, z_um: float, before: Frame) -> None:
        self._frames = [before] * self._by

    def show(self, eye: Eye, z_um: float) -> Frame:
        self._frames.append(eye.image(z_um))
        late = self._random.random() < self._share
        return self._frames[-1 - self._by] if late else self._frames[-1]


class StalePlane(Camera):
    """Shows the plane of the frame before, with new noise."""

    def take_over(self, eye: Eye, z_um: float, before: Frame) -> None:
        self._plane_um = z_um

    def show(self, eye: Eye, z_um: float) -> Frame:
        plane_um, self._plane_um = self._plane_um, z_um
        return eye.image(plane_um)


class Shifting(Camera):
    """The field moves on with each frame."""

    def __init__(self, y_px: int, x_px: int) -> None:
        self._step_px = y_px, x_px

    def show(self, eye: Eye, z_um: float) -> Frame:
        frame = eye.image(z_um)
        eye.shift_px = eye.shift_px[0] + self._step_px[0], eye.shift_px[1] + self._step_px[1]
        return frame


class Lit(Camera):
    """The light, or the gain, changes from frame to frame."""

    def __init__(self, brightness: Callable[[int], float]) -> None:
        self._brightness, self._count = brightness, 0

    def show(self, eye: Eye, z_um: float) -> Frame:
        frame, factor = eye.image(z_um), self._brightness(self._count)
        self._count += 1
        counts = (frame.pixels - _DARK) * factor + _DARK
        return replace(frame, pixels=counts.round().clip(0, frame.full_scale).astype(frame.pixels.dtype))


class OtherObjective(Camera):
    """Another objective is turned in, parfocal with the calibrated one."""

    def __init__(self, magnification: float, na: float) -> None:
        self._optics = {"magnification": magnification, "na": na}

    def take_over(self, eye: Eye, z_um: float, before: Frame) -> None:
        eye.objective = eye.objective.model_copy(update=self._optics)


class FailingCamera(Camera):
    """Fails in one exposure."""

    def __init__(self, after: int) -> None:
        self._left = after

    def show(self, eye: Eye, z_um: float) -> Frame:
        self._left -= 1
        if self._left == -1:
            raise HardwareError("the camera lost a packet")
        return eye.image(z_um)


# --- the kinds ------------------------------------------------------------------------------------------------------

FACTORS = (0.0, 0.3, 0.5, 0.7, 0.9, 1.1, 1.5, 2.0)
OBJECTIVES = ((10.0, 0.15), (10.0, 0.2), (10.0, 0.45), (5.0, 0.15), (20.0, 0.5), (40.0, 0.75))
"""Magnification and NA of what is turned in instead of 10×/0.3."""


def _scaled(factor: float) -> Callable[[Random], Lie]:
    return lambda _random: Lie(f"by {factor:.2f}", Scaled(factor))


def _stuck(random: Random) -> Lie:
    after = random.choice((1, 1, 2, 3, 4))
    return Lie(f"after {after} moves", Stuck(after))


def _creeping(random: Random, arrives: bool) -> Lie:
    by_um, tau_s = random.uniform(2, 8), 10 ** random.uniform(-0.5, 1.0)
    return Lie(f"{by_um:.1f} µm within {tau_s:.1f} s", Creeping(by_um, tau_s, arrives=arrives))


def _loose(random: Random) -> Lie:
    play_um = random.uniform(2, 5)
    return Lie(f"{play_um:.1f} µm", Loose(play_um))


def _slow_to_read(random: Random) -> Lie:
    tau_s = 10 ** random.uniform(-1.7, -0.3)
    return Lie(f"{tau_s:.2f} s", SlowToRead(tau_s))


def _now_and_then(random: Random, kind: type[Jumping | Miscounting]) -> Lie:
    share = random.uniform(0.2, 0.6)
    return Lie(f"{share:.0%}", kind(random, share))


def _gridded(random: Random) -> Lie:
    phase_um = random.uniform(0, 5)
    return Lie(f"phase {phase_um:.1f} µm", Gridded(5.0, phase_um))


def _frozen(random: Random, kind: type[Frozen | FrozenPlane]) -> Lie:
    """From the start, there or elsewhere, or later."""
    after = random.choice((0, 0, 0, 1, 1, 2, 3))
    off_um = random.choice((0.0, random.uniform(-30, 30)))
    return Lie(f"after {after} frames, {off_um:.1f} µm off", None, kind(after, off_um))


def _stale(random: Random, by: int, share: float = 1.0) -> Lie:
    return Lie(f"by {by}, {share:.0%}", None, Stale(by, share, random))


def _shifting(random: Random) -> Lie:
    turn = random.uniform(0, 2 * math.pi)
    step_px = round(SHIFT_PX * math.sin(turn)), round(SHIFT_PX * math.cos(turn))
    return Lie(f"{step_px} px", None, Shifting(*step_px))


def _flash(random: Random) -> Lie:
    at = random.choice((0, 0, 1, 1, 2))
    return Lie(f"frame {at}", None, Lit(lambda count: 2.5 if count == at else 1.0))


def _fading(_random: Random) -> Lie:
    return Lie("", None, Lit(lambda count: 0.8**count))


def _gain(random: Random) -> Lie:
    at, factor = random.choice((1, 1, 2)), 2 ** (random.choice((-1, 1)) * random.uniform(0.5, 1.3))
    return Lie(f"× {factor:.2f} from frame {at}", None, Lit(lambda count: factor if count >= at else 1.0))


def _other_objective(random: Random) -> Lie:
    magnification, na = random.choice(OBJECTIVES)
    return Lie(f"{magnification:g}×/{na:g}", None, OtherObjective(magnification, na))


def _failing(random: Random) -> Lie:
    after = random.choice((0, 0, 1, 2))
    if random.random() < 0.5:
        return Lie(f"camera, frame {after}", None, FailingCamera(after))
    return Lie(f"stage, move {after}", FailingStage(after))


HONEST = "honest"
KINDS: dict[str, Callable[[Random], Lie]] = {
    HONEST: lambda _random: Lie(),
    "camera frozen": lambda random: _frozen(random, Frozen),
    "camera frozen, new noise": lambda random: _frozen(random, FrozenPlane),
    "the frame before": lambda random: _stale(random, 1),
    "the frame before the last": lambda random: _stale(random, 2),
    "the frame before, at times": lambda random: _stale(random, 1, random.uniform(0.2, 0.6)),
    "the plane before, new noise": lambda _random: Lie("", None, StalePlane()),
    **{f"stage moves × {factor:g}": _scaled(factor) for factor in FACTORS},
    "stage moves × any": lambda random: _scaled(random.uniform(0, 2.5))(random),
    "stage sticks": _stuck,
    "stage creeps on": lambda random: _creeping(random, False),
    "stage arrives late": lambda random: _creeping(random, True),
    "stage one move late": lambda _random: Lie("", OneMoveLate()),
    "backlash": _loose,
    "read-back lags": _slow_to_read,
    "zero jumps": lambda random: _now_and_then(random, Jumping),
    "moves dropped or doubled": lambda random: _now_and_then(random, Miscounting),
    "z on a grid of 5 µm": _gridded,
    "another objective": _other_objective,
    "field shifts": _shifting,
    "lamp flashes": _flash,
    "lamp fades": _fading,
    "gain changes": _gain,
    "one hardware error": _failing,
}
"""What can be wrong; the numbers of each are drawn anew for every run."""
