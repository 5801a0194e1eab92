"""The shipped configurations load, and a wrong one is refused with a message that names file, key and reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from focusd.config import RecordedConfig, load_config
from focusd.errors import ConfigError

CONFIGS = Path(__file__).parents[1] / "configs"
GOOD = (CONFIGS / "simulated-10x.toml").read_text(encoding="utf-8")


def test_one_shipped_configuration_per_kind_loads() -> None:
    kinds = [load_config(path).microscope.kind for path in CONFIGS.glob("*.toml")]

    assert sorted(kinds) == ["client", "recorded", "rehearsal", "simulated"]


def test_a_rehearsed_rig_becomes_a_real_one_as_its_file_says(tmp_path: Path) -> None:
    """One word, and without the lines that are of the rehearsal alone."""
    rehearsed = (CONFIGS / "micromanager-demo.toml").read_text(encoding="utf-8")
    settings, of_the_rehearsal = rehearsed.split("# Of the rehearsal alone")
    assert "kind" not in of_the_rehearsal
    file = tmp_path / "rig.toml"
    file.write_text(settings.replace('kind = "rehearsal"', 'kind = "micromanager"'), encoding="utf-8")

    config = load_config(file)

    assert config.microscope.kind == "micromanager"
    assert (config.objective.name, config.note) == ("10x/0.3", "")


def test_names_of_shipped_configurations_differ_as_their_calibrations_must() -> None:
    names = [load_config(path).name for path in CONFIGS.glob("*.toml")]

    assert len(names) == len(set(names))


def test_relative_paths_are_seen_from_the_file(tmp_path: Path) -> None:
    file = tmp_path / "rig.toml"
    file.write_text((CONFIGS / "recorded.toml").read_text(encoding="utf-8"), encoding="utf-8")

    microscope = load_config(file).microscope

    assert isinstance(microscope, RecordedConfig)
    assert microscope.stack == tmp_path.resolve() / "stack.ome.tif"


@pytest.mark.parametrize(
    ("found", "put", "key", "reason"),
    [
        ("[stage]", "[stage]\nmaximum = 5", "stage.maximum", "unknown key; did you mean stage.max_um?"),
        ("[stage]", "[stage]\nexposure_ms = 5", "stage.exposure_ms", "did you mean camera.exposure_ms?"),
        ('sample = "cells"', 'sampel = "cells"', "sampel", "did you mean microscope.sample?"),
        ("[stage]", "nam = 5\n[stage]", "camera.nam", "did you mean camera.name?"),
        ("na = 0.3", 'na = "wide"', "objective.na", "number"),
        ("na = 0.3", "na = 1.2", "objective", "immersion_index"),
        ("pixel_um = 6.5", "", "camera.pixel_um", "required"),
        ("min_um = -150 ", "min_um = 200 ", "stage", "below max_um"),
        ("min_um = -150 ", "min_um = -inf ", "stage.min_um", "finite"),
        ('towards_sample = "increasing"', "", "stage.towards_sample", "required"),
        ('kind = "simulated"', 'kind = "imagined"', "microscope", "'recorded'"),
        ('name = "simulated-10x"', 'name = "../10x"', "name", "letters"),
        (
            "[stage]",
            '[http]\nport = 0\n[server]\nkeys = "keys"\n[stage]',
            "http.port",
            "without asking for a key",
        ),
    ],
)
def test_wrong_values_are_refused(tmp_path: Path, found: str, put: str, key: str, reason: str) -> None:
    assert found in GOOD
    file = tmp_path / "rig.toml"
    file.write_text(GOOD.replace(found, put, 1), encoding="utf-8")

    with pytest.raises(ConfigError) as caught:
        load_config(file)

    for part in (str(file), key, reason):
        assert part in caught.value.message


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml: cannot be read: No such file"):
        load_config(tmp_path / "absent.toml")


def test_bad_toml_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "rig.toml"
    file.write_text('name = "rig"\n[stage\n', encoding="utf-8")

    with pytest.raises(ConfigError, match=r"rig\.toml: is not valid TOML: .*line 2"):
        load_config(file)


@pytest.mark.parametrize("path", [r"C:\Scopes\rig.cfg", r"C:\temp", r"C:\Users\ada\rig.cfg", r"D:\new\x.cfg"])
def test_a_windows_path_in_double_quotes_is_refused_with_what_to_do(tmp_path: Path, path: str) -> None:
    """Some of them are valid TOML, and not what anybody means: a tab, a new line."""
    file = tmp_path / "rig.toml"
    rehearsed = (CONFIGS / "micromanager-demo.toml").read_text(encoding="utf-8")
    assert "MMConfig_demo.cfg" in rehearsed
    file.write_text(rehearsed.replace("MMConfig_demo.cfg", path), encoding="utf-8")

    with pytest.raises(ConfigError, match="put Windows paths into single quotes, or write them with /"):
        load_config(file)

    file.write_text(rehearsed.replace('"MMConfig_demo.cfg"', f"'{path}'"), encoding="utf-8")
    assert load_config(file).microscope.kind == "rehearsal"


def test_a_key_that_resembles_none_is_only_refused(tmp_path: Path) -> None:
    file = tmp_path / "rig.toml"
    file.write_text(f"{GOOD}\n[lamp]\nwatt = 3\n", encoding="utf-8")

    with pytest.raises(ConfigError) as caught:
        load_config(file)

    assert caught.value.message == f"{file}: lamp: unknown key"
