"""The calibrations of the rig as it is: which one searches use, and what else is kept beside it."""

from __future__ import annotations

import numpy as np

from focusd.errors import CalibrationError
from focusd.focus.calibration import Calibration, Fingerprint
from focusd.optics.instrument import Instrument
from focusd.protocol.calibrations import (
    CalibrationRemoved,
    KeptCalibration,
    KeptCalibrations,
    ShownCalibration,
)
from focusd.protocol.results import CalibrationCurve, CalibrationFigures, Curve, StoredCalibration
from focusd.protocol.states import Unusable, Usable
from focusd.storage.store import CalibrationStore, Kept
from focusd.storage.worker import Worker


class Calibrations:
    """The calibrations of one rig and objective. They answer at once, whatever runs.

    Args:
        fingerprint: of the rig; calibrations with another one are kept, and serve no search.
        instrument: None: its optics are not known.
    """

    def __init__(
        self,
        store: CalibrationStore,
        objective: str,
        fingerprint: Fingerprint,
        instrument: Instrument | None,
    ) -> None:
        self._store = store
        self._objective = objective
        self._fingerprint = fingerprint
        self._instrument = instrument
        self._worker = Worker("the calibrations")

    def in_force(self) -> Calibration:
        """The one that searches use. Reads the disk.

        Raises:
            CalibrationError: there is none, or it does not fit the rig as it is.
        """
        calibration = self._store.load(self._objective)
        calibration.check(self._fingerprint)
        return calibration

    def depth_of_field_um(self, calibration: Calibration) -> float:
        """By the formula, or, where NA or magnification is not known, as the calibration tells it."""
        return self._instrument.depth_of_field_um if self._instrument else calibration.axial_unit_um

    def require_room(self) -> None:
        """Find out whether a calibration could be kept. Writes to the disk.

        Raises:
            CalibrationError: the disk refuses.
        """
        self._store.require_room()

    def add(self, calibration: Calibration) -> StoredCalibration:
        """Keep a calibration, and put it in force unless the one in force is plainly better. Writes to the disk.

        Raises:
            CalibrationError: the disk refuses; the one in force stays as it was.
        """
        shortcomings = self._shortcomings(calibration)
        name = self._store.keep(self._objective, calibration).id
        if not shortcomings:
            self._store.use(self._objective, name)
        told = (
            f"it is kept as {name} and is not in force, since the calibration in force is better: "
            f"{'; '.join(shortcomings)}; `focusctl calibrations use {name}` puts it in force all the same"
        )
        return StoredCalibration(
            **dict(self.describe(calibration)),
            id=name,
            path=str(self._store.path(self._objective)),
            in_force=not shortcomings,
            message=told if shortcomings else "",
        )

    def _shortcomings(self, calibration: Calibration) -> list[str]:
        """Against the one in force; none if there is none that fits the rig."""
        try:
            return calibration.shortcomings(self.in_force())
        except CalibrationError:
            return []

    def state(self) -> Usable | Unusable:
        """Whether searches can be made, and with what. Reads the disk."""
        try:
            return Usable(usable=True, **dict(self.figures(self.in_force())))
        except CalibrationError as error:
            return Unusable(usable=False, reason=error.message)

    def figures(self, calibration: Calibration) -> CalibrationFigures:
        """What there is to know of a calibration."""
        return CalibrationFigures(
            objective=self._objective,
            fwhm_um=calibration.fwhm_um,
            range_um=calibration.transfer.z_um[[0, -1]].tolist(),
            origin=calibration.origin,
            r2=calibration.r2,
            dof_um=self.depth_of_field_um(calibration),
        )

    def describe(self, calibration: Calibration) -> CalibrationCurve:
        """The same with the curve itself, to be drawn."""
        fine_um = np.linspace(calibration.min_um, calibration.max_um, 201)
        return CalibrationCurve(
            **dict(self.figures(calibration)),
            curve=Curve(z_um=calibration.z_um.tolist(), b=calibration.b.tolist()),
            profile=Curve(z_um=fine_um.tolist(), b=calibration.profile(fine_um).tolist()),
        )

    async def listed(self) -> KeptCalibrations:
        """All that are kept of this objective, the latest first."""
        return await self._worker.do(self._listed)

    async def show(self, *, id: str) -> ShownCalibration:
        """One of them, with its curve.

        Raises:
            RequestError: there is none of this id.
        """
        return await self._worker.do(self._shown, id)

    async def use(self, *, id: str) -> KeptCalibration:
        """Put one of them in force; the one that was in force is kept.

        Raises:
            RequestError: there is none of this id.
            CalibrationError: it does not fit the rig, or the disk refuses; the one in force stays as it was.
        """
        return await self._worker.do(self._use, id)

    async def remove(self, *, id: str) -> CalibrationRemoved:
        """Remove one of them for good.

        Raises:
            RequestError: there is none of this id, or it is in force.
        """
        await self._worker.do(self._store.remove, self._objective, id)
        return CalibrationRemoved(removed=id)

    def _listed(self) -> KeptCalibrations:
        kept = self._store.all(self._objective)
        return KeptCalibrations(objective=self._objective, calibrations=[self._line(one) for one in kept])

    def _shown(self, name: str) -> ShownCalibration:
        kept = self._store.get(self._objective, name)
        return ShownCalibration(**dict(self._line(kept)) | dict(self.describe(kept.calibration)))

    def _use(self, name: str) -> KeptCalibration:
        self._store.get(self._objective, name).calibration.check(self._fingerprint)
        return self._line(self._store.use(self._objective, name))

    def _line(self, kept: Kept) -> KeptCalibration:
        return KeptCalibration(
            **dict(self.figures(kept.calibration)),
            id=kept.id,
            written=kept.written,
            in_force=kept.id == self._store.id_in_force(self._objective),
            planes=kept.calibration.planes,
            remark=self._remark(kept.calibration),
        )

    def _remark(self, calibration: Calibration) -> str:
        try:
            calibration.check(self._fingerprint)
        except CalibrationError as error:
            return error.message
        return "; ".join(self._shortcomings(calibration))
