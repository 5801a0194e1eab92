"""Nothing that focusd reads can run code: no pickle, and torch and NumPy load plain numbers only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCES = sorted((Path(__file__).parents[1] / "focusd").rglob("*.py"))
FORBIDDEN = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
PYOBJ = {"recv_pyobj", "send_pyobj"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_nothing_is_unpickled(path: Path) -> None:
    assert list(_offences(ast.parse(path.read_text(encoding="utf-8")))) == []


def test_an_offence_would_be_found() -> None:
    code = (
        "import pickle\nfrom dill import loads\ntorch.load(p)\nnp.load(p, allow_pickle=True)\ns.recv_pyobj()"
    )
    assert len(list(_offences(ast.parse(code)))) == 5


def _offences(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names) if FORBIDDEN & {name.name.split(".")[0] for name in names}:
                yield ast.unparse(node)
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in FORBIDDEN:
                yield ast.unparse(node)
            case ast.Attribute(attr=name) if name in PYOBJ:
                yield ast.unparse(node)
            case ast.Call(func=ast.Attribute(value=ast.Name(id="torch"), attr="load"), keywords=words):
                if ("weights_only", "True") not in {(word.arg, ast.unparse(word.value)) for word in words}:
                    yield ast.unparse(node)
            case ast.Call(keywords=words) if "allow_pickle" in {word.arg for word in words}:
                yield ast.unparse(node)
