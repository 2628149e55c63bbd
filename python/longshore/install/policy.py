"""What RBAC cannot say of the agent and of the server: an admission policy for each service account alone.

RBAC grants a verb on a kind, so with it alone the token of one node could write the objects of every other. The API server knows a pod's node from its bound
token; the policy compares.

- *PodVolumeBackup*: `spec.node` is the caller's node, and the spec is left as it is.
- *PodVolumeRestore*: it names no node at first. The claim writes the caller's own into an empty `status.node` and, for definitions that drop it there, into an
  annotation; every later write needs it there. Before the claim only metadata may change.
- *Lease*: the caller's node's own. One agent cannot make another one stop.
- *Secret*: only the one that holds the root key may be made. A Secret of type service-account-token would be filled by Kubernetes with another account's token,
  and the agent may read Secrets.

The server may make Jobs, and who may make Jobs in a namespace may have a pod there under any of its accounts, the agents' too. So a Job of the server's is
compared with its own Deployment: the same account, image, volumes and security settings, and the one command that maintains.

Promises: nobody but these accounts is judged; an agent's token without a node is refused; where a policy cannot be evaluated the write is refused.

What it cannot do: see on which node a restore's pod is. An agent whose node was taken over can claim any restore that nobody has claimed yet.
"""

from __future__ import annotations

from typing import Any, Final

from longshore.install.labels import AGENT, CLUSTER_NAME, SERVER, SERVER_CLUSTER_NAME, Part, metadata
from longshore.install.template import NAMESPACE, All, Text, Value

__all__ = ["PARTS"]

_NODE: Final = "authentication.kubernetes.io/node-name"
_CLAIM: Final = "longshore.io/node"
_LEASE: Final = "longshore-node-agent-"
_LEASE_NODE_CHARS_MAX: Final = 253 - len(_LEASE)
"""A longer node's Lease ends in a hash, which an expression cannot compute: only its beginning is compared."""
_SECRET: Final = "longshore-repo-credentials"  # noqa: S105 - the name of an object


def _validation(resource: str, expression: str, message: str) -> dict[str, Any]:
    return {
        "expression": f"request.resource.resource != '{resource}' || ({expression})",
        "message": message,
        "reason": "Forbidden",
    }


def _claimed_by(obj: str) -> str:
    """Say whose a restore is: in the status, or, under definitions of Velero before 1.17 that drop it there, in the annotation that the claim writes too."""
    return (
        f"has({obj}.status) && has({obj}.status.node) && {obj}.status.node != '' ? {obj}.status.node : "
        f"has({obj}.metadata.annotations) && '{_CLAIM}' in {obj}.metadata.annotations ? {obj}.metadata.annotations['{_CLAIM}'] : ''"
    )


_POLICY: Final[dict[str, Any]] = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "ValidatingAdmissionPolicy",
    "metadata": metadata(CLUSTER_NAME, component=AGENT, namespaced=False),
    "spec": {
        "failurePolicy": "Fail",
        "matchConstraints": {
            "resourceRules": [
                {
                    "apiGroups": ["velero.io"],
                    "apiVersions": ["*"],
                    "operations": ["CREATE", "UPDATE"],
                    "resources": ["podvolumebackups", "podvolumerestores"],
                    "scope": "Namespaced",
                },
                {
                    "apiGroups": ["coordination.k8s.io"],
                    "apiVersions": ["*"],
                    "operations": ["CREATE", "UPDATE"],
                    "resources": ["leases"],
                    "scope": "Namespaced",
                },
                {
                    "apiGroups": [""],
                    "apiVersions": ["*"],
                    "operations": ["CREATE"],
                    "resources": ["secrets"],
                    "scope": "Namespaced",
                },
            ]
        },
        "matchConditions": [
            {
                "name": "the-agents-account",
                "expression": Text(f"request.userInfo.username == 'system:serviceaccount:%v:{AGENT}'", (NAMESPACE,)),
            }
        ],
        "variables": [
            {
                "name": "node",
                "expression": f"has(request.userInfo.extra) && '{_NODE}' in request.userInfo.extra ? request.userInfo.extra['{_NODE}'][0] : ''",
            },
            {
                "name": "before",
                "expression": f"oldObject == null ? '' : {_claimed_by('oldObject')}",
            },
            {
                "name": "after",
                "expression": _claimed_by("object"),
            },
            {
                "name": "sameStatus",
                "expression": (
                    "oldObject != null && has(object.status) == has(oldObject.status) && "
                    "(!has(object.status) || object.status == oldObject.status)"
                ),
            },
        ],
        "validations": [
            {
                "expression": "variables.node != ''",
                "message": "the token is bound to no pod on a node: run the agent in the DaemonSet, on Kubernetes 1.30 or later",
                "reason": "Forbidden",
            },
            _validation(
                "podvolumebackups",
                "request.operation == 'UPDATE' && object.spec == oldObject.spec && object.spec.node == variables.node",
                "a node agent writes only the status of PodVolumeBackups of its own node",
            ),
            _validation(
                "podvolumerestores",
                "request.operation == 'UPDATE' && object.spec == oldObject.spec && "
                "((variables.before == '' && (variables.after == variables.node || (variables.after == '' && variables.sameStatus))) || "
                "(variables.before == variables.node && variables.after == variables.node))",
                "a node agent claims a PodVolumeRestore for its own node, and writes only what it has claimed",
            ),
            _validation(
                "leases",
                f"size(variables.node) > {_LEASE_NODE_CHARS_MAX} ? object.metadata.name.startsWith('{_LEASE}') : "
                f"object.metadata.name == '{_LEASE}' + variables.node",
                "a node agent holds the Lease of its own node alone",
            ),
            _validation(
                "secrets",
                f"object.metadata.name == '{_SECRET}' && has(object.type) && object.type == 'Opaque'",
                f"a node agent makes no Secret but {_SECRET}",
            ),
        ],
    },
}
_BINDING: Final[dict[str, Any]] = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "ValidatingAdmissionPolicyBinding",
    "metadata": metadata(CLUSTER_NAME, component=AGENT, namespaced=False),
    "spec": {"policyName": CLUSTER_NAME, "validationActions": ["Deny"]},
}


