"""The focus map of the slide on the stage, kept on disk like a calibration.

One worker does all that takes time, and few may wait for it: thousands of predictions keep nothing else from its turn.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import anyio
import structlog

from focusd.errors import MapError, RequestError
from focusd.protocol.slide import (
    FocusMapResult,
    MapAdded,
    MapCleared,
    MapOffsets,
    MapPrediction,
    MapPredictions,
)
from focusd.slide.focusmap import FocusMap, Position
from focusd.storage.files import parsed, read_small_text, write_atomically
from focusd.storage.store import file_name, own_name
from focusd.storage.worker import Worker

log = structlog.get_logger(__name__)

Xy = tuple[float, float]

BELONGS = "fingerprint"
"""What of a map's file says which objective and camera it belongs to."""


@dataclass
class _Focus:
    """The last refocus, and the position it was given to: it is true of one place only."""

    z_um: float
    sigma_um: float
    place_um: Xy | None = None


class SlideMap:
    """The map of one rig and objective. A change is on disk before it is answered, or it is not made.

    Args:
        files: the file, which is made with the first change and its folder too, and others that are read where it is
            not there: of earlier versions, which called it otherwise.
        depth_of_field_um: tells it; may raise where it is not known.
        fingerprint: of what it belongs to: a focus measured with another objective or camera lies elsewhere.
    """

    def __init__(
        self,
        *files: Path,
        depth_of_field_um: Callable[[], float],
        fingerprint: Mapping[str, object],
    ) -> None:
        self._path, *self._earlier = files
        self._depth_of_field_um = depth_of_field_um
        self._fingerprint = dict(fingerprint)
        self._worker = Worker("the focus map")
        self._map: FocusMap | None = None
        self._changing = anyio.Lock()
        self._focus: _Focus | None = None

    def focused(self, z_um: float, sigma_um: float) -> None:
        """Remember a refocus for the `add` that follows it."""
        self._focus = _Focus(z_um, sigma_um)

    def forget_focus(self) -> None:
        """A refocus begins: what was found before is no longer what `add` means."""
        self._focus = None

    async def add(
        self, *, x_um: float, y_um: float, z_um: float | None, sigma_um: float | None, channel: str | None
    ) -> MapAdded:
        """Put a focus on the map, in place of one measured there before.

        Args:
            x_um, y_um: where the stage stands.
            z_um, sigma_um: the focus and its uncertainty; None, both: of the last refocus.
            channel: in which it was found; its offset is taken off.

        Raises:
            RequestError: no refocus to take, or the channel is not known; MapError: the disk refuses.
        """
        if z_um is None and sigma_um is None:
            z_um, sigma_um = self._take_focus((x_um, y_um))
        if z_um is None or sigma_um is None:
            raise RequestError("give z_um and sigma_um, or neither to take those of the last refocus")
        position = Position(x_um, y_um, z_um, sigma_um)
        changed = await self._change(lambda present: present.measured(position, channel))
        return MapAdded(**asdict(changed.positions[-1]), positions=len(changed.positions))

    def _take_focus(self, place_um: Xy) -> tuple[float, float]:
        """The last refocus, for this place and, once taken, no other."""
        focus = self._focus
        if focus is None:
            raise RequestError("there is no refocus to add: refocus here first, or give z_um and sigma_um")
        if focus.place_um not in (None, place_um):
            raise RequestError(
                "the last refocus was added at another position: refocus here first, or give z_um and sigma_um"
            )
        focus.place_um = place_um
        return focus.z_um, focus.sigma_um

    async def predict(self, *, positions: list[Xy], channel: str | None, tolerance: float) -> MapPredictions:
        """The focus at positions, whether to trust it, and where a refocus would tell most.

        Args:
            positions: (x, y) of the stage, µm.
            channel: whose offset is added; None: the reference.
            tolerance: how far off an image may be, in depths of field.
        """
        present = await self._read()
        return await self._worker.do(lambda: self._predict(present, positions, channel, tolerance))

    def _predict(
        self, present: FocusMap, positions: list[Xy], channel: str | None, tolerance: float
    ) -> MapPredictions:
        dof_um = self._depth_of_field_um()
        predictions = present.predict(positions, tolerance * dof_um, channel)
        return MapPredictions(
            predictions=[MapPrediction(**asdict(prediction)) for prediction in predictions],
            next=present.next_to_measure(predictions),
            dof_um=dof_um,
        )

    async def get(self) -> FocusMapResult:
        """All positions and offsets, and the surface through them."""
        present = await self._read()
        described = await self._worker.do(present.describe)
        return FocusMapResult(**dict(described), path=str(self._path))

    async def offset(self, *, channel: str, offset_um: float | None) -> MapOffsets:
        """Set what a channel's focus lies above the reference; None forgets it."""
        changed = await self._change(lambda present: present.with_offset(channel, offset_um))
        return MapOffsets(offsets_um=dict(changed.offsets_um))

    async def clear(self) -> MapCleared:
        """Forget all positions, for a new slide; a file that cannot be read is replaced. Offsets stay."""
        async with self._changing:
            try:
                present = await self._read()
            except MapError:
                present = FocusMap()
            await self._write(present.cleared())
        return MapCleared(cleared=len(present.positions))

    async def _change(self, change: Callable[[FocusMap], FocusMap]) -> FocusMap:
        async with self._changing:
            changed = change(await self._read())
            await self._write(changed)
        return changed

    async def _read(self) -> FocusMap:
        if self._map is None:
            loaded = await self._worker.do(self._load)
            self._map = self._map or loaded  # a change may have been made meanwhile
        return self._map

    async def _write(self, changed: FocusMap) -> None:
        await self._worker.do(lambda: _save(self._path, changed.to_json() | {BELONGS: self._fingerprint}))
        self._map = changed

    def _load(self) -> FocusMap:
        path = next((path for path in (self._path, *self._earlier) if path.exists()), self._path)
        if path != self._path:
            log.warning(
                "a focus map of an earlier version is read; clear it if it is of another slide",
                file=str(path),
            )
        values = _values_in(path)
        if values is None:
            return FocusMap()
        if values.get(BELONGS, self._fingerprint) != self._fingerprint:
            raise MapError(
                f"{path}: this focus map belongs to {values[BELONGS]}, not to {self._fingerprint}; put back what it "
                "was made with, or begin a new one with `focusctl map clear`"
            )
        try:
            return FocusMap.from_json(values)
        except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
            raise _unreadable(path, error) from error


def map_files(folder: Path, objective: str) -> tuple[Path, Path]:
    """Where an objective's map is kept, by a name of its own, and where earlier versions kept it."""
    return folder / f"{own_name(objective)}.json", folder / file_name(objective)


def _values_in(path: Path) -> dict[str, Any] | None:
    """What a map's file holds; None: there is none."""
    try:
        values = parsed(read_small_text(path))
        if not isinstance(values, dict):
            raise ValueError("it holds no map")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, error) from error
    return values


def _unreadable(path: Path, error: Exception) -> MapError:
    return MapError(f"{path}: cannot be read as a focus map ({error}); `focusctl map clear` begins a new one")


def _save(path: Path, values: Mapping[str, Any]) -> None:
    try:
        write_atomically(path, json.dumps(values, indent=1, ensure_ascii=False))
    except OSError as error:
        raise MapError(
            f"{path}: the focus map cannot be written ({error.strerror}); check state_dir in the configuration"
        ) from error
