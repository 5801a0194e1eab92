"""What pymmcore-plus 0.18 leaves out: a correction of z that a refocus has found holds in hardware sequences too.

Its engine adds the correction to single events alone; a z-stack that the hardware steps through was exposed where the
plan had it before the refocus.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pymmcore_plus.core import SequencedEvent
from pymmcore_plus.mda import MDAEngine, PMDAEngine

SAME_UM = 1e-9


class CorrectedEngine(MDAEngine):
    """An engine whose corrections of z hold in hardware sequences too."""

    def setup_sequenced_event(self, event: SequencedEvent) -> None:
        """Set the hardware up for a sequence, its planes corrected.

        Raises:
            RuntimeError: the sequence changes position at a constant z, where the corrections differ.
        """
        super().setup_sequenced_event(corrected(event, self._z_correction))


def corrected(event: SequencedEvent, corrections_um: dict[int | None, float]) -> SequencedEvent:
    """Return the sequence with its planes where the corrections have them.

    Args:
        corrections_um: by the position's index in the plan.

    Raises:
        RuntimeError: it cannot be had: z is constant in the hardware's sequence, and the corrections are not.
    """
    shifts_um = [corrections_um.get(each.index.get("p"), 0.0) for each in event.events]
    if event.z_sequence:
        planes_um = tuple(z + shift for z, shift in zip(event.z_sequence, shifts_um, strict=True))
        return event.model_copy(update={"z_sequence": planes_um})
    if event.z_pos is None:
        return event
    if max(shifts_um) - min(shifts_um) > SAME_UM:
        raise RuntimeError(
            "the positions of this hardware sequence have different foci, and its z stage does not step: use an "
            "engine with use_hardware_sequencing=False, or a plan in which z changes fastest"
        )
    # The engine adds the correction of the index that the event has, which for a sequence is none.
    return event.model_copy(update={"index": event.events[0].index})


@contextmanager
def corrections_in_sequences(engine: PMDAEngine | None) -> Iterator[None]:
    """Inside the `with`, an engine of pymmcore-plus corrects hardware sequences too; others do as they do."""
    if not isinstance(engine, MDAEngine) or isinstance(engine, CorrectedEngine):
        yield
        return
    before = type(engine)
    engine.__class__ = type(before.__name__, (CorrectedEngine, before), {})
    try:
        yield
    finally:
        engine.__class__ = before
