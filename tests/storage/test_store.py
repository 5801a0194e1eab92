"""Calibrations on disk: whole or not at all, and a file that cannot be used says what to do."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from focusd.errors import CalibrationError, RequestError
from focusd.focus.calibration import Calibration
from focusd.focus.stack import calibrate
from focusd.storage import files
from focusd.storage import store as store_module
from focusd.storage.files import sealed, unsealed
from focusd.storage.store import CalibrationStore
from tests.focus.exposures import exposure
from tests.storage.test_files import ODD

OBJECTIVE = "10x/0.3"


class PowerCut(BaseException):
    """The process ends here."""


@cache
def calibration_of(focus_um: float = 0.0) -> Calibration:
    stack = [exposure(z, focus_um) for z in np.arange(-100, 101, 4.0)]
    return calibrate(stack, {"objective": OBJECTIVE, "na": 0.3, "binning": 1, "magnification": None}, 0.5)[0]


@pytest.fixture
def store(tmp_path: Path) -> CalibrationStore:
    return CalibrationStore(tmp_path / "rig" / "calibrations")


def edit(store: CalibrationStore, **changes: Any) -> Path:
    """Save a calibration and change its file, sealed anew; a value of None removes the key."""
    path = store.save(OBJECTIVE, calibration_of())
    values = unsealed(path.read_text(encoding="utf-8")) | changes
    path.write_text(
        sealed({key: value for key, value in values.items() if value is not None}), encoding="utf-8"
    )
    return path


def transfer(**changes: Any) -> dict[str, Any]:
    """A transfer of one band, as it is kept."""
    bands = {"log_power": [[0.0]] * 51, "error": [[0.0]] * 51, "log_object": [0.0], "axial_unit_um": 6.0}
    return bands | changes


def test_a_calibration_comes_back_as_it_was_saved(store: CalibrationStore) -> None:
    saved = calibration_of()

    store.save(OBJECTIVE, saved)
    loaded = store.load(OBJECTIVE)

    for name in ("z_um", "b", "sigma"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(saved, name))
    assert (loaded.profile, loaded.r2, loaded.fingerprint) == (saved.profile, saved.r2, saved.fingerprint)
    z_um = np.linspace(-120, 120, 37)
    np.testing.assert_array_equal(loaded(z_um), saved(z_um))
    for kept, known in zip(loaded.transfer.at(z_um), saved.transfer.at(z_um), strict=True):
        np.testing.assert_array_equal(kept, known)
    np.testing.assert_array_equal(loaded.transfer.log_object, saved.transfer.log_object)


def test_the_file_is_readable_and_named_after_the_objective(store: CalibrationStore) -> None:
    path = store.save(OBJECTIVE, calibration_of())

    assert path.name == "10x_0.3-8aaa7cd1.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    assert values["format"] == 3
    assert values["fingerprint"]["objective"] == OBJECTIVE
    assert values["fwhm_um"] == pytest.approx(calibration_of().fwhm_um)


def test_each_objective_keeps_its_own(store: CalibrationStore) -> None:
    first, second = calibration_of(), calibration_of(20.0)

    store.save("10x", first)
    store.save("20x", second)

    np.testing.assert_array_equal(store.load("10x").z_um, first.z_um)
    np.testing.assert_array_equal(store.load("20x").z_um, second.z_um)


@pytest.mark.parametrize("objective", ["../../escape", "/etc/objective", "a b\nc", "..", "Plan µ 10×"])
def test_no_name_of_an_objective_leaves_the_folder(store: CalibrationStore, objective: str) -> None:
    path = store.save(objective, calibration_of())

    assert path.parent == store.path("10x").parent
    assert path.resolve().parent == path.parent.resolve()
    assert store.load(objective).r2 > 0.8


def test_a_new_calibration_takes_the_place_of_the_old(store: CalibrationStore) -> None:
    store.save(OBJECTIVE, calibration_of())
    path = store.save(OBJECTIVE, calibration_of(20.0))

    np.testing.assert_array_equal(store.load(OBJECTIVE).z_um, calibration_of(20.0).z_um)
    assert set(path.parent.iterdir()) == {path, store.history(OBJECTIVE)}, "nothing else is left behind"


def test_a_crash_before_the_rename_leaves_the_old_calibration(
    store: CalibrationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store.save(OBJECTIVE, calibration_of())
    before, replace = path.read_bytes(), os.replace

    def cut(source: Path, target: Path) -> None:
        assert json.loads(Path(source).read_text(encoding="utf-8"))["format"] == 3, "it is whole by now"
        if target == path:
            raise PowerCut
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", cut)
        with pytest.raises(PowerCut):
            store.save(OBJECTIVE, calibration_of(20.0))

    assert path.read_bytes() == before
    np.testing.assert_array_equal(store.load(OBJECTIVE).z_um, calibration_of().z_um)
    store.save(OBJECTIVE, calibration_of(20.0))
    np.testing.assert_array_equal(store.load(OBJECTIVE).z_um, calibration_of(20.0).z_um)


def test_a_crash_while_writing_leaves_the_old_calibration(
    store: CalibrationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store.save(OBJECTIVE, calibration_of())

    def cut(_descriptor: int) -> None:
        raise PowerCut

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", cut)
        with pytest.raises(PowerCut):
            store.save(OBJECTIVE, calibration_of(20.0))

    assert path == store.path(OBJECTIVE)
    np.testing.assert_array_equal(store.load(OBJECTIVE).z_um, calibration_of().z_um)


def test_a_disk_that_refuses_is_an_error_that_names_the_file(
    store: CalibrationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_source: Path, _target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(
        CalibrationError, match=r"10x_0\.3-\w+/.*cannot be written \(No space left.*in force stays as it was"
    ):
        store.save(OBJECTIVE, calibration_of())


def test_a_file_where_the_folder_should_be_is_an_error(tmp_path: Path, store: CalibrationStore) -> None:
    (tmp_path / "rig").write_text("in the way")

    with pytest.raises(
        CalibrationError, match=r"rig/calibrations/.*cannot be written .*(directory|exists).*check state_dir"
    ):
        store.save(OBJECTIVE, calibration_of())
    with pytest.raises(CalibrationError, match="calibrate"):
        store.load(OBJECTIVE)


def test_without_a_calibration_the_error_says_how_to_make_one(store: CalibrationStore) -> None:
    with pytest.raises(CalibrationError, match=r"'10x/0.3' has no calibration; .* run `focusctl calibrate`"):
        store.load(OBJECTIVE)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"format": 2',
        b"\xff\xfe\x00",
        b"null",
        b"[]",
        b"7",
        b'"calibration"',
        b"{}",
        b'{"format": 2}',
        b'{"format": 2, "z_um": {}, "b": {}, "sigma": {}}',
        b"[" * 200_000,
    ],
)
def test_what_is_no_calibration_is_refused(store: CalibrationStore, content: bytes) -> None:
    path = edit(store)
    path.write_bytes(content)

    with pytest.raises(CalibrationError, match=r"10x_0\.3-\w+\.json: cannot be read .*calibrate anew"):
        store.load(OBJECTIVE)


@pytest.mark.parametrize("put", ODD)
def test_whatever_lies_in_the_place_of_a_calibration_is_refused_at_once(
    store: CalibrationStore, put: Callable[[Path], object]
) -> None:
    path = store.save(OBJECTIVE, calibration_of())
    path.unlink()
    put(path)
    with pytest.raises(CalibrationError, match="cannot be read"):
        store.load(OBJECTIVE)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format": 2}, "format 2, this focusd reads 3"),
        ({"format": "2"}, "format '2'"),
        ({"b": None}, "'b'"),
        ({"fingerprint": None}, "'fingerprint'"),
        ({"b": [0.1, 0.2]}, "gaps"),
        ({"b": [float("nan")] * 51}, "gaps"),
        ({"sigma": [0.1] * 50 + [float("inf")]}, "gaps"),
        ({"transfer": None}, ""),
        ({"transfer": transfer(log_power=[[0.0]] * 50)}, "gaps"),
        ({"transfer": transfer(error=[[0.0, 1.0]] * 51)}, "gaps"),
        ({"transfer": transfer(log_power=[[float("nan")]] * 51)}, "gaps"),
        ({"transfer": transfer(log_object=[float("inf")])}, "gaps"),
        ({"transfer": transfer(log_object=0.0)}, ""),
        ({"transfer": transfer(axial_unit_um=float("nan"))}, "gaps"),
        ({"z_um": [0.0] * 51}, "do not ascend"),
        ({"z_um": [[0.0] * 51], "b": [[0.0] * 51], "sigma": [[0.0] * 51]}, "do not ascend"),
        ({"z_um": [0.0], "b": [0.0], "sigma": [0.0]}, "do not ascend"),
        ({"z_um": "wide"}, "could not convert"),
        ({"r2": "good"}, "could not convert"),
        ({"profile": {"top": 1.0}}, "missing"),
        ({"profile": [1, 2, 3]}, ""),
        ({"fingerprint": 7}, ""),
    ],
)
def test_a_calibration_with_something_wrong_in_it_is_refused(
    store: CalibrationStore, changes: dict[str, Any], reason: str
) -> None:
    edit(store, **changes)

    with pytest.raises(
        CalibrationError, match=rf"cannot be read as a calibration \(.*{reason}.*calibrate anew"
    ):
        store.load(OBJECTIVE)


@pytest.mark.parametrize("value", [float("nan"), 0.0, "wide", None])
def test_a_profile_without_a_width_is_refused(store: CalibrationStore, value: object) -> None:
    profile = {"top": 1.0, "depth": 0.9, "centre_um": 0.0, "width_um": value, "power": 1.0}
    edit(store, profile=profile)

    with pytest.raises(CalibrationError, match="calibrate anew"):
        store.load(OBJECTIVE)


def test_a_bad_file_is_set_aside_for_a_person_to_look_at(store: CalibrationStore) -> None:
    path = edit(store)
    path.write_bytes(path.read_bytes().replace(b"0.3", b"0.4"))
    with pytest.raises(CalibrationError, match=r"checksum .*set aside as 10x_0\.3-\w+\.json\.bad-"):
        store.load(OBJECTIVE)
    assert not path.exists()
    assert len(list(path.parent.glob(f"{path.name}.bad-*"))) == 1
    with pytest.raises(CalibrationError, match="has no calibration"):
        store.load(OBJECTIVE)


def test_a_file_is_read_again_only_when_it_has_changed(
    store: CalibrationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status answers from memory: a slow disk and a long file cost it nothing."""
    store.save(OBJECTIVE, calibration_of())
    first = store.load(OBJECTIVE)
    with monkeypatch.context() as no_reading:
        no_reading.setattr(Path, "read_text", lambda *_, **__: pytest.fail("the file was read again"))
        assert store.load(OBJECTIVE) is first
    store.save(OBJECTIVE, calibration_of(focus_um=3.0))
    assert store.load(OBJECTIVE) is not first
    store.path(OBJECTIVE).write_text("no calibration", encoding="utf-8")
    with pytest.raises(CalibrationError, match="set aside"):
        store.load(OBJECTIVE)
    with pytest.raises(CalibrationError, match="has no calibration"):
        store.load(OBJECTIVE)


