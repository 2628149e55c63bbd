"""What Kubernetes accepts in the settings that it gets as they are: names, labels, quantities, tolerations, environment.

A value that the API server would refuse is refused here, with the setting's name, before anything is applied; the same patterns stand in values.schema.json, so
Helm refuses it too. They keep to what pydantic's, Go's and Python's regular expressions all read alike: no look-around, classes of ASCII alone, in which no
`--` stands.

Promises: what passes here passes the API server. The contrary does not hold: a few legal values that no installation needs, such as label keys of more than 253
characters, are refused.

It does not know which settings there are. Affinity and extra volumes are Kubernetes' own to the last field; only the API server judges them.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, NotRequired

from pydantic import AfterValidator, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, with_config
from pydantic_core import CoreSchema, core_schema
from typing_extensions import TypedDict

__all__ = [
    "OPTIONAL_NAME",
    "Annotations",
    "AppArmor",
    "Capabilities",
    "Environment",
    "Labels",
    "Name",
    "PullSecrets",
    "Resources",
    "SeLinux",
    "Tolerations",
    "host_path",
    "without",
]

Texts = dict[str, str]
Tree = dict[str, Any]

_PART: Final = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_SUBDOMAIN: Final = rf"{_PART}(\.{_PART})*"
_WORD: Final = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
OPTIONAL_NAME: Final = rf"^({_SUBDOMAIN})?$"
"""An object's name, or none."""
_KEY: Final = rf"^({_SUBDOMAIN}/)?{_WORD}$"
_QUANTITY: Final = r"^[0-9]{1,12}(\.[0-9]{1,3})?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"

Name = Annotated[str, Field(pattern=rf"^{_SUBDOMAIN}$", max_length=253)]
_Key = Annotated[str, Field(pattern=_KEY, max_length=253)]
_LabelValue = Annotated[str, Field(pattern=rf"^({_WORD})?$")]


class _closed:  # noqa: N801 - reads as a word where it stands
    """No key but those of the pattern: patternProperties alone lets any other key through."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> Tree:
        made = handler(schema)
        ((pattern, value),) = made.pop("patternProperties").items()
        names = {**made.get("propertyNames", {}), "pattern": pattern}
        return {**made, "additionalProperties": value, "propertyNames": names}


Labels = Annotated[dict[_Key, _LabelValue], _closed()]
Annotations = Annotated[dict[_Key, str], _closed()]
Capabilities = list[Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")]]


def host_path(*, optional: bool) -> Any:
    """Give the field of a folder of the node: absolute, in plain characters, no `..` in it."""
    folders = r"(/([!-,0-~\-][!-.0-~]*|\.[!-,0-~\-][!-.0-~]*|\.\.[!-.0-~]+))+"
    return Field(pattern=rf"^({folders})?$" if optional else f"^{folders}$", max_length=1024)


class without:  # noqa: N801 - reads as a word where it stands
    """Keys that are ours: a pod that had such a label otherwise would not be found."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> Tree:
        made = handler(schema)
        return {**made, "propertyNames": {**made.get("propertyNames", {}), "not": {"enum": list(self._names)}}}

    def _check(self, labels: Texts) -> Texts:
        if taken := sorted(labels.keys() & set(self._names)):
            raise ValueError(f"the key is taken: key={taken[0]}")
        return labels


_CLOSED: Final = ConfigDict(extra="forbid", strict=True)


@with_config(_CLOSED)
class _Reference(TypedDict):
    name: Name


def _distinct(found: list[_Reference]) -> list[_Reference]:
    names = [one["name"] for one in found]
    if len(set(names)) < len(names):
        raise ValueError(f"a secret is named twice: names={', '.join(names)}")
    return found


PullSecrets = Annotated[list[_Reference], AfterValidator(_distinct), Field(json_schema_extra={"uniqueItems": True})]

Quantity = (
    Annotated[str, Field(pattern=_QUANTITY)]
    | Annotated[int, Field(ge=0, le=1 << 50)]
    | Annotated[float, Field(ge=0.001, le=1 << 50)]
)
_Amounts = TypedDict(
    "_Amounts",
    {"cpu": NotRequired[Quantity], "memory": NotRequired[Quantity], "ephemeral-storage": NotRequired[Quantity]},
)
_Amounts.__pydantic_config__ = _CLOSED  # type: ignore[attr-defined]  # with_config takes classes alone; a name with a hyphen is none


@with_config(_CLOSED)
class Resources(TypedDict):
    """Requests and limits of a container."""

    requests: NotRequired[_Amounts]
    limits: NotRequired[_Amounts]


_Effect = Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]
_Seconds = Annotated[int, Field(ge=0, le=1 << 40)]


@with_config(_CLOSED)
class _Exists(TypedDict):
    operator: Literal["Exists"]
    key: NotRequired[_Key]
    effect: NotRequired[_Effect]


@with_config(_CLOSED)
class _ExistsForAWhile(TypedDict):
    operator: Literal["Exists"]
    key: NotRequired[_Key]
    effect: Literal["NoExecute"]
    tolerationSeconds: _Seconds


@with_config(_CLOSED)
class _Equal(TypedDict):
    operator: NotRequired[Literal["Equal"]]
    key: _Key
    value: NotRequired[_LabelValue]
    effect: NotRequired[_Effect]


@with_config(_CLOSED)
class _EqualForAWhile(TypedDict):
    operator: NotRequired[Literal["Equal"]]
    key: _Key
    value: NotRequired[_LabelValue]
    effect: Literal["NoExecute"]
    tolerationSeconds: _Seconds


Tolerations = list[_Exists | _ExistsForAWhile | _Equal | _EqualForAWhile]


@with_config(_CLOSED)
class _Nothing(TypedDict):
    pass


@with_config(_CLOSED)
class _NodesOwn(TypedDict):
    type: Literal["RuntimeDefault", "Unconfined"]


@with_config(_CLOSED)
class _Loaded(TypedDict):
    type: Literal["Localhost"]
    localhostProfile: Annotated[str, Field(pattern=r"^[!-~]([ -~]*[!-~])?$", max_length=4095)]


AppArmor = _Nothing | _NodesOwn | _Loaded


@with_config(_CLOSED)
class SeLinux(TypedDict):
    """A pod's seLinuxOptions."""

    user: NotRequired[str]
    role: NotRequired[str]
    type: NotRequired[str]
    level: NotRequired[str]


_EnvName = Annotated[str, Field(pattern=r"^[A-Za-z_][-._A-Za-z0-9]*$")]
_DataKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][-._A-Za-z0-9]*$", max_length=253)]


@with_config(_CLOSED)
class _KeyOf(TypedDict):
    name: Name
    key: _DataKey
    optional: NotRequired[bool]


@with_config(_CLOSED)
class _FieldOf(TypedDict):
    fieldPath: Literal[
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.nodeName",
        "spec.serviceAccountName",
        "status.hostIP",
        "status.podIP",
    ]


@with_config(_CLOSED)
class _FromSecret(TypedDict):
    secretKeyRef: _KeyOf


@with_config(_CLOSED)
class _FromConfigMap(TypedDict):
    configMapKeyRef: _KeyOf


@with_config(_CLOSED)
class _FromField(TypedDict):
    fieldRef: _FieldOf


@with_config(_CLOSED)
class _Given(TypedDict):
    name: _EnvName
    value: NotRequired[str]


@with_config(_CLOSED)
class _Found(TypedDict):
    name: _EnvName
    valueFrom: _FromSecret | _FromConfigMap | _FromField


Environment = list[_Given | _Found]
