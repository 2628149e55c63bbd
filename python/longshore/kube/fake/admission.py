"""What the server fills in and refuses before it keeps an object: metadata for all, schemas for custom resources, a few rules for Kubernetes' own kinds.

Only rules that a controller can trip over: names, labels and base64 as every kind has them, immutable secrets, lease fields, what a pod's status may not be
created with. Pure.
"""

from __future__ import annotations

import base64
import binascii
import copy
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from longshore.kube.fake import schema
from longshore.kube.fake.kinds import GroupPlural, Kind
from longshore.kube.fake.status import bad_request, conflict, invalid
from longshore.kube.resource import JsonObject, Resource

__all__ = ["Validator", "admit", "merge_write"]

Validator = Callable[[Resource, JsonObject, JsonObject | None], str | None]
"""Gets kind, new state and old state (None on create); gives back why it refuses, or None."""

Causes = list[tuple[str, str, str]]
_SUBDOMAIN: Final = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
_LABEL: Final = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
_QUALIFIED: Final = re.compile(r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")
_LABEL_VALUE: Final = re.compile(r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$")
_MICRO_TIME: Final = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)$")
_KEPT_ON_WRITE: Final = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
)
_PENDING_AT_FIRST: Final = frozenset({("", "pods"), ("", "persistentvolumeclaims"), ("", "persistentvolumes")})
_SECRET_BYTES_MAX: Final = 1_048_576
_ANNOTATION_BYTES_MAX: Final = 262_144


def admit(
    kind: Kind, new: JsonObject, old: JsonObject | None, *, validators: Sequence[Validator] = (), trusted: bool = False
) -> JsonObject:
    """Fill in, drop and check.

    Args:
        old: None on create.
        trusted: skip what guards status against everyone but its owner.

    Returns:
        The state to keep.

    Raises:
        StatusError: 400 or 422.
    """
    _check_types(new)
    resource = kind.resource
    name = str(new["metadata"].get("name") or "")
    given = str(new.get("apiVersion") or resource.api_version)
    new = {**new, "apiVersion": resource.api_version, "kind": resource.kind}
    _drop_empty_metadata(new["metadata"])
    causes = _metadata_causes(kind, new["metadata"])
    if old is None and not trusted and kind.key in _PENDING_AT_FIRST:
        new["status"] = {"phase": "Pending"}
    if kind.custom:
        if old is None and kind.status_subresource and not trusted:
            new.pop("status", None)
        version = given.rpartition("/")[2]
        rules = kind.schemas.get(version) or kind.schemas.get(resource.version) or {}
        if rules:
            new = schema.apply_defaults(schema.prune(new, rules), rules)
            causes += schema.validate(new, rules)
    elif kind.key in _OWN_RULES:
        causes += _OWN_RULES[kind.key](new, old)
    if causes:
        raise invalid(resource, name, causes)
    for validator in validators:
        why = validator(resource, new, old)
        if why is not None:
            raise invalid(resource, name, [("<root>", "FieldValueInvalid", why)])
    return new


