"""The options of a command, made from the model of its method's params: their names, types, defaults and help."""

from __future__ import annotations

from collections.abc import Callable
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from focusd.protocol.methods import Method
from focusd.protocol.model import docs_of

Command = TypeVar("Command", bound=Callable[..., Any])

OWN = frozenset({"client", "wait", "request_key"})
"""Params that focusctl gives by itself."""


def params_of(method: Method[..., Any], *given: str) -> Callable[[Command], Command]:
    """Give a command the params of a method: what has a position as an argument, all else as an option.

    Args:
        given: the params that the command makes itself.
    """
    docs = docs_of(method.params)
    fields = [item for item in method.params.model_fields.items() if item[0] not in OWN.union(given)]

    def decorated(command: Command) -> Command:
        for name, field in reversed(fields):
            command = _parameter(name, field, docs[name])(command)
        return command

    return decorated


def _parameter(name: str, field: FieldInfo, text: str) -> Callable[[Command], Command]:
    kind = _type(field.annotation)
    if field.kw_only is False:
        return click.argument(name, type=kind, required=field.is_required())
    default = field.default if isinstance(field.default, float | int | str) and field.default != "" else None
    flag = f"--{name.replace('_', '-')}"
    if kind is bool:
        return click.option(
            flag, name, is_flag=True, default=None, help=text
        )  # what is not given is not sent
    return click.option(flag, name, type=kind, default=default, show_default=default is not None, help=text)


def _type(annotation: Any) -> Any:
    """What click converts a text with."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(inner[0])
    if origin is Literal:
        return click.Choice(inner)
    if origin is tuple:
        return _parts([_convert(part) for part in inner])
    if origin is list:
        return _parts(_convert(inner[0]))
    if origin is dict:
        return pairs
    if inner:  # a union with None
        return _type(next(part for part in inner if part is not NoneType))
    return annotation


def _convert(annotation: Any) -> Callable[[str], float]:
    """A number from its text."""
    number: Callable[[str], float] = _type(annotation)
    return number


def _parts(kinds: list[Callable[[str], float]] | Callable[[str], float]) -> Callable[[str], list[float]]:
    """Numbers with commas between them: one of each kind, or any number of one kind."""

    def numbers(text: str) -> list[float]:
        parts = text.split(",")
        each = kinds if isinstance(kinds, list) else [kinds] * len(parts)
        try:
            return [kind(part) for kind, part in zip(each, parts, strict=True)]
        except ValueError:
            many = f"{len(kinds)} numbers" if isinstance(kinds, list) else "numbers"
            raise click.BadParameter(f"give {many} with commas between them, not {text!r}") from None

    numbers.__name__ = ",".join("n" * len(kinds)) if isinstance(kinds, list) else "n,n,…"
    return numbers


def pairs(text: str) -> dict[str, float | str]:
    """Names with numbers or texts, as in `celsius=36.9,channel=DAPI`."""
    parts = [part.partition("=") for part in text.split(",")]
    if not all(name and sign for name, sign, _ in parts):
        raise click.BadParameter(f"give NAME=VALUE, with commas between several, not {text!r}")
    return {name: _number_or_text(value) for name, _, value in parts}


pairs.__name__ = "name=value,…"


def _number_or_text(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
