"""What a refocus, a calibration, a move and a score answer. z in µm, axes (y, x)."""

import operator
from typing import Annotated, Literal

from pydantic import Field

from focusd.protocol.model import Known, Result, if_any

Grid = list[list[Known]]
"""(rows, columns) of the blocks of a field; None where a block does not count."""
Ends = Annotated[list[float], Field(min_length=2, max_length=2)]
"""The lowest and the highest."""
Shape = Literal["flat", "tilted", "stepped", "thick", "unknown"]


class Started(Result):
    """The answer of a long method that is not waited for, and what all of them answer at their end."""

    job_id: str = Field(default="", exclude_if=operator.not_)
    """Of the job: `job.status` tells its end, `job.cancel` asks for it. Left out of the result inside a job."""


class Probe(Result):
    """One exposure in the numbers that a person reads: medians over the tiles of the field."""

    z_um: float
    b: Known
    """Score: magnitude of the Zernike focus coefficient; None: no tile was scored."""
    sigma: Known
    """Standard uncertainty of the score."""
    structure: Known
    """Probability that a tile shows structure."""


class Progress(Probe):
    """An exposure has been scored."""

    run: str | None = if_any
    """The run that a client drives."""
    exposure: int
    """Its number in the operation, from 1."""
    of: int
    """Exposures that the operation may take."""


class SecondsByStage(Result):
    """Where an operation's time went, seconds; exposing, moving and scoring may overlap."""

    exposing: float
    moving: float
    scoring: float
    waiting: float
    """What no other stage accounts for."""


class Exposed(Result):
    """What a run has cost. The `data` of an error that ended one holds the same."""

    exposures: int
    """Exposures that were scored."""


class Lit(Exposed):
    """What one search or several have cost."""

    dose_ms: float
    """Time for which the sample was exposed in all."""
    seconds: float


class Spent(Lit):
    """What a refocus has cost. The `data` of an error that ended one holds the same."""

    seconds_by_stage: SecondsByStage | None = if_any
    """Left out where the client has moved and exposed."""
    probes: list[Probe]
    """Every exposure, in order."""


class FieldPlane(Result):
    """The plane through the blocks that count; None where they do not tell."""

    z_um: Known
    """At (y_px, x_px); where a slope is not known, that of the blocks."""
    sigma_um: Known
    y_px: Known
    """Middle of the field."""
    x_px: Known
    height_px: float
    """Height of the field, over which the focus changes by `tip_um`."""
    width_px: float
    """Width of the field, over which the focus changes by `tilt_um`."""
    tip_um: Known
    """Change of the focus from the first row of the field to the last."""
    tip_sigma_um: Known
    tilt_um: Known
    """Change of the focus from the first column of the field to the last."""
    tilt_sigma_um: Known
    tip_mrad: Known
    """The same as an angle in the sample."""
    tilt_mrad: Known
    residual_um: Known
    """RMS distance of the blocks from the plane, outliers left out."""


class FieldGeometry(Result):
    """Where each block of the field is in focus, and the shape of the field."""

    focus_um: Grid
    """z at which a block is in focus."""
    sigma_um: Grid
    """Standard uncertainty of it."""
    y_px: Grid
    """Centres of the blocks."""
    x_px: Grid
    plane: FieldPlane
    mean_um: Known
    """Average over the whole field, of the paraboloid through the blocks."""
    mean_sigma_um: Known = None
    """Standard uncertainty of it."""
    median_um: Known
    median_sigma_um: Known
    nearest_um: Known
    """Focus of the surface nearest to the objective."""
    nearest_sigma_um: Known
    sharpest_um: Known = None
    """The plane at which most of the field is sharp."""
    sharpest_sigma_um: Known = None
    spread_um: Known = None
    """Half the range of the middle 68 % of the blocks' focus, beyond their own uncertainty; None: too few blocks
    count."""
    depths_um: list[float] = Field(default_factory=list)
    """z below which 5, 25, 50, 75 and 95 % of the sample are in focus, over the field and along z within each block;
    empty: too few blocks count."""
    shape: Shape
    """Flat: all of the field is sharp at once; stepped: two surfaces; thick: the sample surely extends over more than
    the depth of field along z, or the focus of the blocks follows neither a plane nor a step."""
    reason: str
    """The shape in words."""
    block_px: float
    """Side of a block; blocks overlap."""
    pixel_um: float | None
    """A pixel in the sample; None: it is not known."""


