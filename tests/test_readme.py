"""What the README tells people to type exists: commands, files, options; its settings are settings."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

import bench.__main__
import focusd.cli
import focusd.ctl
from focusd.config import MetricsConfig, ServerConfig
from tests.systemd.unit import directives

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
APPS: dict[str, Any] = {
    "bench": typer.main.get_command(bench.__main__.app),
    "focusd": typer.main.get_command(focusd.cli.app),
    "focusctl": focusd.ctl.app,
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def shell_lines() -> list[str]:
    return [line for block in blocks("sh") for line in block.splitlines()]


def inline() -> list[str]:
    """Commands within sentences, one for each alternative: `focusctl map add | clear` are two."""
    found = []
    for code in re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", README, flags=re.DOTALL)):
        line = " ".join(code.split())
        if not re.match(r"(focusd|focusctl|python -m bench) \w", line):
            continue
        first, *others = line.split(" | ")
        found += [first, *(f"{first[: last_command(first)]}{other}" for other in others)]
    return found


def last_command(line: str) -> int:
    """Where the last word of a command stands, before its options and arguments."""
    match = re.match(r"(focusd|focusctl map|focusctl keys|focusctl|python -m bench) ", line)
    assert match, line
    return match.end()


def typed() -> list[str]:
    """Every command of README, without comments and what precedes the program."""
    lines = [re.sub(r"^sudo -u focusd (env \S+ )?", "", line.split("#")[0]) for line in shell_lines()]
    lines += [line for block in blocks("powershell") for line in block.splitlines()]
    programs = (re.sub(r"^\S*[/\\](focusd|focusctl) ", r"\1 ", line).strip() for line in [*lines, *inline()])
    return [line for line in programs if re.match(r"(focusd|focusctl|python -m bench) ", line)]


def refusals(line: str) -> list[str]:
    """What a command line names that its program does not know."""
    words = shlex.split(re.sub(r"^python -m bench", "bench", line))
    command: Any = APPS[words[0]]
    options = {option: param for param in command.params for option in param.opts}
    unknown, value = [], False
    for word in words[1:]:
        inner = getattr(command, "commands", {})
        if value:
            value = False
        elif word.startswith("--"):
            unknown += [] if word in options else [word]
            value = word in options and not options[word].is_flag
        elif word in inner:
            command = inner[word]
            options |= {option: param for param in command.params for option in param.opts}
        elif inner:
            unknown.append(word)
    return unknown


@pytest.mark.parametrize("line", sorted(set(typed())))
def test_every_command_and_every_option_of_it_exists(line: str) -> None:
    assert refusals(line) == []


@pytest.mark.parametrize(
    "line",
    [
        "focusctl refocu",
        "focusctl refocus --masp field.png",
        "focusctl map ad 1 2",
        "focusctl status --range-um 3",
        "focusd run --configs rig.toml",
        "python -m bench acuracy",
    ],
)
def test_a_command_that_does_not_exist_would_be_found(line: str) -> None:
    assert refusals(line)


def test_commands_in_blocks_and_in_sentences_are_looked_at() -> None:
    lines = typed()
    assert len(lines) >= 40
    assert {"focusctl map clear", "focusd demo --stacks DIR", "focusctl reconnect"} <= set(lines)


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
    commands: Any = APPS["bench"]
    named = re.findall(r"python -m bench (\w+(?: \| \w+)*)", README)
    assert {name for names in named for name in names.split(" | ")} <= set(commands.commands)
    assert named