def test_objectives_whose_names_differ_in_signs_keep_their_own_files(store: CalibrationStore) -> None:
    first, second = calibration_of(), calibration_of(20.0)

    store.save("10x/0.3", first)
    store.save("10x_0.3", second)

    np.testing.assert_array_equal(store.load("10x/0.3").z_um, first.z_um)
    np.testing.assert_array_equal(store.load("10x_0.3").z_um, second.z_um)
    assert [len(store.all(name)) for name in ("10x/0.3", "10x_0.3")] == [1, 1]


def earlier_layout(store: CalibrationStore, objective: str = OBJECTIVE) -> Path:
    """The file as focusd wrote it before each objective had a name of its own."""
    path = store.save(objective, calibration_of())
    shutil.rmtree(store.history(objective))
    return path.rename(path.with_name("10x_0.3.json"))


def test_a_file_of_the_earlier_layout_serves_and_is_not_lost(store: CalibrationStore) -> None:
    earlier = earlier_layout(store)

    assert store.exists(OBJECTIVE)
    np.testing.assert_array_equal(store.load(OBJECTIVE).z_um, calibration_of().z_um)
    before = store.in_force(OBJECTIVE).id
    store.save(OBJECTIVE, calibration_of(20.0))

    assert not earlier.exists()
    np.testing.assert_array_equal(store.get(OBJECTIVE, before).calibration.z_um, calibration_of().z_um)
    np.testing.assert_array_equal(store.load(OBJECTIVE).z_um, calibration_of(20.0).z_um)


