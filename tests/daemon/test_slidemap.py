"""The slide's focus map as a service: on disk or not at all, and a refocus is added where it was made."""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from anyio import to_thread

from focusd.daemon.operations import RigOperations
from focusd.daemon.slidemap import SlideMap, map_files
from focusd.errors import BusyError, FocusdError, MapError, RequestError
from focusd.slide.focusmap import FocusMap, Position
from focusd.storage.worker import MOST_WAITING
from tests.daemon.scripted import ScriptedMicroscope, refocus
from tests.storage.test_files import ODD

pytestmark = pytest.mark.anyio
DOF_UM = 8.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rig" / "maps" / "10x.json"


def slide_at(*files: Path, objective: str = "10x") -> SlideMap:
    return SlideMap(*files, depth_of_field_um=lambda: DOF_UM, fingerprint={"objective": objective})


@pytest.fixture
def slide(path: Path) -> SlideMap:
    return slide_at(path)


async def add(slide: SlideMap, x_um: float = 0.0, z_um: float | None = 10.0) -> int:
    """Add a position; return how many there are."""
    sigma_um = None if z_um is None else 0.2
    added = await slide.add(x_um=x_um, y_um=0.0, z_um=z_um, sigma_um=sigma_um, channel=None)
    return int(added.positions)


def content_of(path: Path) -> bytes:
    return path.read_bytes()


