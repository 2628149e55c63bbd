"""What an installation keeps: the namespace, the custom resource definitions, the Secret and the first storage location. An uninstall leaves them."""

from __future__ import annotations

from typing import Any, Final

from longshore.api.crdgen import KINDS, crd_of
from longshore.install.labels import Part, metadata
from longshore.install.template import NAMESPACE, All, Choose, Encoded, Equals, Not, Value, When

__all__ = ["CREDENTIALS", "DEFINITIONS", "PARTS"]

CREDENTIALS: Final = "cloud-credentials"

_LEVEL: Final = "pod-security.kubernetes.io"
_NAMESPACE: Final[dict[str, Any]] = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": metadata(
        NAMESPACE,
        component="namespace",
        namespaced=False,
        # hostPath is forbidden by the levels below this one.
        labels={f"{_LEVEL}/enforce": "privileged", f"{_LEVEL}/audit": "privileged", f"{_LEVEL}/warn": "privileged"},
    ),
}
_SECRET: Final[dict[str, Any]] = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": metadata(CREDENTIALS, component="location"),
    "type": "Opaque",
    "data": {"cloud": Encoded(Value("credentials.secretContents"))},
}
_GIVEN: Final = Value("credentials.secretContents")
_EXISTING: Final = Value("credentials.existingSecret")
_LOCATION: Final[dict[str, Any]] = {
    "apiVersion": "velero.io/v1",
    "kind": "BackupStorageLocation",
    "metadata": metadata(Value("location.name"), component="location"),
    "spec": {
        "provider": Value("location.provider"),
        "default": Choose(Equals(Value("location.name"), "default"), then=True, otherwise=False),
        "accessMode": Value("location.accessMode"),
        "objectStorage": {
            "bucket": Value("location.bucket"),
            "prefix": When(Value("location.prefix"), Value("location.prefix")),
            "caCert": When(Value("location.caCert"), Value("location.caCert")),
        },
        "config": When(Value("location.config"), Value("location.config")),
        "credential": When(
            # Either of the two; the contents go before.
            Not(All((Not(_GIVEN), Not(_EXISTING)))),
            {
                "name": Choose(_GIVEN, CREDENTIALS, _EXISTING),
                "key": Choose(_GIVEN, "cloud", Value("credentials.key")),
            },
        ),
    },
}


DEFINITIONS: Final = tuple(crd_of(model) for model in KINDS)
PARTS: Final = (
    Part(
        "namespace",
        "The namespace, with its pod-security labels.",
        ((Value("namespace.create"), _NAMESPACE),),
        keeps=True,
    ),
    Part(
        "crds",
        "Custom resource definitions.",
        tuple((Value("crds.install"), one) for one in DEFINITIONS),
        keeps=True,
    ),
    Part(
        "location",
        "The first storage location and how it is entered.",
        (
            (All((Value("location.enabled"), _GIVEN)), _SECRET),
            (Value("location.enabled"), _LOCATION),
        ),
        keeps=True,
    ),
)
