"""Structural schemas of custom resources: what the server drops, fills in and refuses.

The subset of openAPIV3Schema that definitions for controllers use: type, properties, additionalProperties, items, required, enum, nullable, default, minimum,
maximum, minLength, maxLength, pattern, minItems, maxItems, format (date-time, int32, int64), x-kubernetes-preserve-unknown-fields,
x-kubernetes-int-or-string, x-kubernetes-embedded-resource. CEL rules, anyOf, allOf, oneOf and not are not evaluated. Pure.
"""

from __future__ import annotations

import copy
import re
from typing import Any, Final

from longshore.kube.resource import JsonObject

__all__ = ["apply_defaults", "prune", "validate"]

Causes = list[tuple[str, str, str]]
_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "object": (dict,),
    "array": (list,),
}
_DATE_TIME: Final = re.compile(r"^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$")
_ROOT: Final = ("apiVersion", "kind", "metadata")


def prune(obj: JsonObject, schema: JsonObject) -> JsonObject:
    """Drop what the schema does not name, as the server does before it keeps an object."""
    kept = {name: obj[name] for name in _ROOT if name in obj}
    rest = _prune({name: value for name, value in obj.items() if name not in _ROOT}, schema)
    return {**kept, **rest}


def _prune(value: Any, schema: JsonObject) -> Any:
    if isinstance(value, list):
        return [_prune(item, schema.get("items") or {}) for item in value]
    if not isinstance(value, dict):
        return value
    properties = schema.get("properties") or {}
    additional = schema.get("additionalProperties")
    preserve = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    embedded = set(_ROOT) if schema.get("x-kubernetes-embedded-resource") else set()
    result = {}
    for name, item in value.items():
        if name in properties:
            result[name] = _prune(item, properties[name])
        elif isinstance(additional, dict):
            result[name] = _prune(item, additional)
        elif preserve or additional is True or name in embedded:
            result[name] = item
    return result


def apply_defaults(value: Any, schema: JsonObject) -> Any:
    """Fill in defaults, depth first; an explicit null where null is not allowed and a default exists counts as absent."""
    if isinstance(value, list):
        return [apply_defaults(item, schema.get("items") or {}) for item in value]
    if not isinstance(value, dict):
        return value
    properties = schema.get("properties") or {}
    additional = schema.get("additionalProperties")
    result = {}
    for name, item in value.items():
        inner = properties.get(name, additional if isinstance(additional, dict) else {})
        if item is None and "default" in inner and not inner.get("nullable"):
            continue
        result[name] = apply_defaults(item, inner)
    for name, inner in properties.items():
        if name not in result and "default" in inner:
            result[name] = apply_defaults(copy.deepcopy(inner["default"]), inner)
    return result


def validate(obj: JsonObject, schema: JsonObject) -> Causes:
    """List what is wrong: field, reason and message of each."""
    causes: Causes = []
    _validate(obj, schema, "", causes)
    return causes


def _validate(value: Any, schema: JsonObject, path: str, causes: Causes) -> None:
    where = path.lstrip(".") or "<root>"
    if value is None:
        if not schema.get("nullable") and "type" in schema:
            causes.append(
                (
                    where,
                    "FieldValueTypeInvalid",
                    f'Invalid value: "null": {where} in body must be of type {schema["type"]}: "null"',
                )
            )
        return
    if not _type_fits(value, schema):
        causes.append(
            (
                where,
                "FieldValueTypeInvalid",
                f'Invalid value: "{_type_name(value)}": {where} in body must be of type {schema["type"]}',
            )
        )
        return
    allowed = schema.get("enum")
    if allowed is not None and value not in allowed:
        listed = ", ".join(f'"{item}"' for item in allowed)
        causes.append((where, "FieldValueNotSupported", f'Unsupported value: "{value}": supported values: {listed}'))
    if isinstance(value, str):
        _validate_string(value, schema, where, causes)
    elif isinstance(value, bool):
        return
    elif isinstance(value, int | float):
        _validate_number(value, schema, where, causes)
    elif isinstance(value, list):
        _validate_count(len(value), schema, where, causes)
        for number, item in enumerate(value):
            _validate(item, schema.get("items") or {}, f"{path}[{number}]", causes)
    elif isinstance(value, dict):
        _validate_object(value, schema, path, causes)


def _validate_object(value: JsonObject, schema: JsonObject, path: str, causes: Causes) -> None:
    for name in schema.get("required") or ():
        if name not in value:
            causes.append((f"{path}.{name}".lstrip("."), "FieldValueRequired", "Required value"))
    properties = schema.get("properties") or {}
    additional = schema.get("additionalProperties")
    for name, item in value.items():
        if not path and name in _ROOT:
            continue
        inner = properties.get(name, additional if isinstance(additional, dict) else None)
        if inner is not None:
            _validate(item, inner, f"{path}.{name}", causes)


def _type_fits(value: Any, schema: JsonObject) -> bool:
    if schema.get("x-kubernetes-int-or-string"):
        return isinstance(value, int | str) and not isinstance(value, bool)
    wanted: str | None = schema.get("type")
    if wanted is None:
        return True
    if isinstance(value, bool):
        return wanted == "boolean"
    if wanted == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[wanted])


def _type_name(value: Any) -> str:
    for name in ("boolean", "integer", "number", "string", "array", "object"):
        if isinstance(value, _TYPES[name]):
            return name
    return "null"


def _validate_string(value: str, schema: JsonObject, where: str, causes: Causes) -> None:
    _validate_bounds(
        len(value),
        schema.get("minLength"),
        schema.get("maxLength"),
        f"{where} in body should be %s %s chars long",
        where,
        causes,
    )
    if "pattern" in schema and re.search(schema["pattern"], value) is None:
        causes.append(
            (
                where,
                "FieldValueInvalid",
                f"Invalid value: \"{value}\": {where} in body should match '{schema['pattern']}'",
            )
        )
    if schema.get("format") == "date-time" and _DATE_TIME.match(value) is None:
        causes.append(
            (
                where,
                "FieldValueInvalid",
                f'Invalid value: "{value}": {where} in body must be of type date-time: "{value}"',
            )
        )


def _validate_number(value: float, schema: JsonObject, where: str, causes: Causes) -> None:
    _validate_bounds(
        value,
        schema.get("minimum"),
        schema.get("maximum"),
        f"{where} in body should be %s or equal to %s",
        where,
        causes,
    )
    width = {"int32": 31, "int64": 63}.get(str(schema.get("format")))
    if width is not None and not -(2**width) <= value < 2**width:
        causes.append(
            (where, "FieldValueInvalid", f"Invalid value: {value}: {where} in body must be of type {schema['format']}")
        )


def _validate_count(count: int, schema: JsonObject, where: str, causes: Causes) -> None:
    _validate_bounds(
        count, schema.get("minItems"), schema.get("maxItems"), f"{where} in body should have %s %s items", where, causes
    )


def _validate_bounds(
    value: float, lowest: float | None, highest: float | None, text: str, where: str, causes: Causes
) -> None:
    if lowest is not None and value < lowest:
        causes.append((where, "FieldValueInvalid", f"Invalid value: {value}: {text % ('at least', lowest)}"))
    if highest is not None and value > highest:
        causes.append((where, "FieldValueInvalid", f"Invalid value: {value}: {text % ('at most', highest)}"))
