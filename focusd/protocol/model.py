"""What requests and results have in common: models whose attributes' docstrings go into their JSON schema.

The modules of models do without `from __future__ import annotations`: pydantic would have to compile each annotation
once more, which takes a fifth of the time that they need to be imported.
"""

from __future__ import annotations

import ast
import inspect
import math
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema


def printable(text: str) -> str:
    """What clients say is shown on terminals and in logs, and passed on to service managers."""
    if not text.isprintable():
        raise ValueError("holds a control character; take letters, digits, signs and blanks")
    return text


def _none_for_nan(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _is_none(value: object) -> bool:
    return value is None


Finite = Annotated[float, Field(allow_inf_nan=False)]
Length = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Name = Annotated[str, Field(max_length=64), AfterValidator(printable)]
"""Anything that a client calls something."""
Known = Annotated[float | None, BeforeValidator(_none_for_nan)]
"""A number that a result may lack: JSON has no NaN, so that one becomes None."""
if_any: Any = Field(default=None, exclude_if=_is_none)
"""Default of a field that an answer leaves out where it does not apply."""


class Model(BaseModel):
    """A request, a result, or a part of one. Validators are built with the first use: imports stay fast."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for name, text in docs_of(cls).items():
            if name in properties:
                properties[name]["description"] = text
        return schema


class Result(Model):
    """What a method answers. It keeps what a newer daemon adds, and shows itself in one line."""

    model_config = ConfigDict(extra="allow")

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, _Short(value) if isinstance(value, float | list | tuple | Result) else value


class _Short:
    """A value whose repr is short."""

    def __init__(self, value: float | Sequence[Any] | Result) -> None:
        self._value = value

    def __repr__(self) -> str:
        value = self._value
        if isinstance(value, float):
            return f"{value:.4g}"
        if isinstance(value, Result):
            return f"{type(value).__name__}(…)"
        if len(value) > 4 or any(isinstance(item, Result | list) for item in value):
            return f"[{len(value)} items]"
        return "[" + ", ".join(map(repr, map(_Short, value))) + "]" if _are_floats(value) else repr(value)


def _are_floats(values: Sequence[Any]) -> bool:
    return all(isinstance(value, float) for value in values)


def docs_of(model: type[BaseModel]) -> dict[str, str]:
    """The docstrings of a model's attributes, on one line each, those of its bases included."""
    docs: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, Model):
            docs |= _docs_in(base.__module__).get(base.__name__, {})
    return docs


@cache
def _docs_in(module: str) -> dict[str, dict[str, str]]:
    """Of each class in a module: a string after an annotated name is the attribute's docstring."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: dict(_own_docs(node)) for node in tree.body if isinstance(node, ast.ClassDef)}


def _own_docs(definition: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, after in pairwise(definition.body):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            yield field.target.id, " ".join(str(after.value.value).split())
