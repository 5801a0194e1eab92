"""What the README tells people to type exists: commands, files, options; its settings are settings."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import typer

import bench.__main__
import focusd.cli
import focusd.ctl
from focusd.config import MetricsConfig, ServerConfig
from tests.systemd.unit import directives

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
APPS = {"bench": bench.__main__.app, "focusd": focusd.cli.app, "focusctl": focusd.ctl.app}
COMMAND = re.compile(r"(?:-m (bench)|\b(focusd|focusctl))((?: --?[\w-]+ \S+)*) ([a-z]+)\b")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def shell_lines() -> list[str]:
    return [line for block in blocks("sh") for line in block.splitlines()]


def commands_of(app: typer.Typer) -> dict[str, set[str]]:
    """The options of each command; those of a group are under the group's name."""
    found = {}
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        inner = [command, *getattr(command, "commands", {}).values()]
        found[name] = {option for one in inner for param in one.params for option in param.opts}
    return found


def test_every_command_and_option_exists() -> None:
    looked_at = 0
    for line in shell_lines():
        line = re.sub(r"^sudo -u focusd (env \S+ )?", "", line.split("#")[0])
        line = re.sub(r"\S*/(focusd|focusctl) ", r"\1 ", line)
        if not (match := COMMAND.search(line)) or line.startswith(
            ("sudo install", "sudo systemctl", "systemctl")
        ):
            continue
        commands = commands_of(APPS[match[1] or match[2]])
        assert match[4] in commands, line
        options = set(re.findall(r" (--[\w-]+)", line[match.start(4) :]))
        assert options <= commands[match[4]], line
        looked_at += 1
    assert looked_at >= 8


@pytest.mark.parametrize("line", [line for line in shell_lines() if line.startswith("sudo install")])
def test_every_file_that_is_installed_is_there(line: str) -> None:
    (file,) = re.findall(r" ((?:systemd|configs)/\S+)", line)
    assert (ROOT / file).is_file()


def test_the_service_starts_what_was_installed_with_the_configuration_that_was_installed() -> None:
    (start,) = directives()["ExecStart"]
    program, *_, config = start.split()
    assert f"sudo {Path(program).parent}/pip install ." in README
    assert f"configs/simulated-10x.toml {config}" in README
    assert f"STATE_DIRECTORY=/var/lib/{directives()['StateDirectory'][0]}" in README


def test_settings_are_settings() -> None:
    for block in blocks("toml"):
        tables = tomllib.loads(block)
        ServerConfig.model_validate(tables.get("server", {}))
        MetricsConfig.model_validate(tables.get("metrics", {}))
        assert tables.keys() <= {"server", "metrics"}


def test_every_figure_has_a_command_that_exists() -> None:
    named = re.findall(r"python -m bench (\w+(?: \| \w+)*)", README)
    assert {name for names in named for name in names.split(" | ")} <= set(commands_of(APPS["bench"]))
    assert named
