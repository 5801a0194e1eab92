"""Calibrations on disk, as readable JSON: the one in force of each objective, and a history of all that were taken.

Each file is written whole or not at all. A calibration is in the history before it is put in force, and the one that
was in force is there before it is replaced: whatever happens in between, the one in force stays as it was.
"""

from __future__ import annotations

import hashlib
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from focusd.errors import CalibrationError, RequestError
from focusd.focus.calibration import Calibration
from focusd.storage.files import read_small_text, sealed, set_aside, unsealed, write_atomically
from focusd.storage.written import calibration_from_json, calibration_to_json

ROOM_BYTES = 1 << 20
"""More than a calibration takes on disk, but one of a large camera with a pattern of its own."""
HISTORY = 20
"""Calibrations of an objective that are kept; when there are more, the oldest ones go, but not the one in force."""
_NO_CALIBRATION = (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""What reading something else raises."""
_LONGEST_NAME = 60


def file_name(objective: str) -> str:
    """What is kept for an objective is called this; objectives whose names differ in signs alone share it."""
    return f"{_slug(objective)}.json"


def own_name(objective: str) -> str:
    """A name for files, of this objective alone, on any file system."""
    return f"{_slug(objective)[:_LONGEST_NAME]}-{_digest(objective)}"


def _slug(objective: str) -> str:
    return "".join(c if c.isalnum() or c in "-." else "_" for c in objective)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


_Stamp = tuple[int, int, int]


@dataclass(frozen=True)
class Kept:
    """A calibration as it lies on disk.

    Attributes:
        id: the beginning of its checksum.
        written: when it was taken, ISO 8601, UTC.
    """

    id: str
    written: str
    calibration: Calibration
    text: str

    @classmethod
    def of(cls, text: str) -> Kept:
        """A file's content.

        Raises:
            ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError: it is no calibration.
        """
        values = unsealed(text)
        return cls(_digest(text), str(values.get("written", "")), calibration_from_json(values), text)

    @property
    def file_name(self) -> str:
        """In the history, where names sort by age."""
        moment = "".join(c for c in self.written if c.isalnum() and c.isascii())
        return f"{moment[:24]}-{self.id}.json"


class CalibrationStore:
    """The calibrations of one rig. Safe from any thread.

    Args:
        folder: created when the first calibration is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, tuple[_Stamp, Kept]] = {}
        """The last of each file, good as long as its stamp is: every status and every refocus asks for it."""
        self._changing = threading.RLock()

    def path(self, objective: str) -> Path:
        """Where an objective's calibration in force is written."""
        return self._folder / f"{own_name(objective)}.json"

    def history(self, objective: str) -> Path:
        """The folder of all its calibrations."""
        return self._folder / own_name(objective)

    def require_room(self) -> None:
        """Find out, before light is spent, whether a calibration could be written.

        Raises:
            CalibrationError: the disk refuses.
        """
        trial = self._folder / "room"
        self._write(trial, " " * ROOM_BYTES)
        trial.unlink(missing_ok=True)

    def load(self, objective: str) -> Calibration:
        """The objective's calibration in force.

        Raises:
            CalibrationError: there is none, or it cannot be read.
        """
        return self.in_force(objective).calibration

    def exists(self, objective: str) -> bool:
        """Whether there is one, whatever is in it."""
        return self._place(objective).exists()

    def in_force(self, objective: str) -> Kept:
        """The same, as it lies on disk.

        Raises:
            CalibrationError: as for `load`.
        """
        try:
            return self._kept(self._place(objective))
        except FileNotFoundError as error:
            raise CalibrationError(
                f"the objective {objective!r} has no calibration; focus by eye, then run `focusctl calibrate`"
            ) from error

    def id_in_force(self, objective: str) -> str | None:
        """The id of the one in force; None: there is none that can be read."""
        try:
            return self.in_force(objective).id
        except CalibrationError:
            return None

    def save(self, objective: str, calibration: Calibration) -> Path:
        """Keep a calibration and put it in force; returns the file of the one in force.

        Raises:
            CalibrationError: the disk refuses; the one in force is as it was.
        """
        self.use(objective, self.keep(objective, calibration).id)
        return self.path(objective)

    def keep(self, objective: str, calibration: Calibration) -> Kept:
        """Put a calibration into the history. It is not in force by that.

        Raises:
            CalibrationError: the disk refuses.
        """
        kept = Kept.of(sealed(calibration_to_json(calibration)))
        with self._changing:
            self._write(self.history(objective) / kept.file_name, kept.text)
            self._forget_oldest(objective, kept.id)
        return kept

    def use(self, objective: str, name: str) -> Kept:
        """Put a calibration in force; the one that was in force is kept.

        Raises:
            RequestError: there is none of this id.
            CalibrationError: it cannot be read, or the disk refuses; the one in force is as it was.
        """
        with self._changing:
            chosen, place = self.get(objective, name), self._place(objective)
            self._back_up(objective, place)
            self._write(self.path(objective), chosen.text)
            if place != self.path(objective):
                place.unlink(missing_ok=True)
        return chosen

    def remove(self, objective: str, name: str) -> None:
        """Remove a calibration for good.

        Raises:
            RequestError: there is none of this id, or it is in force.
            CalibrationError: the disk refuses.
        """
        with self._changing:
            if self.get(objective, name).id == self.id_in_force(objective):
                raise RequestError(
                    f"{name} is in force and cannot be removed: put another one in force first, with "
                    "`focusctl calibrations use ID`"
                )
            try:
                (self.history(objective) / self.get(objective, name).file_name).unlink()
            except OSError as error:
                raise CalibrationError(f"{name} cannot be removed: {error.strerror}") from error

    def all(self, objective: str) -> list[Kept]:
        """All that are kept of an objective, the latest first. Files that cannot be read are set aside."""
        found = {}
        for file in (*self.history(objective).glob("*.json"), self._place(objective)):
            with suppress(FileNotFoundError, CalibrationError):
                kept = self._kept(file)
                found[kept.id] = kept
        return sorted(found.values(), key=lambda kept: kept.written, reverse=True)

    def get(self, objective: str, name: str) -> Kept:
        """One of them.

        Raises:
            RequestError: there is none of this id.
        """
        for kept in self.all(objective):
            if kept.id == name:
                return kept
        raise RequestError(
            f"there is no calibration {name!r} of the objective {objective!r}; `focusctl calibrations` lists them"
        )

    def _place(self, objective: str) -> Path:
        """Where the one in force lies: an earlier focusd gave it a name that other objectives may share."""
        path, earlier = self.path(objective), self._folder / file_name(objective)
        if not path.exists() and earlier.exists() and self._may_belong(earlier, objective):
            return earlier
        return path

    def _may_belong(self, file: Path, objective: str) -> bool:
        """Whether an earlier focusd wrote a file for this objective; of one that nobody can read, whoever asks."""
        try:
            kept = self._cached(file)
        except (OSError, *_NO_CALIBRATION):
            return True
        return kept.calibration.fingerprint.get("objective", objective) == objective

    def _back_up(self, objective: str, place: Path) -> None:
        """Have the one in force in the history; one that cannot be read has been set aside and is no loss."""
        try:
            kept = self._kept(place)
        except FileNotFoundError:
            return
        except CalibrationError:
            if place.exists():
                raise
            return
        file = self.history(objective) / kept.file_name
        if not file.exists():
            self._write(file, kept.text)

    def _forget_oldest(self, objective: str, newest: str) -> None:
        spared = {newest, self.id_in_force(objective)}
        files = sorted(self.history(objective).glob("*.json"), reverse=True)
        for file in files[HISTORY:]:
            if file.stem.rpartition("-")[2] not in spared:
                self._read.pop(file, None)
                with suppress(OSError):
                    file.unlink()

    def _write(self, path: Path, text: str) -> None:
        try:
            write_atomically(path, text)
        except OSError as error:
            raise CalibrationError(
                f"{path}: the calibration cannot be written ({error.strerror}); the one in force stays as it was; "
                "make room, or check state_dir in the configuration"
            ) from error

    def _kept(self, path: Path) -> Kept:
        """Read a file.

        Raises:
            FileNotFoundError: there is none; CalibrationError: it cannot be read.
        """
        try:
            return self._cached(path)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise CalibrationError(
                f"{path}: cannot be read: {error.strerror}; check state_dir, or calibrate anew"
            ) from error
        except _NO_CALIBRATION as error:
            raise CalibrationError(
                f"{path}: cannot be read as a calibration ({error}) and was set aside as "
                f"{set_aside(path, error).name}; put an earlier one in force with `focusctl calibrations use ID`, "
                "or calibrate anew"
            ) from error

    def _cached(self, path: Path) -> Kept:
        stamp = _stamp(path)
        if self._read.get(path, (None,))[0] != stamp:
            self._read[path] = stamp, Kept.of(read_small_text(path))
        return self._read[path][1]


def _stamp(path: Path) -> _Stamp:
    """What another content of a file changes."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_size
