"""What the documents name exists: commands, options, files, settings, make targets; figures say their origin."""

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
from focusd.config import MetricsConfig, RigConfig, ServerConfig
from tests.documents import DECISIONS, DOCS, GUIDES, HERE, PAGES, ROOT, blocks, name_of, prose, shell_lines
from tests.systemd.unit import directives

APPS: dict[str, Any] = {"bench": bench.__main__.app, "focusd": focusd.cli.app, "focusctl": focusd.ctl.app}
PROGRAM = r"(focusd|focusctl|python -m bench) "
SERVICE = DOCS / "howto" / "service.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"


def inline(document: Path) -> list[str]:
    """Commands within sentences, one for each alternative: `focusctl map add | clear` are two."""
    found = []
    for code in re.findall(r"`([^`]+)`", prose(document)):
        line = " ".join(code.split())
        if not re.match(PROGRAM + r"\w", line):
            continue
        first, *others = line.split(" | ")
        found += [first, *(f"{first[: last_command(first)]}{other}" for other in others)]
    return found


def last_command(line: str) -> int:
    """Where the last word of a command stands, before its options and arguments."""
    match = re.match(r"(focusd|focusctl map|focusctl keys|focusctl|python -m bench) ", line)
    assert match, line
    return match.end()


def typed(document: Path) -> list[str]:
    """Every command of a document, without comments and what precedes the program."""
    lines = [re.sub(r"^sudo -u focusd (env \S+ )?", "", line.split("#")[0]) for line in shell_lines(document)]
    lines += [line for block in blocks(document, "powershell") for line in block.splitlines()]
    programs = (
        re.sub(r"^\S*[/\\](focusd|focusctl) ", r"\1 ", line).strip() for line in [*lines, *inline(document)]
    )
    return [line for line in programs if re.match(PROGRAM, line)]


def refusals(line: str) -> list[str]:
    """What a command line names that its program does not know."""
    words = shlex.split(re.sub(r"^python -m bench", "bench", line))
    app = APPS[words[0]]
    command: Any = typer.main.get_command(app) if isinstance(app, typer.Typer) else app
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


TYPED = sorted({line for document in [*PAGES, *DECISIONS] for line in typed(document)})


@pytest.mark.parametrize("line", TYPED)
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
    assert len(TYPED) >= 50
    assert {
        "focusctl map clear",
        "focusd demo --stacks DIR",
        "focusctl reconnect",
        "python -m bench frames",
    } <= set(TYPED)


@pytest.mark.parametrize(
    "line", [line for document in GUIDES for line in shell_lines(document) if line.startswith("sudo install")]
)
def test_every_file_that_is_installed_is_there(line: str) -> None:
    (file,) = re.findall(r" ((?:systemd|configs)/\S+)", line)
    assert (ROOT / file).is_file()


def test_the_service_starts_what_was_installed_with_the_configuration_that_was_installed() -> None:
    (start,) = directives()["ExecStart"]
    program, *_, config = start.split()
    told = SERVICE.read_text(encoding="utf-8")
    assert f"sudo {Path(program).parent}/pip install ." in told
    assert f"configs/simulated-10x.toml {config}" in told
    assert f"STATE_DIRECTORY=/var/lib/{directives()['StateDirectory'][0]}" in told


@pytest.mark.parametrize("document", GUIDES, ids=name_of)
def test_settings_are_settings(document: Path) -> None:
    for block in blocks(document, "toml"):
        tables = tomllib.loads(block)
        if "objective" in tables:  # a whole configuration
            RigConfig.model_validate(tables)
            continue
        ServerConfig.model_validate(tables.get("server", {}))
        MetricsConfig.model_validate(tables.get("metrics", {}))
        assert tables.keys() <= {"server", "metrics"}


@pytest.mark.parametrize("document", [*PAGES, *DECISIONS, CONTRIBUTING], ids=name_of)
def test_every_file_that_is_named_is_there(document: Path) -> None:
    named = re.findall(
        r"`((?:focusd|bench|tests|docs|configs|models|systemd)/(?!\d)[\w./-]*)`", prose(document)
    )
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("document", [*PAGES, CONTRIBUTING], ids=name_of)
def test_every_target_of_make_exists(document: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = re.findall(r"`make ([a-z]+)`", prose(document))
    named += [line.split()[1] for line in shell_lines(document) if line.startswith("make ")]
    assert set(named) <= targets


def test_the_code_cites_only_documents_that_a_clone_has() -> None:
    """In comments and docstrings; the project's design once lay beside the repository."""
    sources = [
        path for part in ("focusd", "bench", "tests", "systemd") for path in (ROOT / part).rglob("*.*")
    ]
    for path in (path for path in sources if path.suffix in (".py", ".service", ".conf")):
        text = path.read_text(encoding="utf-8")
        cited = set(re.findall(r"docs/[\w/-]+\.md", text))
        assert [name for name in cited if not (ROOT / name).is_file()] == [], path
        assert "DESIGN" + " §" not in text, path


def test_the_readme_is_read_in_three_minutes() -> None:
    readme = ROOT / "README.md"
    assert len(readme.read_text(encoding="utf-8").splitlines()) <= 150
    assert len(prose(readme).split()) <= 1000


def test_figures_stand_below_the_command_that_makes_them_with_machine_and_date() -> None:
    """Each part of the page of figures begins with `command` · machine · date."""
    page = (DOCS / "reference" / "benches.md").read_text(encoding="utf-8")
    parts = page.partition("## Faults")[0].split("\n## ")[1:]
    assert len(parts) >= 11
    for part in parts:
        line = next(line for line in part.splitlines() if line.startswith("`"))
        assert re.match(r"`(python -m bench \w+|make demo)", line), line
        assert re.search(r"·\s.*\b2026-1[12]-\d\d", part.partition("|")[0], re.DOTALL), part[:80]


@pytest.mark.parametrize("document", [*GUIDES, CONTRIBUTING], ids=name_of)
def test_what_is_typed_in_the_clone_is_in_the_clone(document: Path) -> None:
    programs = {line.removeprefix(HERE).split()[0] for line in shell_lines(document) if line.startswith(HERE)}
    assert programs <= {"focusd", "focusctl", "pre-commit"}
