"""Sealed files: what is damaged is noticed, set aside and never half there."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from focusd.storage.files import (
    LARGEST_BYTES,
    lock,
    read_small_text,
    sealed,
    set_aside,
    unsealed,
    write_atomically,
)

VALUES = {"format": 1, "z_um": 12.5, "why": "µ", "list": [1.0, None]}


def test_what_is_sealed_comes_back() -> None:
    assert unsealed(sealed(VALUES)) == VALUES


@given(st.data())
def test_any_changed_character_is_noticed(data: st.DataObject) -> None:
    text = sealed(VALUES)
    at = data.draw(st.integers(0, len(text) - 1))
    changed = text[:at] + data.draw(st.sampled_from('7x}" ').filter(lambda c: c != text[at])) + text[at + 1 :]
    try:
        values = unsealed(changed)
    except ValueError:
        return
    assert values == VALUES, "only white space may have changed"


@pytest.mark.parametrize("text", ["", "{", "7", "[]", "{}", json.dumps(VALUES), "[" * 200_000, "9" * 5000])
def test_what_was_never_sealed_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        unsealed(text)


def test_a_full_disk_leaves_the_old_file_and_no_half_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rig.json"
    write_atomically(path, "old")

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_bad_file_is_kept_under_another_name(tmp_path: Path) -> None:
    path = tmp_path / "rig.json"
    for content in ("first", "second"):
        path.write_text(content, encoding="utf-8")
        assert set_aside(path, "a reason").read_text(encoding="utf-8") == content
    assert not path.exists()
    assert len(list(tmp_path.glob("rig.json.bad-*"))) == 2


def test_a_lock_is_held_until_its_owner_is_done(tmp_path: Path) -> None:
    with ExitStack() as owner:
        lock(tmp_path / "lock", owner)
        with pytest.raises(BlockingIOError), ExitStack() as other:
            lock(tmp_path / "lock", other)
    with ExitStack() as other:
        lock(tmp_path / "lock", other)


def test_a_lock_makes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), ExitStack() as resources:
        lock(tmp_path / "none" / "lock", resources)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("refusals", [2, 9])
def test_on_windows_a_file_that_somebody_reads_is_replaced_once_they_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusals: int
) -> None:
    path = tmp_path / "rig.json"
    write_atomically(path, "old")
    tries = iter([True] * refusals)

    def replace(new: Path, old: Path) -> None:
        if next(tries, False):
            raise PermissionError(errno.EACCES, "a scanner reads it", str(old))
        os.rename(new, old)

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(PermissionError) if refusals > 3 else nullcontext():
        write_atomically(path, "new")
    assert path.read_text(encoding="utf-8") == ("old" if refusals > 3 else "new")
    assert list(tmp_path.iterdir()) == [path]


def link_to_itself(path: Path) -> None:
    path.symlink_to(path)


def link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(8 << 30)


def not_text(path: Path) -> None:
    path.write_bytes(b"\xff\xfe")


ODD = [Path.mkdir, link_to_itself, huge, not_text]
"""What may lie in the place of a file of ours."""
if sys.platform != "win32":
    ODD += [os.mkfifo, link_to_a_device]


@pytest.mark.parametrize("put", ODD)
def test_whatever_lies_in_the_place_of_a_file_is_refused_at_once(
    tmp_path: Path, put: Callable[[Path], object]
) -> None:
    put(tmp_path / "file")
    with pytest.raises((OSError, ValueError)):
        read_small_text(tmp_path / "file")
    write_atomically(set_aside(tmp_path / "file", "it is odd").with_name("file"), "anew")
    assert read_small_text(tmp_path / "file") == "anew"


def test_what_is_as_large_as_allowed_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x" * LARGEST_BYTES)
    assert len(read_small_text(tmp_path / "file")) == LARGEST_BYTES


@pytest.mark.skipif(sys.platform == "win32", reason="has no named pipes among files")
def test_a_pipe_in_the_place_of_the_new_file_blocks_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "file.new")
    write_atomically(tmp_path / "file", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the file alone is locked")
def test_a_lock_outlives_its_file(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    with ExitStack() as owner:
        lock(folder / "lock", owner)
        for remove in ((folder / "lock").unlink, folder.rmdir):
            remove()
            folder.mkdir(exist_ok=True)
            with pytest.raises(BlockingIOError), ExitStack() as other:
                lock(folder / "lock", other)
            (folder / "lock").unlink(missing_ok=True)
        (tmp_path / "link").symlink_to(folder)
        with pytest.raises(BlockingIOError), ExitStack() as other:
            lock(tmp_path / "link" / "lock", other)
