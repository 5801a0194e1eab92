"""Read a configuration file; every error names the file, the key and the reason."""

from __future__ import annotations

import tomllib
import unicodedata
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import get_args

from pydantic import BaseModel, ValidationError

from focusd.config.microscopes import CoreConfig, RecordedConfig, RehearsalConfig
from focusd.config.rig import RigConfig
from focusd.config.section import Section
from focusd.errors import ConfigError

_BACKSLASH = "in double quotes a backslash begins an escape: put Windows paths into single quotes, or write them with /"


def load_config(path: Path) -> RigConfig:
    """Read and check a configuration file.

    Relative paths in the file are taken from the file's own folder.

    Raises:
        ConfigError: names the file, the key and the reason.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text: {error}") from error
    except tomllib.TOMLDecodeError as error:
        hint = f"; {_BACKSLASH}" if "\\" in str(error) or "hex" in str(error) else ""
        raise ConfigError(f"{path}: is not valid TOML: {error}{hint}") from error
    if garbled := next(_with_control_characters(values), None):
        raise ConfigError(f"{path}: {garbled} holds a control character; {_BACKSLASH}")
    try:
        config = RigConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_explain(error)}") from error
    return _anchored(config, path.resolve().parent)


def _with_control_characters(values: object, key: str = "") -> Iterator[str]:
    """The keys of texts that hold a control character, such as the tab that "C:\\temp" becomes."""
    if isinstance(values, dict):
        for name, value in values.items():
            yield from _with_control_characters(value, f"{key}.{name}".lstrip("."))
    elif isinstance(values, str) and any(unicodedata.category(letter) == "Cc" for letter in values):
        yield key


def _explain(error: ValidationError) -> str:
    """One line per wrong key: `stage.min_um: reason`."""
    lines = []
    for item in error.errors(include_url=False):
        key = ".".join(str(part) for part in item["loc"]) or "file"
        reason = _unknown(item["loc"]) if item["type"] == "extra_forbidden" else item["msg"]
        lines.append(f"{key}: {reason}")
    return "; ".join(lines)


def _unknown(location: tuple[int | str, ...]) -> str:
    """That there is no such key, with the one that was most likely meant."""
    table, key = str(location[0]) if len(location) > 1 else "", str(location[-1])
    known = list(_keys(RigConfig))
    here = [name for place, name in known if place == table]
    meant = [(table, name) for name in get_close_matches(key, here, 1)]
    meant += [(place, name) for place, name in known if name == key]
    return f"unknown key; did you mean {'.'.join(filter(None, meant[0]))}?" if meant else "unknown key"


def _keys(model: type[BaseModel], table: str = "") -> Iterator[tuple[str, str]]:
    """Table and name of every key there is."""
    for name, field in model.model_fields.items():
        yield table, name
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, Section):
                yield from _keys(part, name)


def _anchored(config: RigConfig, folder: Path) -> RigConfig:
    """The same configuration with its paths made absolute, and a rehearsal's calibrations kept apart."""
    update: dict[str, object] = {"state_dir": folder / config.state_dir.expanduser()}
    microscope = config.microscope
    if isinstance(microscope, RecordedConfig):
        stack = folder / microscope.stack.expanduser()
        update["microscope"] = microscope.model_copy(update={"stack": stack})
    if isinstance(microscope, CoreConfig):
        update["microscope"] = microscope.model_copy(update=_anchored_adapters(microscope, folder))
    if isinstance(microscope, RehearsalConfig):  # what is calibrated on it must never serve a real sample
        name = f"{config.objective.name} (rehearsal)"
        update["objective"] = config.objective.model_copy(update={"name": name})
    if config.server.keys is not None:
        keys = folder / config.server.keys.expanduser()
        update["server"] = config.server.model_copy(update={"keys": keys})
    if config.scorer.weights is not None:
        weights = folder / config.scorer.weights.expanduser()
        update["scorer"] = config.scorer.model_copy(update={"weights": weights})
    return config.model_copy(update=update)


def _anchored_adapters(microscope: CoreConfig, folder: Path) -> dict[str, str]:
    """A configuration file that does not lie beside ours is looked for beside the adapters, by its name."""
    paths = {}
    if (file := folder / Path(microscope.config_file).expanduser()).exists():
        paths["config_file"] = str(file)
    if microscope.adapter_path is not None:
        paths["adapter_path"] = str(folder / Path(microscope.adapter_path).expanduser())
    return paths
