"""Fill the pages of docs/ that come from the code, each time the site is built, so that they cannot be stale.

A hook of mkdocs: a line `<!-- generated: NAME -->` in a page is replaced by what the function of that name in `PARTS`
returns, in Markdown.
"""

from __future__ import annotations

import ast
import html
import json
import re
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel

import bench.__main__
import focusd.cli
import focusd.ctl
from focusd import config, errors
from focusd.client.calls import Call, Calls
from focusd.protocol import messages
from focusd.protocol.openrpc import openrpc

ROOT = Path(__file__).resolve().parents[1]
MARK = re.compile(r"^<!-- generated: ([\w-]+) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the marks of a page: mkdocs calls this for each."""
    return MARK.sub(lambda mark: PARTS[mark[1]](), markdown)


# --- configuration ---


def configuration() -> str:
    """Every table and key of a rig's TOML file."""
    return "\n\n".join(_section(config.RigConfig, ""))


def _section(model: type[BaseModel], table: str) -> Iterator[str]:
    """One table of the file, then those in it."""
    heading = f"## `[{table}]`" if table else "## At the top of the file"
    yield f"{heading}\n\n{_summary(model)}"
    keys, inner = [], []
    for name, field in model.model_fields.items():
        tables = list(_models_in(field.annotation))
        if tables:
            inner += [(part, name) for part in tables]
        else:
            keys.append(_key(model, name))
    yield _table(["key", "what it may be", "without it", "meaning"], keys)
    for part, name in inner:
        kind = part.model_fields.get("kind")
        if kind is None:
            yield from _section(part, name)
        else:
            (value,) = kind.annotation.__args__  # type: ignore[union-attr]
            yield from _kind(part, name, value)


def _kind(model: type[BaseModel], table: str, kind: str) -> Iterator[str]:
    yield f'## `[{table}]` with `kind = "{kind}"`\n\n{_summary(model)}'
    if keys := [_key(model, name) for name in model.model_fields if name != "kind"]:
        yield _table(["key", "what it may be", "without it", "meaning"], keys)


def _key(model: type[BaseModel], name: str) -> list[str]:
    field = model.model_fields[name]
    schema = model.model_json_schema()["properties"][name]
    if field.is_required():
        default = "**must be given**"
    elif field.default_factory is not None:
        default = "depends on the system"
    elif field.default is None:
        default = "–"
    else:
        default = f"`{_toml(field.default)}`"
    return [f"`{name}`", _kind_of_value(schema), default, _note(model, name, schema)]


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type):
        if issubclass(annotation, BaseModel):
            yield annotation
        return
    for part in getattr(annotation, "__args__", ()):
        yield from _models_in(part)


def _toml(value: object) -> str:
    return str(value) if isinstance(value, Path) else json.dumps(value, ensure_ascii=False)


# --- protocol ---


def protocol() -> str:
    """Every method of the protocol, from the document that `rpc.discover` answers."""
    document = json.loads(openrpc())
    return "\n\n".join([*map(_method, document["methods"]), *_types(document)])


def _method(method: dict[str, Any]) -> str:
    rows = []
    for param in method["params"]:
        schema = param["schema"]
        given = "**must be given**" if param.get("required") else _default(schema)
        rows.append([f"`{param['name']}`", _kind_of_value(schema), given, _description(schema)])
    parts = [f"### `{method['name']}`\n\n{_escaped(method['summary'])}"]
    parts += [_table(["param", "what it may be", "without it", "meaning"], rows)] if rows else ["No params."]
    result = method["result"]["schema"]
    if result.get("properties") or "$ref" in result:
        parts.append(f"**Result**: {_kind_of_value(result)}\n\n{_properties(result)}")
    return "\n\n".join(parts)


def _types(document: dict[str, Any]) -> Iterator[str]:
    """The types that methods share, where the document names them."""
    schemas = document.get("components", {}).get("schemas", {})
    if schemas:
        yield "## Types"
    for name, schema in sorted(schemas.items()):
        yield f"### {name}\n\n{_description(schema)}\n\n{_properties(schema)}"