def test_a_file_of_the_earlier_layout_serves_the_objective_that_it_was_written_for(
    store: CalibrationStore,
) -> None:
    earlier = earlier_layout(store)

    with pytest.raises(CalibrationError, match="has no calibration"):
        store.load("10x_0.3")
    store.save("10x_0.3", calibration_of(20.0))

    assert earlier.exists()
    np.testing.assert_array_equal(store.load(OBJECTIVE).z_um, calibration_of().z_um)


def test_an_earlier_calibration_comes_back(store: CalibrationStore) -> None:
    store.save(OBJECTIVE, calibration_of())
    first = store.in_force(OBJECTIVE)
    store.save(OBJECTIVE, calibration_of(20.0))

    store.use(OBJECTIVE, first.id)

    np.testing.assert_array_equal(store.load(OBJECTIVE).z_um, calibration_of().z_um)
    assert len(store.all(OBJECTIVE)) == 2
    assert CalibrationStore(store.path(OBJECTIVE).parent).in_force(OBJECTIVE).id == first.id


def test_what_is_kept_is_not_in_force(store: CalibrationStore) -> None:
    store.save(OBJECTIVE, calibration_of())
    store.keep(OBJECTIVE, calibration_of(20.0))
    np.testing.assert_array_equal(store.load(OBJECTIVE).z_um, calibration_of().z_um)
    assert len(store.all(OBJECTIVE)) == 2


