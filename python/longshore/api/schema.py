"""From a model to the structural schema that a CustomResourceDefinition wants.

Promises: a field's description is the docstring below it in the source; required is what the model requires and nothing else; no defaults (they would change
what others wrote); every object keeps unknown fields; what a model reads as None, or calls NULLABLE, may be null. The result depends on the source alone.

It reads the models' source files, so it runs from a checkout or an installed package, not from bytecode alone.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import Any, Final

from longshore.api.meta import Condition, ObjectMeta, ObjectReference, SecretKeySelector
from longshore.api.model import ApiModel, ApiObject, JsonObject, wire_name

__all__ = ["schema_of"]

_ROOT_DESCRIPTIONS: Final = {
    "apiVersion": "Version of the schema that this object is written in.",
    "kind": "Kind of this object.",
}
# Two appliers never own halves of one reference.
_ATOMIC: Final = (ObjectReference, SecretKeySelector)


def schema_of(model: type[ApiObject]) -> JsonObject:
    """Make the `openAPIV3Schema` of a kind."""
    schema = _object_schema(model)
    properties = {name: {"description": text, "type": "string"} for name, text in _ROOT_DESCRIPTIONS.items()}
    properties["metadata"] = {"type": "object"}
    del schema["required"]  # Velero's CRDs take an object without a spec; the controllers say what is wrong with it
    schema["properties"] = properties | {name: one for name, one in schema["properties"].items() if name != "metadata"}
    return schema


def _object_schema(model: type[ApiModel]) -> JsonObject:
    described = _descriptions(model)
    generated = model.model_json_schema(by_alias=True)
    models = {one.__name__: one for one in _pieces(model)}
    properties: JsonObject = {}
    for name in model.model_fields:
        if model.model_fields[name].annotation is ObjectMeta:
            properties["metadata"] = {"type": "object"}
            continue
        wire = wire_name(name)
        description = described.get(name)
        if not description:
            raise ValueError(f"a field has no description: model={model.__name__}, field={name}")
        properties[wire] = {"description": description} | _convert(generated["properties"][wire], models)
    schema: JsonObject = {"description": _prose(model.__doc__ or ""), "type": "object", "properties": properties}
    if required := sorted(generated.get("required", [])):
        schema["required"] = required
    schema["x-kubernetes-preserve-unknown-fields"] = True
    if model in _ATOMIC:
        schema["x-kubernetes-map-type"] = "atomic"
    return schema


def _convert(node: JsonObject, models: dict[str, type[ApiModel]]) -> JsonObject:
    if reference := node.get("$ref"):
        nested = _object_schema(models[reference.removeprefix("#/$defs/")])
        del nested["description"]  # the field's own says more
        return nested
    if choices := node.get("anyOf"):
        kinds = [choice for choice in choices if choice != {"type": "null"}]
        if len(kinds) != 1:
            raise ValueError(f"a structural schema has no alternatives: schema={node}")
        # The format of `Annotated[X | None, ...]` stands beside the alternatives.
        return (
            _convert(kinds[0], models)
            | {name: node[name] for name in ("format",) if name in node}
            | ({"nullable": True} if len(kinds) < len(choices) else {})
        )
    schema: JsonObject = {name: node[name] for name in ("type", "format", "enum", "nullable") if name in node}
    if items := node.get("items"):
        schema["items"] = _convert(items, models)
        if items.get("$ref", "").endswith(f"/{Condition.__name__}"):
            schema |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
    if isinstance(values := node.get("additionalProperties"), dict):
        schema["additionalProperties"] = _convert(values, models)
    if "type" not in schema or (schema["type"] == "object" and "additionalProperties" not in schema):
        raise ValueError(f"the schema cannot be made structural: schema={node}")
    return schema


def _pieces(root: type[ApiModel]) -> list[type[ApiModel]]:
    """List every model class that is defined, so that a reference by name finds its class."""
    known: list[type[ApiModel]] = []
    waiting: list[type[ApiModel]] = [ApiModel]
    while waiting:
        for one in waiting.pop().__subclasses__():
            if one not in known:
                known.append(one)
                waiting.append(one)
    twice = {one.__name__ for one in known if sum(other.__name__ == one.__name__ for other in known) > 1}
    if twice:
        raise ValueError(f"two models have one name: names={sorted(twice)}, root={root.__name__}")
    return known


def _descriptions(model: type[ApiModel]) -> dict[str, str]:
    """Read the docstrings below a class's fields and those of its bases."""
    found: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if not issubclass(cls, ApiModel) or cls in {ApiModel, ApiObject}:
            continue
        body: Any = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
        for field, text in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
                and isinstance(text.value.value, str)
            ):
                found[field.target.id] = _prose(text.value.value)
    return found


def _prose(text: str) -> str:
    return " ".join(text.split())