def _properties(schema: dict[str, Any]) -> str:
    rows = [
        [f"`{name}`", _kind_of_value(part), _description(part)]
        for name, part in schema.get("properties", {}).items()
    ]
    return _table(["field", "what it is", "meaning"], rows) if rows else ""


def _default(schema: dict[str, Any]) -> str:
    default = schema.get("default")
    return "–" if default is None else f"`{json.dumps(default, ensure_ascii=False)}`"


def client() -> str:
    """Every method of the clients, from the calls that they are made of."""
    calls = {name: call for name, call in vars(Calls).items() if isinstance(call, Call) and name[0] != "_"}
    return "\n\n".join(_call(name, call) for name, call in calls.items())


def _call(name: str, call: Call[..., Any]) -> str:
    given = [str(part) for part in list(call.__signature__.parameters)[1:]]
    method = call.method
    return (
        f"### `{name}({', '.join(given)})`\n\n{_escaped(method.summary)} "
        f"The parameters are those of [`{method.name}`](protocol.md#{method.name.replace('.', '')})."
    )


def error_codes() -> str:
    """Every error that a client may be sent."""
    rows = [
        [
            f"`{kind.__name__}`",
            str(kind.code).replace("-", "−"),
            f"`{kind.outcome}`",
            "yes" if kind.retryable else "no",
            _summary(kind),
        ]
        for kind in _with_derived(errors.FocusdError)
        if kind.__module__.startswith("focusd.")
    ]
    return _table(["class", "code", "`outcome`", "`retryable`", "meaning"], rows)


def _with_derived(kind: type[errors.FocusdError]) -> Iterator[type[errors.FocusdError]]:
    yield kind
    for derived in kind.__subclasses__():
        yield from _with_derived(derived)


def topics() -> str:
    """The topics of events."""
    return ", ".join(f"`{topic}`" for topic in messages.TOPICS)


def bounds() -> str:
    """What the daemon bounds in a message."""
    rows = [
        ["JSON frame", f"{messages.MAX_JSON_BYTES >> 10} KiB"],
        ["frame of pixels", f"{messages.MAX_FRAME_BYTES >> 20} MiB"],
        ["parts of a message", str(messages.MAX_PARTS)],
        ["all parts together", f"{messages.MAX_MESSAGE_BYTES >> 20} MiB"],
        ["params of a request", str(messages.MAX_PARAMS)],
        ["page of `events.since`", f"{messages.MAX_PAGE_BYTES >> 10} KiB"],
    ]
    return _table(["what", "at most"], rows)


# --- command line ---


def command_line() -> str:
    """Every command of both programs, with its options."""
    return "\n\n".join([*_command(focusd.cli.app, "focusd", 2), *_command(focusd.ctl.app, "focusctl", 2)])


def benches() -> str:
    """Every bench, with its options."""
    return "\n\n".join(_command(bench.__main__.app, "python -m bench", 3))


def _command(app: Any, name: str, level: int) -> Iterator[str]:
    """One command of typer or click, then those in it, with none of this machine's own folders."""
    command: Any = typer.main.get_command(app) if isinstance(app, typer.Typer) else app
    context = command.context_class(command, info_name=name)
    yield f"{'#' * level} `{name}`\n\n{_escaped(command.help or '')}"
    yield f"```text\n{name} {' '.join(command.collect_usage_pieces(context))}\n```"
    records = [param.get_help_record(context) for param in command.get_params(context)]
    rows = [[f"`{option}`", _escaped(told)] for option, told in filter(None, records) if option != "--help"]
    if rows:
        yield _table(["option", "meaning"], rows).replace(str(Path.home()), "~")
    for inner, each in sorted(getattr(command, "commands", {}).items()):
        yield from _command(each, f"{name} {inner}", level + 1)


# --- program ---


