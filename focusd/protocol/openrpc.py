"""The OpenRPC document: the table of methods as JSON, with the schemas of all params, results and errors."""

from __future__ import annotations

from functools import cache

from pydantic import JsonValue, TypeAdapter
from pydantic_core import to_json

from focusd import __version__
from focusd.protocol.failure import Failure
from focusd.protocol.methods import METHODS, Method
from focusd.protocol.requests import PROTOCOL
from focusd.protocol.results import Started

_WHERE = "#/components/schemas/{model}"
Schema = dict[str, JsonValue]


@cache
def openrpc() -> bytes:
    """The OpenRPC 1.3 document of this protocol."""
    results = {name: TypeAdapter(method.result) for name, method in METHODS.items()}
    results |= {"started": TypeAdapter(Started), "failure": TypeAdapter(Failure)}
    schemas, definitions = TypeAdapter.json_schemas(
        [(name, "serialization", adapter) for name, adapter in results.items()], ref_template=_WHERE
    )
    components: Schema = definitions["$defs"]
    methods = []
    for name, method in METHODS.items():
        wanted = method.params.model_json_schema(ref_template=_WHERE)
        components |= wanted.pop("$defs", {})
        result: Schema = schemas[name, "serialization"]
        if method.is_long:
            result = {"anyOf": [result, schemas["started", "serialization"]]}
        methods.append(_described(method, wanted, result))
    return to_json(
        {
            "openrpc": "1.3.2",
            "info": {"title": PROTOCOL, "version": __version__},
            "methods": methods,
            "components": {"schemas": components},
        }
    )


def _described(method: Method[..., object], params: Schema, result: Schema) -> Schema:
    properties, required = params.get("properties", {}), params.get("required", [])
    assert isinstance(properties, dict)
    assert isinstance(required, list)
    return {
        "name": method.name,
        "summary": method.summary,
        "paramStructure": "by-name",
        "params": [
            {"name": name, "required": name in required, "schema": part} for name, part in properties.items()
        ],
        "result": {"name": "result", "schema": result},
        "errors": [
            {"code": error.code, "message": f"{error.__name__}: {(error.__doc__ or '').splitlines()[0]}"}
            for error in method.raises
        ],
    }