class RefocusResult(Started, Spent):
    """The sample is in focus, and the stage stands there."""

    outcome: Literal["focused"]
    message: str
    """What a user should know of the field or the rig; empty: nothing."""
    z_start_um: float
    """Where the stage stood before."""
    focus_um: float
    """The focus that was decided on."""
    z_found_um: float
    """Where the stage stands now, read back."""
    shift_um: float
    """From `z_start_um` to `z_found_um`."""
    sigma_um: float
    """Standard uncertainty of the focus."""
    geometry: FieldGeometry
    """How the focus runs over the field."""
    strategy: str
    dof_um: float
    """Depth of field, which errors of the focus are measured in."""
    thickness_um: float = 0.0
    """How far the sample extends along z within a block of the field, most probably; 0: it is thin as far as the image
    tells. `geometry.shape` is `thick` where this surely exceeds the depth of field (95 %)."""
    share_in_focus: Known = None
    """Share of the sample, 0 to 1, over the field and along z, that lies within half a depth of field of `focus_um`;
    None: too few blocks count."""


class CalibrationFigures(Result):
    """What there is to know of a calibration."""

    objective: str
    fwhm_um: float
    """Width of the score's curve at half its depth."""
    range_um: Ends
    """Defocus of the first and the last plane."""
    origin: str
    """How the focus was found in the stack: `pupil` or `sharpest`."""
    r2: float
    """Of the curve's fit."""
    dof_um: float
    """Depth of field."""


class Curve(Result):
    """Score against defocus."""

    z_um: list[float]
    b: list[float]


class CalibrationCurve(CalibrationFigures):
    """The same with the curve itself, to be drawn."""

    curve: Curve
    """As measured."""
    profile: Curve
    """The fit."""


class StoredCalibration(CalibrationCurve):
    """What has become of a new calibration."""

    id: str
    """By which `calibrations.show`, `use` and `remove` know it."""
    path: str
    """The file of the objective's calibrations, on the daemon's disk."""
    in_force: bool
    """Whether searches use it from now on; `message` says why they do not."""
    message: str


class CalibrationResult(Started, StoredCalibration):
    """The calibration stack was taken, and its calibration is kept; the stage stands where it stood before."""

    planes: int
    """Planes of the stack."""
    exposures: int
    """Exposures in all, those that looked for structure before the stack included."""
    z_focus_um: float
    """The focus of the stack."""


class MoveResult(Started):
    """The stage stands at the z that was asked for."""

    z_start_um: float
    z_um: float
    """Read back."""


class BacklashResult(Started, Lit):
    """The backlash of the stage is known as well as the frames tell it; the stage stands where it stood before."""

    backlash_um: float
    """How much higher the focus reads with planes approached from below than from above."""
    sigma_um: float
    """Standard uncertainty of it."""
    differences_um: list[float]
    """The same, of each round."""
    advised_um: float
    """What `stage.backlash_um` should be; 0: no backlash could be seen."""
    message: str
    """What to do."""


ScoreOutcome = Literal["scored", "no_sample", "saturated"]


class Score(Result):
    """The scores of a frame that the client has exposed."""

    outcome: ScoreOutcome
    b: float | None
    """Mean score of the tiles that show structure; None: no tile does, or the frame is saturated."""
    sigma: Known
    """Median uncertainty of a tile's score."""
    structure: Known
    """Median probability that a tile shows structure."""
    sharpness: float
    """A gradient's energy: comparable between frames of one field only."""
    tracked: bool
    """Whether a hold has learnt from it."""


class Scores(Result):
    """One score for each frame, in their order."""

    scores: list[Score]


class RunAnswer(Result):
    """Which planes a run that a client drives wants exposed next, or its end."""

    run: str
    """By which `focus.tell` and `focus.drop` know it."""
    expose_um: list[float]
    """In this order; empty at the end."""
    result: RefocusResult | CalibrationResult | None
    """None: the run goes on."""


class RunDropped(Result):
    """The run is given up."""

    dropped: bool
    """False: there was none."""