def layers() -> str:
    """The packages from the top down, as import-linter checks them, each with the first line of its docstring."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (stack,) = (contract for contract in contracts["contracts"] if contract["type"] == "layers")
    rows = []
    for number, layer in enumerate(stack["layers"], 1):
        for name in re.split(r"\s*[:|]\s*", layer):
            rows.append([str(number), f"`{name}`", _escaped(_first_line(_module_docstring(name)))])
    return _table(["layer", "package", "what it is for"], rows)


def _module_docstring(name: str) -> str:
    base = ROOT.joinpath(*name.split("."))
    file = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    return ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""


def decisions() -> str:
    """Links to all decision records, in their order."""
    records = sorted((ROOT / "docs" / "decisions").glob("0*.md"))
    titles = [record.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ") for record in records]
    return "\n".join(f"- [{title}]({record.name})" for record, title in zip(records, titles, strict=True))


# --- shared ---


def _kind_of_value(schema: dict[str, Any]) -> str:
    """What a JSON schema allows, in a few words."""
    if "$ref" in schema:
        return f"`{schema['$ref'].rpartition('/')[2]}`"
    if parts := [part for part in schema.get("anyOf", schema.get("oneOf", [])) if part.get("type") != "null"]:
        return " or ".join(map(_kind_of_value, parts))
    if choices := schema.get("enum"):
        return ", ".join(f"`{json.dumps(choice)}`" for choice in choices)
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    words = {"boolean": "true or false", "integer": "whole number", "string": "text", "null": "nothing"}
    kind = schema.get("type", "anything")
    if kind == "array":
        items = schema.get("prefixItems") or [schema.get("items", {})]
        many = f"{len(items)} values: " if len(items) > 1 else "list of "
        return many + ", ".join(dict.fromkeys(map(_kind_of_value, items)))
    return f"{words.get(kind, kind)}{_bounds_of(schema)}"


def _bounds_of(schema: dict[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    told = [f"{sign} {schema[name]:g}" for name, sign in signs.items() if name in schema]
    return " " + ", ".join(told) if told else ""


def _description(schema: dict[str, Any]) -> str:
    return _escaped(" ".join(schema.get("description", "").split()))


def _note(model: type[BaseModel], name: str, schema: dict[str, Any]) -> str:
    """What a field's schema says of it, or else the docstring below it in the code."""
    own = next((notes[name] for cls in model.__mro__ if name in (notes := _notes_of(cls))), "")
    return _description(schema) or _escaped(own)


@cache
def _notes_of(model: type) -> dict[str, str]:
    """The docstrings below the fields of a class."""
    if not model.__module__.startswith("focusd."):
        return {}
    file = ROOT.joinpath(*model.__module__.split(".")).with_suffix(".py")
    if not file.is_file():
        file = file.with_suffix("") / "__init__.py"
    tree = ast.parse(file.read_text(encoding="utf-8"))
    (body,) = (
        node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == model.__name__
    )
    notes = {}
    for field, after in pairwise(body):
        named = isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if named and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            notes[field.target.id] = str(after.value.value)  # type: ignore[attr-defined]
    return notes


def _summary(kind: type) -> str:
    return _escaped(" ".join((kind.__doc__ or "").split()))


def _first_line(text: str) -> str:
    return text.strip().partition("\n\n")[0].replace("\n", " ")


def _escaped(text: str) -> str:
    """Text of the code as Markdown in a table: what is between backticks stays as it is."""
    parts = " ".join(text.split()).split("`")
    shown = [part if index % 2 else html.escape(part, quote=False) for index, part in enumerate(parts)]
    return "`".join(shown).replace("|", "\\|")


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


PARTS: dict[str, Callable[[], str]] = {
    "configuration": configuration,
    "client": client,
    "protocol": protocol,
    "errors": error_codes,
    "topics": topics,
    "bounds": bounds,
    "command-line": command_line,
    "benches": benches,
    "layers": layers,
    "decisions": decisions,
}
