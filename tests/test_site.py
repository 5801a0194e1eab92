"""The site: it builds strictly, holds what the code holds, and asks nothing of the network."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from focusd.config import RigConfig
from focusd.protocol.openrpc import openrpc
from tests.documents import DECISIONS, ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def page(site: Path, name: str) -> str:
    return (site / name).read_text(encoding="utf-8")


def test_nothing_is_loaded_from_the_network(site: Path) -> None:
    for file in site.rglob("*.html"):
        text = file.read_text(encoding="utf-8")
        assert "<!-- generated" not in text, file
        assert (
            re.findall(r'<(?:script|img|iframe|link)[^>]*(?:src|href)="(?:https?:)?//[^"]*"', text) == []
        ), file
    for file in site.rglob("*.css"):
        assert re.findall(r"url\((?:https?:)?//[^)]*\)", file.read_text(encoding="utf-8")) == [], file


def test_every_key_of_the_configuration_is_told_with_its_meaning(site: Path) -> None:
    text = page(site, "reference/configuration.html")
    for name, field in RigConfig.model_fields.items():
        assert f"[{name}]" in text or f"<code>{name}</code>" in text
        inner = getattr(field.annotation, "model_fields", {})
        assert [key for key in inner if f"<code>{key}</code>" not in text] == []
    assert "<td></td>" not in text, "a key without a meaning"


def test_every_method_of_the_protocol_is_told(site: Path) -> None:
    text = page(site, "reference/protocol.html")
    methods = json.loads(openrpc())["methods"]
    assert len(methods) >= 20
    for method in methods:
        assert f"<code>{method['name']}</code>" in text
        assert [
            param["name"] for param in method["params"] if f"<code>{param['name']}</code>" not in text
        ] == []


def test_every_command_is_told_without_this_machine_s_folders(site: Path) -> None:
    text = html.unescape(page(site, "reference/command-line.html"))
    for name in ("status", "calibrate", "refocus", "hold", "map predict", "keys allow", "calibrations use"):
        assert f"<code>focusctl {name}</code>" in text
    assert "FOCUSD_ENDPOINT" in text
    assert str(Path.home()) not in text


def test_every_decision_is_listed(site: Path) -> None:
    text = page(site, "decisions/index.html")
    records = [record for record in DECISIONS if record.name != "index.md"]
    assert [record.name for record in records if f'{record.stem}.html"' not in text] == []
    numbers = [int(record.name[:4]) for record in records]
    assert len(set(numbers)) == len(numbers)


def test_the_client_is_told_from_its_docstrings(site: Path) -> None:
    text = page(site, "reference/python.html")
    assert "Bring the sample into focus" in text
    assert "UnreachableError" in text
