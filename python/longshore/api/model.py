"""What every model of this room has in common: how an API object becomes Python and goes back without a loss.

Promises: `from_dict` then `to_dict` gives the same JSON. What was absent stays absent, what was empty stays empty, unknown fields are kept at every level
under the names that they came with, and an explicit null of a known field is dropped, as Go drops it when it reads null into a field marked omitempty.
Nothing is coerced: `"5"` is no number and `1` is no truth. Models are frozen; change is `model_copy(update=...)` or, on the wire, a merge patch.

An absent field reads as Go's zero value ("", 0, False, empty) or as None where Go has a pointer, so callers need not ask twice.

It does not know which kinds there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar, Final, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ModelWrapValidatorHandler,
    SerializerFunctionWrapHandler,
    ValidationError,
    WithJsonSchema,
    model_serializer,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict

from longshore.api.names import ResourceDefinition
from longshore.errors import InvalidObjectError

__all__ = ["NULLABLE", "ApiModel", "ApiObject", "JsonObject", "open_enum", "open_enum_schema", "wire_name"]

JsonObject = dict[str, Any]
"""An object as it came over the wire."""

NULLABLE: Final[JsonDict] = {"nullable": True}
"""`json_schema_extra` of a map that Velero's definition lets be null; the null is read as an empty map."""
_WIRE_NAMES: Final = {"snapshot_id": "snapshotID", "container_id": "containerID", "downward_api": "downwardAPI"}
_ERRORS_NAMED_MAX: Final = 5


def wire_name(name: str) -> str:
    """Tell the name under which a field travels."""
    return _WIRE_NAMES.get(name) or to_camel(name)


class ApiModel(BaseModel):
    """A piece of an API object."""

    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="allow",
        alias_generator=wire_name,
        validate_by_name=True,
        validate_by_alias=True,
        # Velero's words come first: a field may be called `model_…` without a warning.
        protected_namespaces=(),
    )

    @model_validator(mode="wrap")
    @classmethod
    def _read(cls, data: object, read: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(data, Mapping):
            return read(data)
        known = {wire_name(name) for name in cls.model_fields}
        given = {name: value for name, value in data.items() if value is not None or name not in known}
        made = read(given)
        # An unknown field that is called as Python calls one of ours would make pydantic believe that ours was set.
        for name in (made.model_extra or {}).keys() & cls.model_fields.keys():
            if wire_name(name) not in given:
                made.__pydantic_fields_set__.discard(name)
        return made

    @model_serializer(mode="wrap")
    def _leave_out_nulls(self, serialize: SerializerFunctionWrapHandler) -> JsonObject:
        known = {wire_name(name) for name in type(self).model_fields}
        return {name: value for name, value in serialize(self).items() if value is not None or name not in known}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read the wire form.

        Args:
            data: decoded JSON. It is not kept: changing it later does not change the model's own fields.

        Raises:
            InvalidObjectError: a known field has a wrong type or a required one is missing; the message names each.
        """
        try:
            return cls.model_validate(data, by_alias=True, by_name=False)
        except ValidationError as err:
            raise _invalid(cls.__name__, data, err) from err

    def to_dict(self) -> JsonObject:
        """Give the wire form: only what was set, plus what was unknown."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


class ApiObject(ApiModel):
    """A whole object of one of our kinds; it always carries `apiVersion` and `kind`."""

    definition: ClassVar[ResourceDefinition]
    """Which kind this is."""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read the wire form.

        Raises:
            InvalidObjectError: as :meth:`ApiModel.from_dict`, or the object is of another kind or group.
        """
        kind = data.get("kind", cls.definition.kind)
        api_version = data.get("apiVersion", cls.definition.api_version)
        if kind != cls.definition.kind or api_version != cls.definition.api_version:
            message = (
                f"the object is of another kind: expected={cls.definition.api_version}/{cls.definition.kind}, "
                f"found={api_version}/{kind}"
            )
            raise InvalidObjectError(message)
        return super().from_dict(data)

    def to_dict(self) -> JsonObject:
        """Give the wire form, `apiVersion` and `kind` first."""
        return {"apiVersion": self.definition.api_version, "kind": self.definition.kind} | super().to_dict()


def open_enum(enum: type[StrEnum]) -> BeforeValidator:
    """Read a known word as the enum's member and keep an unknown one as text, as Go does.

    A newer Velero may know more words than we; whoever acts on a value matches the members and leaves the rest alone. Stands in an `Annotated` beside
    :func:`open_enum_schema`, around `Enum | str`.
    """
    words = {str(word): word for word in enum}

    def read(value: object) -> object:
        return words.get(value, value) if isinstance(value, str) else value

    return BeforeValidator(read)


def open_enum_schema(enum: type[StrEnum], *, empty: bool = False) -> WithJsonSchema:
    """List the words that the CRD admits.

    Args:
        enum: the superset of what any supported version writes.
        empty: whether the empty string is one of them.
    """
    return WithJsonSchema({"type": "string", "enum": [*(str(word) for word in enum), *([""] if empty else [])]})


def _invalid(what: str, data: Mapping[str, Any], err: ValidationError) -> InvalidObjectError:
    found = err.errors(include_url=False, include_context=False, include_input=False)
    named = [f"{'.'.join(str(part) for part in one['loc']) or what}: {_reason(one['msg'])}" for one in found]
    more = "" if len(named) <= _ERRORS_NAMED_MAX else f" and {len(named) - _ERRORS_NAMED_MAX} more"
    metadata = data.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    message = f"{what} cannot be read: name={name}, fields=[{'; '.join(named[:_ERRORS_NAMED_MAX])}]{more}"
    return InvalidObjectError(message, "correct the named fields with kubectl edit")


def _reason(text: str) -> str:
    return text[:1].lower() + text[1:]
