"""Who may do what: service accounts and RBAC, apart for agent and server. docs/guide/permissions.md explains each line; a test holds both equal.

The agent reads pods, PVCs, PVs and CSI drivers everywhere, and does the rest in its namespace. It can delete nothing. What RBAC cannot say (which object, whose
node) :mod:`.policy` says.
"""

from __future__ import annotations

from typing import Any, Final

from longshore.install.labels import AGENT, CLUSTER_NAME, SERVER, Part, metadata
from longshore.install.template import NAMESPACE, Value, When

__all__ = ["AGENT_CLUSTER_RULES", "AGENT_RULES", "PARTS", "SERVER_RULES"]

_RBAC: Final = "rbac.authorization.k8s.io"
_READ: Final = ("get", "list", "watch")


def _rule(group: str, resources: tuple[str, ...], verbs: tuple[str, ...]) -> dict[str, Any]:
    return {"apiGroups": [group], "resources": list(resources), "verbs": list(verbs)}


AGENT_CLUSTER_RULES: Final = [
    _rule("", ("pods",), _READ),
    _rule("", ("persistentvolumeclaims", "persistentvolumes"), _READ),
    _rule("storage.k8s.io", ("csidrivers",), _READ),
]
"""What the agent reads in all namespaces."""
AGENT_RULES: Final = [
    _rule("velero.io", ("backupstoragelocations",), _READ),
    _rule("velero.io", ("podvolumebackups", "podvolumerestores"), (*_READ, "patch")),
    _rule("", ("secrets",), ("get", "create")),
    _rule("", ("events",), ("create", "patch")),
    _rule("coordination.k8s.io", ("leases",), ("get", "create", "update")),
]
"""What the agent does in its own namespace."""
SERVER_RULES: Final = [
    _rule("velero.io", ("backupstoragelocations",), (*_READ, "patch")),
    _rule("velero.io", ("backuprepositories", "resticrepositories"), (*_READ, "create", "patch")),
    _rule("velero.io", ("podvolumebackups",), _READ),
    _rule("", ("secrets",), ("get", "create", "patch")),
    _rule("", ("events",), ("create", "patch")),
    _rule("coordination.k8s.io", ("leases",), ("get", "create", "update")),
    # Maintenance: a Job made from the server's own Deployment, as the config map says, watched through its pod.
    _rule("apps", ("deployments",), ("get",)),
    _rule("batch", ("jobs",), ("list", "create", "delete")),
    _rule("", ("pods",), ("list",)),
    _rule("", ("configmaps",), ("get",)),
]
"""What the server does in its own namespace. It does nothing outside."""


def _account(name: str, *, annotations: str) -> dict[str, Any]:
    noted = When(Value(annotations), Value(annotations))
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(name, component=name, annotations=noted),
    }


def _role(kind: str, name: Any, component: str, rules: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": kind,
        "metadata": metadata(name, component=component, namespaced=kind == "Role"),
        "rules": rules,
    }


def _binding(kind: str, name: Any, account: str) -> dict[str, Any]:
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": f"{kind}Binding",
        "metadata": metadata(name, component=account, namespaced=kind == "Role"),
        "roleRef": {"apiGroup": _RBAC, "kind": kind, "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE}],
    }


_SERVER: Final = Value("server.enabled")
PARTS: Final = (
    Part(
        "agent-access",
        "What the node agent may do.",
        (
            (None, _account(AGENT, annotations="serviceAccounts.agent.annotations")),
            (None, _role("ClusterRole", CLUSTER_NAME, AGENT, AGENT_CLUSTER_RULES)),
            (None, _binding("ClusterRole", CLUSTER_NAME, AGENT)),
            (None, _role("Role", AGENT, AGENT, AGENT_RULES)),
            (None, _binding("Role", AGENT, AGENT)),
        ),
    ),
    Part(
        "server-access",
        "What the server may do.",
        (
            (_SERVER, _account(SERVER, annotations="serviceAccounts.server.annotations")),
            (_SERVER, _role("Role", SERVER, SERVER, SERVER_RULES)),
            (_SERVER, _binding("Role", SERVER, SERVER)),
        ),
    ),
)