def _same(field: str) -> str:
    """An expression that holds when Job and Deployment say the same of a field of their pods, or both nothing."""
    job, deployment = f"variables.pod.{field}", f"variables.own.{field}"
    return f"has({job}) == has({deployment}) && (!has({job}) || {job} == {deployment})"


_JOBS: Final[dict[str, Any]] = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "ValidatingAdmissionPolicy",
    "metadata": metadata(SERVER_CLUSTER_NAME, component=SERVER, namespaced=False),
    "spec": {
        "failurePolicy": "Fail",
        "paramKind": {"apiVersion": "apps/v1", "kind": "Deployment"},
        "matchConstraints": {
            "resourceRules": [
                {
                    "apiGroups": ["batch"],
                    "apiVersions": ["*"],
                    "operations": ["CREATE", "UPDATE"],
                    "resources": ["jobs"],
                    "scope": "Namespaced",
                },
            ]
        },
        "matchConditions": [
            {
                "name": "the-servers-account",
                "expression": Text(f"request.userInfo.username == 'system:serviceaccount:%v:{SERVER}'", (NAMESPACE,)),
            }
        ],
        "variables": [
            {"name": "pod", "expression": "object.spec.template.spec"},
            {"name": "own", "expression": "params.spec.template.spec"},
        ],
        "validations": [
            {"expression": expression, "message": message, "reason": "Forbidden"}
            for expression, message in (
                (
                    f"has(variables.pod.serviceAccountName) && variables.pod.serviceAccountName == '{SERVER}'",
                    "a Job of the server runs under the server's account",
                ),
                (
                    " && ".join(f"({_same(field)})" for field in ("volumes", "securityContext")),
                    "a Job of the server has the volumes and the security context of the server's Deployment",
                ),
                (
                    " && ".join(
                        f"(!has(variables.pod.{field}) || !variables.pod.{field})"
                        for field in ("hostNetwork", "hostPID", "hostIPC")
                    ),
                    "a Job of the server has nothing of its node",
                ),
                (
                    (
                        "(!has(variables.pod.initContainers) || size(variables.pod.initContainers) == 0) && "
                        "size(variables.pod.containers) == 1 && variables.pod.containers.all(one, "
                        "has(one.args) && size(one.args) > 2 && one.args[0] == 'repo' && one.args[1] == 'maintain' && "
                        "!has(one.lifecycle) && variables.own.containers.exists(own, own.image == one.image && "
                        "(!has(one.command) || (has(own.command) && one.command.all(word, word in own.command))) && "
                        "has(own.securityContext) == has(one.securityContext) && "
                        "(!has(one.securityContext) || own.securityContext == one.securityContext)))"
                    ),
                    "a Job of the server has one container: that of the server's Deployment, with the command that maintains",
                ),
            )
        ],
    },
}
_JOBS_BINDING: Final[dict[str, Any]] = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "ValidatingAdmissionPolicyBinding",
    "metadata": metadata(SERVER_CLUSTER_NAME, component=SERVER, namespaced=False),
    "spec": {
        "policyName": SERVER_CLUSTER_NAME,
        "paramRef": {"name": SERVER, "namespace": NAMESPACE, "parameterNotFoundAction": "Deny"},
        "validationActions": ["Deny"],
    },
}
_ENABLED: Final = Value("policy.enabled")
_JOBS_ENABLED: Final = All((_ENABLED, Value("server.enabled")))
PARTS: Final = (
    Part("agent-policy", "What the node agent may write, beyond RBAC.", ((_ENABLED, _POLICY), (_ENABLED, _BINDING))),
    Part(
        "server-policy",
        "Which Jobs the server may make, beyond RBAC.",
        ((_JOBS_ENABLED, _JOBS), (_JOBS_ENABLED, _JOBS_BINDING)),
    ),
)