def spoil(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(content)


async def count(slide: SlideMap) -> int:
    return len((await slide.get()).positions)


async def test_a_map_survives_a_restart(slide: SlideMap, path: Path) -> None:
    await slide.offset(channel="DAPI", offset_um=1.2)
    await add(slide, 0.0, 10.0)
    await add(slide, 5000.0, 12.0)

    later = slide_at(path)

    assert await later.get() == await slide.get()
    assert (await later.get()).offsets_um == {"DAPI": 1.2}
    assert json.loads(content_of(path))["format"] == 1


async def test_nothing_is_written_before_the_first_change(slide: SlideMap, path: Path) -> None:
    await slide.get()
    await slide.predict(positions=[(0.0, 0.0)], channel=None, tolerance=0.5)

    assert not path.parent.exists()


async def test_the_tolerance_is_in_depths_of_field(slide: SlideMap) -> None:
    await add(slide)
    told = await slide.predict(positions=[(100.0, 0.0)], channel=None, tolerance=0.5)
    sigma_um = told.predictions[0].sigma_um
    assert sigma_um is not None

    just = await slide.predict(positions=[(100.0, 0.0)], channel=None, tolerance=2.001 * sigma_um / DOF_UM)
    short = await slide.predict(positions=[(100.0, 0.0)], channel=None, tolerance=1.999 * sigma_um / DOF_UM)

    assert (just.predictions[0].advice, just.next) == ("trust", None)
    assert (short.predictions[0].advice, short.next) == ("refocus", 0)


async def test_the_last_refocus_is_added_at_one_place_only(slide: SlideMap) -> None:
    slide.focused(12.5, 0.4)
    assert await add(slide, 1000.0, None) == 1
    assert await add(slide, 1000.0, None) == 1, "asking again, after a timeout say, does no harm"

    with pytest.raises(RequestError, match="added at another position: refocus here first"):
        await add(slide, 2000.0, None)
    assert await count(slide) == 1

    slide.focused(13.0, 0.4)
    assert await add(slide, 2000.0, None) == 2


async def test_without_a_refocus_there_is_nothing_to_add(slide: SlideMap) -> None:
    with pytest.raises(RequestError, match="no refocus to add"):
        await add(slide, 0.0, None)
    slide.focused(12.5, 0.4)
    slide.forget_focus()
    with pytest.raises(RequestError, match="no refocus to add"):
        await add(slide, 0.0, None)
    with pytest.raises(RequestError, match="give z_um and sigma_um, or neither"):
        await slide.add(x_um=0.0, y_um=0.0, z_um=1.0, sigma_um=None, channel=None)


async def test_changes_at_the_same_time_are_all_made(slide: SlideMap, path: Path) -> None:
    async with anyio.create_task_group() as tasks:
        for n in range(20):
            tasks.start_soon(add, slide, 1000.0 * n)

    assert await count(slide) == await count(slide_at(path)) == 20


async def test_a_full_disk_leaves_the_map_as_it_was(
    slide: SlideMap, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add(slide)
    before = content_of(path)

    def full(_source: Path, _target: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", full)
        with pytest.raises(
            MapError, match=r"10x\.json: .*cannot be written \(No space left.*check state_dir"
        ):
            await add(slide, 5000.0)

    assert content_of(path) == before
    assert await count(slide) == 1
    assert await add(slide, 5000.0) == 2


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"format": 9}', b"\xff", b'{"format": 1}', b"[" * 200_000]
)
async def test_an_unreadable_map_says_what_to_do_and_that_helps(
    slide: SlideMap, path: Path, content: bytes
) -> None:
    spoil(path, content)

    for asked in (slide.get, lambda: add(slide)):
        with pytest.raises(
            MapError, match=r"10x\.json: cannot be read .*`focusctl map clear` begins a new one"
        ):
            await asked()
    assert content_of(path) == content, "nothing is thrown away unasked"

    assert (await slide.clear()).cleared == 0
    assert await add(slide) == 1


@pytest.mark.parametrize("put", ODD)
async def test_whatever_lies_in_the_place_of_a_map_is_refused_at_once(
    slide: SlideMap, path: Path, put: Callable[[Path], object]
) -> None:
    path.parent.mkdir(parents=True)
    put(path)
    with pytest.raises(MapError, match="cannot be read"):
        await slide.get()


async def test_clearing_keeps_the_offsets(slide: SlideMap) -> None:
    await slide.offset(channel="DAPI", offset_um=1.2)
    await add(slide)

    assert (await slide.clear()).cleared == 1
    assert (await slide.get()).positions == []
    assert (await slide.offset(channel="Cy5", offset_um=2.0)).offsets_um == {"DAPI": 1.2, "Cy5": 2.0}


async def test_a_refocus_is_what_is_added(calibrated: RigOperations) -> None:
    result = await refocus(calibrated)

    added = await calibrated.slide.add(x_um=1.0, y_um=2.0, z_um=None, sigma_um=None, channel=None)

    assert (added.z_um, added.sigma_um) == (result.z_found_um, result.sigma_um)
    predicted = await calibrated.slide.predict(positions=[(1.0, 2.0)], channel=None, tolerance=0.5)
    assert predicted.dof_um == result.dof_um


async def test_a_refocus_that_fails_leaves_nothing_to_add(
    calibrated: RigOperations, microscope: ScriptedMicroscope
) -> None:
    await refocus(calibrated)
    microscope.saturated = 0.5
    with pytest.raises(FocusdError):
        await refocus(calibrated)

    with pytest.raises(RequestError, match="no refocus to add"):
        await calibrated.slide.add(x_um=1.0, y_um=2.0, z_um=None, sigma_um=None, channel=None)


async def test_maps_of_objectives_whose_names_are_alike_are_kept_apart(tmp_path: Path) -> None:
    for number, objective in enumerate(["10x/0.3", "10x_0.3", "10x 0.3"]):
        await add(slide_at(*map_files(tmp_path, objective), objective=objective), 1000.0 * number)

    for objective in ("10x/0.3", "10x_0.3", "10x 0.3"):
        assert await count(slide_at(*map_files(tmp_path, objective), objective=objective)) == 1


async def test_a_map_of_an_earlier_version_is_read_and_kept_under_its_new_name(tmp_path: Path) -> None:
    new, old = map_files(tmp_path, "10x/0.3")
    earlier = FocusMap((Position(0.0, 0.0, 10.0, 0.2),)).to_json()
    old.write_text(json.dumps(earlier))
    slide = slide_at(new, old)

    assert await count(slide) == 1
    assert await add(slide, 5000.0) == 2

    assert json.loads(old.read_text()) == earlier
    assert json.loads(new.read_text())["fingerprint"] == {"objective": "10x"}
    assert await count(slide_at(new, old)) == 2


async def test_a_map_of_another_objective_is_refused_and_clearing_begins_a_new_one(
    slide: SlideMap, path: Path
) -> None:
    await add(slide)
    other = slide_at(path, objective="40x")

    with pytest.raises(MapError, match=r"belongs to .*10x.*not to .*40x.*`focusctl map clear`"):
        await other.predict(positions=[(0.0, 0.0)], channel=None, tolerance=0.5)
    assert await count(slide) == 1
    await other.clear()
    assert await add(other) == 1


async def test_requests_beyond_what_may_wait_are_busy_and_leave_the_common_threads_alone(
    slide: SlideMap,
) -> None:
    computing, done = threading.Event(), threading.Event()

    def depth_of_field_um() -> float:
        computing.set()
        done.wait(30)
        return DOF_UM

    slide._depth_of_field_um = depth_of_field_um
    ends: list[str] = []

    async def predict() -> None:
        try:
            await slide.predict(positions=[(0.0, 0.0)], channel=None, tolerance=0.5)
            ends.append("predicted")
        except BusyError:
            ends.append("busy")

    await slide.get()
    async with anyio.create_task_group() as tasks:
        for _ in range(MOST_WAITING + 100):
            tasks.start_soon(predict)
        with anyio.fail_after(30):
            await to_thread.run_sync(computing.wait)
            assert await to_thread.run_sync(lambda: "a thread of others") == "a thread of others"
            assert to_thread.current_default_thread_limiter().borrowed_tokens == 0
        done.set()
    assert Counter(ends) == {"busy": 100, "predicted": MOST_WAITING}
