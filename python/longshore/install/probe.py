"""`helm test`: a pod that asks `longshore status --installation`, with an account that may look at the installation and at nothing else."""

from __future__ import annotations

from typing import Any, Final

from longshore.install.labels import Part, metadata
from longshore.install.template import NAMESPACE, Value, When
from longshore.install.workloads import IMAGE, NOBODY

__all__ = ["PARTS"]

_NAME: Final = "longshore-test"
_RBAC: Final = "rbac.authorization.k8s.io"


def _hook(weight: int) -> dict[str, str]:
    return {
        "helm.sh/hook": "test",
        "helm.sh/hook-weight": str(weight),
        "helm.sh/hook-delete-policy": "before-hook-creation,hook-succeeded",
    }


def _metadata(weight: int) -> dict[str, Any]:
    return metadata(_NAME, component="test", annotations=_hook(weight))


PARTS: Final = (
    Part(
        "test",
        "What helm test runs.",
        (
            (None, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _metadata(1)}),
            (
                None,
                {
                    "apiVersion": f"{_RBAC}/v1",
                    "kind": "Role",
                    "metadata": _metadata(1),
                    "rules": [
                        {"apiGroups": ["apps"], "resources": ["daemonsets", "deployments"], "verbs": ["get"]},
                        {
                            "apiGroups": ["velero.io"],
                            "resources": ["backupstoragelocations", "backuprepositories"],
                            "verbs": ["list"],
                        },
                    ],
                },
            ),
            (
                None,
                {
                    "apiVersion": f"{_RBAC}/v1",
                    "kind": "RoleBinding",
                    "metadata": _metadata(2),
                    "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": _NAME},
                    "subjects": [{"kind": "ServiceAccount", "name": _NAME, "namespace": NAMESPACE}],
                },
            ),
            (
                None,
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": _metadata(3),
                    "spec": {
                        "restartPolicy": "Never",
                        "serviceAccountName": _NAME,
                        "imagePullSecrets": When(Value("imagePullSecrets"), Value("imagePullSecrets")),
                        "securityContext": {
                            "runAsNonRoot": True,
                            "runAsUser": NOBODY,
                            "seccompProfile": {"type": "RuntimeDefault"},
                        },
                        "containers": [
                            {
                                "name": "status",
                                "image": IMAGE,
                                "imagePullPolicy": Value("image.pullPolicy"),
                                "command": ["/velero"],
                                "args": ["status", "--installation", "--wait", "120"],
                                "env": [
                                    {
                                        "name": "VELERO_NAMESPACE",
                                        "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}},
                                    }
                                ],
                                "securityContext": {
                                    "allowPrivilegeEscalation": False,
                                    "readOnlyRootFilesystem": True,
                                    "capabilities": {"drop": ["ALL"]},
                                },
                            }
                        ],
                    },
                },
            ),
        ),
    ),
)