def merge_write(kind: Kind, old: JsonObject, new: JsonObject, *, subresource: str | None, trusted: bool) -> JsonObject:
    """Check that the write is allowed at all, and put back whatever this path may not change."""
    was: dict[str, Any] = old["metadata"]
    metadata: dict[str, Any] = new.setdefault("metadata", {})
    name, namespace = was["name"], was.get("namespace", "")
    if metadata.get("name", name) != name:
        raise bad_request(f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})")
    if metadata.get("namespace", namespace) != namespace:
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
    if metadata.get("uid", was["uid"]) != was["uid"]:
        raise conflict(
            kind.resource,
            name,
            f"Precondition failed: UID in precondition: {metadata['uid']}, UID in object meta: {was['uid']}",
        )
    if metadata.get("resourceVersion", was["resourceVersion"]) not in {"", was["resourceVersion"]}:
        raise conflict(
            kind.resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    if subresource == "status":
        status = new.get("status")
        new = {field: value for field, value in old.items() if field != "status"}
        if status is not None:
            new["status"] = status
        new["metadata"] = metadata = copy.deepcopy(was)
    elif kind.status_subresource and not trusted:
        new.pop("status", None)
        if "status" in old:
            new["status"] = copy.deepcopy(old["status"])
    for field in _KEPT_ON_WRITE:
        if field in was:
            metadata[field] = was[field]
        else:
            metadata.pop(field, None)
    metadata.pop("managedFields", None)
    if was.get("deletionTimestamp"):
        fresh = sorted(set(metadata.get("finalizers") or ()) - set(was.get("finalizers") or ()))
        if fresh:
            why = f"Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers {fresh}"
            raise invalid(kind.resource, name, [("metadata.finalizers", "FieldValueForbidden", why)])
    return new


def _check_types(obj: JsonObject) -> None:
    metadata = obj["metadata"]
    for field, wanted in (("labels", dict), ("annotations", dict), ("finalizers", list), ("ownerReferences", list)):
        value = metadata.get(field)
        if value is not None and not isinstance(value, wanted):
            raise bad_request(f"json: cannot unmarshal into Go struct field ObjectMeta.metadata.{field}")
        if isinstance(value, dict) and not all(isinstance(item, str) for item in value.values()):
            raise bad_request(f"json: cannot unmarshal into Go struct field ObjectMeta.metadata.{field} of type string")


def _drop_empty_metadata(metadata: dict[str, Any]) -> None:
    """The server's types leave empty collections out."""
    for field in ("labels", "annotations", "finalizers", "ownerReferences"):
        if field in metadata and not metadata[field]:
            del metadata[field]


def _metadata_causes(kind: Kind, metadata: dict[str, Any]) -> Causes:
    name = str(metadata.get("name") or "")
    causes: Causes = []
    if not name:
        return [("metadata.name", "FieldValueRequired", "Required value: name or generateName is required")]
    form = _LABEL if kind.key == ("", "namespaces") else _SUBDOMAIN
    if len(name) > (63 if form is _LABEL else 253) or form.match(name) is None:
        what = "RFC 1123 label" if form is _LABEL else "RFC 1123 subdomain"
        causes.append(
            (
                "metadata.name",
                "FieldValueInvalid",
                f'Invalid value: "{name}": a lowercase {what} must consist of lower case alphanumeric characters',
            )
        )
    for key, value in (metadata.get("labels") or {}).items():
        if _QUALIFIED.match(key) is None:
            causes.append(
                (
                    "metadata.labels",
                    "FieldValueInvalid",
                    f'Invalid value: "{key}": name part must consist of alphanumeric characters',
                )
            )
        if _LABEL_VALUE.match(value) is None:
            what = (
                "must be no more than 63 characters"
                if len(value) > 63
                else "a valid label must be an empty string or consist of alphanumeric characters"
            )
            causes.append(("metadata.labels", "FieldValueInvalid", f'Invalid value: "{value}": {what}'))
    annotations = metadata.get("annotations") or {}
    if sum(len(key) + len(value.encode()) for key, value in annotations.items()) > _ANNOTATION_BYTES_MAX:
        causes.append(
            (
                "metadata.annotations",
                "FieldValueTooLong",
                f"Too long: may not be more than {_ANNOTATION_BYTES_MAX} bytes",
            )
        )
    for finalizer in metadata.get("finalizers") or ():
        if _QUALIFIED.match(str(finalizer)) is None:
            causes.append(
                (
                    "metadata.finalizers",
                    "FieldValueInvalid",
                    f'Invalid value: "{finalizer}": name part must consist of alphanumeric characters',
                )
            )
    return causes


def _secret(new: JsonObject, old: JsonObject | None) -> Causes:
    data = dict(new.get("data") or {})
    for key, text in (new.pop("stringData", None) or {}).items():
        data[key] = base64.b64encode(str(text).encode()).decode()
    size = 0
    for key, text in data.items():
        try:
            size += len(base64.b64decode(text, validate=True))
        except (binascii.Error, TypeError, ValueError):
            raise bad_request(
                f'Secret in version "v1" cannot be handled as a Secret: illegal base64 data in key {key}'
            ) from None
    new.pop("data", None)
    if data:
        new["data"] = data
    new.setdefault("type", "Opaque" if old is None else old.get("type", "Opaque"))
    causes: Causes = []
    if size > _SECRET_BYTES_MAX:
        causes.append(("data", "FieldValueTooLong", f"Too long: may not be more than {_SECRET_BYTES_MAX} bytes"))
    if old is not None:
        if new["type"] != old.get("type"):
            causes.append(("type", "FieldValueInvalid", "Invalid value: field is immutable"))
        if old.get("immutable"):
            if not new.get("immutable"):
                causes.append(
                    ("immutable", "FieldValueForbidden", "Forbidden: field is immutable when `immutable` is set")
                )
            if new.get("data") != old.get("data"):
                causes.append(("data", "FieldValueForbidden", "Forbidden: field is immutable when `immutable` is set"))
    return causes


def _config_map(new: JsonObject, old: JsonObject | None) -> Causes:
    if (
        old is not None
        and old.get("immutable")
        and (new.get("data"), new.get("binaryData")) != (old.get("data"), old.get("binaryData"))
    ):
        return [("data", "FieldValueForbidden", "Forbidden: field is immutable when `immutable` is set")]
    return []


def _pod(new: JsonObject, old: JsonObject | None) -> Causes:
    spec = new.get("spec") or {}
    causes: Causes = []
    if not spec.get("containers"):
        causes.append(("spec.containers", "FieldValueRequired", "Required value"))
    for number, container in enumerate(spec.get("containers") or ()):
        for field in ("name", "image"):
            if not container.get(field):
                causes.append((f"spec.containers[{number}].{field}", "FieldValueRequired", "Required value"))
    if old is not None and (old.get("spec") or {}).get("nodeName") and spec.get("nodeName") != old["spec"]["nodeName"]:
        causes.append(
            (
                "spec",
                "FieldValueForbidden",
                "Forbidden: pod updates may not change fields other than images and tolerations",
            )
        )
    return causes


def _namespace(new: JsonObject, old: JsonObject | None) -> Causes:
    new["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = new["metadata"]["name"]
    new.setdefault("spec", {"finalizers": ["kubernetes"]})
    if old is None:
        new["status"] = {"phase": "Active"}
    return []


def _lease(new: JsonObject, _old: JsonObject | None) -> Causes:
    spec = new.get("spec") or {}
    causes: Causes = []
    for field in ("acquireTime", "renewTime"):
        if spec.get(field) is not None and _MICRO_TIME.match(str(spec[field])) is None:
            raise bad_request(
                f'Lease in version "v1" cannot be handled as a Lease: parsing time "{spec[field]}" in spec.{field}'
            )
    seconds, transitions = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
    if seconds is not None and seconds <= 0:
        causes.append(
            ("spec.leaseDurationSeconds", "FieldValueInvalid", f"Invalid value: {seconds}: must be greater than 0")
        )
    if transitions is not None and transitions < 0:
        causes.append(
            (
                "spec.leaseTransitions",
                "FieldValueInvalid",
                f"Invalid value: {transitions}: must be greater than or equal to 0",
            )
        )
    return causes


def _definition(new: JsonObject, old: JsonObject | None) -> Causes:
    spec = new.get("spec") or {}
    names = spec.get("names") or {}
    wanted = f"{names.get('plural')}.{spec.get('group')}"
    if new["metadata"]["name"] != wanted:
        return [
            (
                "metadata.name",
                "FieldValueInvalid",
                f'Invalid value: "{new["metadata"]["name"]}": must be spec.names.plural+"."+spec.group',
            )
        ]
    if sum(bool(version.get("storage")) for version in spec.get("versions") or ()) != 1:
        return [
            (
                "spec.versions",
                "FieldValueInvalid",
                "Invalid value: must have exactly one version marked as storage version",
            )
        ]
    if old is None:
        established = [{"type": kind, "status": "True", "reason": kind} for kind in ("NamesAccepted", "Established")]
        stored = [version["name"] for version in spec["versions"] if version.get("storage")]
        new["status"] = {"conditions": established, "acceptedNames": names, "storedVersions": stored}
    return []


_OWN_RULES: Final[dict[GroupPlural, Callable[[JsonObject, JsonObject | None], Causes]]] = {
    ("", "secrets"): _secret,
    ("", "configmaps"): _config_map,
    ("", "pods"): _pod,
    ("", "namespaces"): _namespace,
    ("coordination.k8s.io", "leases"): _lease,
    ("apiextensions.k8s.io", "customresourcedefinitions"): _definition,
}