def test_the_history_is_bounded_and_never_without_the_one_in_force(
    store: CalibrationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "HISTORY", 3)
    store.save(OBJECTIVE, calibration_of())
    in_force = store.in_force(OBJECTIVE).id
    names = [store.keep(OBJECTIVE, calibration_of(float(focus))).id for focus in range(1, 7)]

    assert {kept.id for kept in store.all(OBJECTIVE)} == {in_force, *names[-3:]}
    assert len(list(store.history(OBJECTIVE).iterdir())) == 4


def test_the_one_in_force_is_not_removed_and_others_are(store: CalibrationStore) -> None:
    store.save(OBJECTIVE, calibration_of())
    in_force, other = store.in_force(OBJECTIVE).id, store.keep(OBJECTIVE, calibration_of(20.0)).id

    with pytest.raises(RequestError, match="in force and cannot be removed"):
        store.remove(OBJECTIVE, in_force)
    store.remove(OBJECTIVE, other)

    assert [kept.id for kept in store.all(OBJECTIVE)] == [in_force]
    for gone in (other, "../10x_0", "", "*"):
        with pytest.raises(RequestError, match="there is no calibration"):
            store.use(OBJECTIVE, gone)


def test_a_bad_file_in_the_history_is_set_aside_and_the_others_are_listed(store: CalibrationStore) -> None:
    store.save(OBJECTIVE, calibration_of())
    bad = store.keep(OBJECTIVE, calibration_of(20.0))
    (store.history(OBJECTIVE) / bad.file_name).write_text("[" * 200_000, encoding="utf-8")

    assert [kept.id for kept in store.all(OBJECTIVE)] == [store.in_force(OBJECTIVE).id]
    assert len(list(store.history(OBJECTIVE).glob("*.bad-*"))) == 1


def test_a_bad_file_in_force_is_replaced_from_the_history(store: CalibrationStore) -> None:
    path = store.save(OBJECTIVE, calibration_of())
    kept = store.in_force(OBJECTIVE).id
    path.write_text("{", encoding="utf-8")
    with pytest.raises(CalibrationError, match="focusctl calibrations use"):
        store.load(OBJECTIVE)

    store.use(OBJECTIVE, kept)

    np.testing.assert_array_equal(store.load(OBJECTIVE).z_um, calibration_of().z_um)


@pytest.mark.parametrize("writes", range(4))
def test_a_full_disk_at_any_write_leaves_the_one_in_force(
    store: CalibrationStore, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    earlier_layout(store)  # which has to be backed up as well
    write, done = files._write_through, count()

    def full(path: Path, text: str) -> None:
        if next(done) >= writes:
            raise OSError(28, "No space left on device")
        write(path, text)

    monkeypatch.setattr(files, "_write_through", full)
    if writes < 3:
        with pytest.raises(CalibrationError, match="the one in force stays as it was"):
            store.save(OBJECTIVE, calibration_of(20.0))
    else:
        store.save(OBJECTIVE, calibration_of(20.0))
    expected = calibration_of() if writes < 3 else calibration_of(20.0)
    for reader in (store, CalibrationStore(store.path(OBJECTIVE).parent)):
        np.testing.assert_array_equal(reader.load(OBJECTIVE).z_um, expected.z_um)


@pytest.mark.parametrize("step", range(4))
def test_a_crash_at_any_rename_leaves_one_in_force_and_loses_none(
    store: CalibrationStore, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    earlier_layout(store)
    before, replace, done = store.in_force(OBJECTIVE).id, os.replace, count()

    def cut(source: Path, target: Path) -> None:
        if next(done) == step:
            raise PowerCut
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", cut)
        with pytest.raises(PowerCut) if step < 3 else nullcontext():
            store.save(OBJECTIVE, calibration_of(20.0))

    after = CalibrationStore(store.path(OBJECTIVE).parent)
    assert (after.in_force(OBJECTIVE).id == before) == (step < 3)
    assert before in {kept.id for kept in after.all(OBJECTIVE)}
