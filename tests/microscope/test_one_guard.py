"""One guard is the only way to move z: by what the sources say, however a variable is called, and by what runs."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import anyio
import pytest

from focusd.daemon.operations import RigOperations
from focusd.errors import CancelledJobError
from focusd.microscope.guard import GuardedStage
from focusd.protocol.requests import BacklashParams, CalibrateParams, MoveParams, RefocusParams
from tests.daemon.scripted import (
    Reports,
    ScriptedMicroscope,
    ScriptedScorer,
    at,
    calibrate_at_focus,
    config_of,
    operations_of,
)

SOURCES = Path(__file__).parents[2] / "focusd"
NATIVE = {"setPosition", "setRelativePosition", "setXYPosition", "setRelativeXYPosition"}
PASSED_ON = "embedded/core.py"
"""Its methods are the core's own: what the program asks of its core goes on to it."""
NEVER = {"home", "setOrigin", "setRelativeOrigin", "fullFocus", "incrementalFocus", "setAdapterOrigin"}


def named(node: ast.expr | None) -> str:
    """A name or a dotted path such as `self._microscope`; empty for anything else."""
    return ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""


def is_microscope(annotation: ast.expr | None) -> bool:
    return annotation is not None and "Microscope" in ast.unparse(annotation)


def is_opened(value: ast.expr | None) -> bool:
    """What a microscope's class or an `open_…` returns."""
    called = named(value.func).split(".")[-1] if isinstance(value, ast.Call) else ""
    return called.endswith("Microscope") or called in ("open_microscope", "open_micromanager", "take_over")


def microscopes(tree: ast.AST) -> set[str]:
    """All that a file calls a microscope: by annotation, by where it comes from, and what is assigned from those."""
    nodes = list(ast.walk(tree))
    known = {node.arg for node in nodes if isinstance(node, ast.arg) and is_microscope(node.annotation)}
    known |= {
        named(node.target)
        for node in nodes
        if isinstance(node, ast.AnnAssign) and is_microscope(node.annotation)
    }
    assigned = [
        (named(target), node.value)
        for node in nodes
        if isinstance(node, ast.Assign)
        for target in node.targets
        if named(target)
    ]
    known |= {target for target, value in assigned if is_opened(value)}
    while more := {target for target, value in assigned if named(value) in known} - known:
        known |= more
    return known


def movers(source: str) -> Iterator[str]:
    """Every place that takes a microscope's `move_to`, called or not, or asks for it by its name."""
    tree = ast.parse(source)
    known = microscopes(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "move_to" and named(node.value) in known:
            yield ast.unparse(node)
        if isinstance(node, ast.Constant) and node.value == "move_to":
            yield repr(node.value)


def sources() -> dict[str, str]:
    return {
        path.relative_to(SOURCES).as_posix(): path.read_text(encoding="utf-8")
        for path in SOURCES.rglob("*.py")
    }


def users(attributes: set[str]) -> set[str]:
    """The files in which one of these is taken from anything."""
    return {
        file
        for file, source in sources().items()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute) and node.attr in attributes
    }


def test_only_the_guard_takes_a_microscope_s_move_to() -> None:
    assert {file for file, source in sources().items() if list(movers(source))} == {"microscope/guard.py"}


def test_only_the_micromanager_microscope_moves_a_native_stage_and_nothing_homes_one() -> None:
    assert users(NATIVE) == {"microscope/micromanager.py"}
    assert users(NEVER) == {PASSED_ON}


def test_a_core_with_focusd_attached_passes_the_program_s_own_calls_on_and_makes_none() -> None:
    tree = ast.parse(sources()[PASSED_ON])
    uses = [
        node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in NEVER | NATIVE
    ]
    assert {ast.unparse(node.value) for node in uses} == {"super()"}


@pytest.mark.parametrize(
    "sly",
    [
        "def f(scope: Microscope) -> None:\n    scope.move_to(3)",
        "def f(eye: Microscope | None) -> None:\n    go = eye.move_to\n    go(3)",
        "class A:\n    def a(self, m: Microscope):\n        self.m = m\n    def b(self):\n        self.m.move_to(3)\n",
        "x = open_microscope(config)\ny = x\ny.move_to(3)",
        "stage = factory.open_microscope(config)\nstage.move_to(3)",
        "m: MicroManagerMicroscope = take()\nm.move_to(3)",
        "def f(x):\n    getattr(x, 'move_to')(3)",
    ],
)
def test_whatever_it_is_called_a_way_past_the_guard_is_seen(sly: str) -> None:
    assert list(movers(sly))


class GuardedMicroscope(ScriptedMicroscope):
    """Refuses every move that no `GuardedStage` has asked for.

    Attributes:
        past_the_guard: such moves.
    """

    def __init__(self) -> None:
        super().__init__()
        self.past_the_guard: list[float] = []

    def move_to(self, z_um: float) -> None:
        frame: FrameType | None = sys._getframe(1)
        while frame and not isinstance(frame.f_locals.get("self"), GuardedStage):
            frame = frame.f_back
        if frame is None:
            self.past_the_guard.append(z_um)
            raise AssertionError(f"moved to {z_um} µm past the guard")
        super().move_to(z_um)


OPERATIONS = {"calibrate", "refocus", "move", "backlash", "score", "state", "depth_of_field_um", "fault"} | {
    "z_um",
    "require_hardware",
    "found_by_client",
}
"""All of them; one that is new has to be tried below, and named here. The last two only refuse and remember."""


def test_all_operations_are_known() -> None:
    assert {name for name in vars(RigOperations) if not name.startswith("_")} == OPERATIONS


@pytest.mark.anyio
async def test_every_operation_moves_through_the_guard_and_comes_home_through_it(tmp_path: Path) -> None:
    microscope, scorer = GuardedMicroscope(), ScriptedScorer()
    async with operations_of(config_of(tmp_path), microscope, scorer) as operations:
        await operations.move(MoveParams(z_um=3.0), Reports())
        await calibrate_at_focus(operations)
        scorer.focus_um = 20.0
        for strategy in ("posterior", "published"):
            await operations.refocus(RefocusParams(strategy=strategy), Reports())
        await operations.backlash(BacklashParams(repeats=2), Reports())
        there = len(microscope.moves)
        with anyio.CancelScope() as scope:
            cancelling = Reports(at_progress=at(5, scope.cancel))
            with pytest.raises(CancelledJobError):
                await operations.calibrate(CalibrateParams(), cancelling)
        assert len(microscope.moves) > there + 5, "it moved, and went home"
    assert microscope.past_the_guard == []
    with pytest.raises(AssertionError, match="past the guard"):
        microscope.move_to(0.0)
