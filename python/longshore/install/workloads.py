"""The DaemonSet and the server's Deployment.

The agent runs as root, for the files are everybody's, with what root can do cut down to named capabilities: to back up it must read every file
(DAC_READ_SEARCH) and must not move its access time (FOWNER); to restore it must write anywhere (DAC_OVERRIDE), give files away (CHOWN) and keep the
set-group-id bit of folders (FSETID). To bring back devices it makes them (MKNOD), file capabilities it sets them (SETFCAP): both only where
its policy allows them. One that only backs up gives up writing to volumes by itself. Root file system read-only, no privilege escalation,
seccomp on, memory bounded. The server is nobody's root and has no capability at all.

It does not know what either does.
"""

from __future__ import annotations

from typing import Any, Final

from longshore.install.labels import AGENT, AGENT_PODS, SERVER, SERVER_PODS, Part, metadata
from longshore.install.template import NAMESPACE, SPLICE, All, Choose, Contains, Not, Splice, Text, Value, When

__all__ = ["IMAGE", "METRICS_PORT", "NOBODY", "PARTS"]

METRICS_PORT: Final = 8085
NOBODY: Final = 65532
"""The user as which the server runs; the image has it."""
IMAGE: Final = Choose(
    Value("image.digest"),
    Text("%v@%v", (Value("image.repository"), Value("image.digest"))),
    Text("%v:%v", (Value("image.repository"), Value("image.tag"))),
)
_SECCOMP: Final = "agent.seccompProfile"


def _probe(path: str, **times: int) -> dict[str, Any]:
    return {"httpGet": {"path": path, "port": "metrics"}, **times}


def _given(path: str) -> When:
    return When(Value(path), Value(path))


def _from_pod(field: str) -> dict[str, Any]:
    return {"fieldRef": {"apiVersion": "v1", "fieldPath": field}}


_ALLOW: Final = Value("agent.restoreAllow")
_LENDING: Final = tuple(
    # What the engine's policy lets through, the kernel must let it do.
    When(All((Value("agent.restores"), Contains(_ALLOW, word))), capability)
    for word, capability in (("devices", "MKNOD"), ("capabilities", "SETFCAP"))
)
_PORTS: Final = [{"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"}]
_PROBES: Final[dict[str, Any]] = {
    # Until the first lists are there, which takes minutes in a large cluster, nothing is judged.
    "startupProbe": _probe("/readyz", periodSeconds=5, timeoutSeconds=5, failureThreshold=60),
    "livenessProbe": _probe("/healthz", periodSeconds=20, timeoutSeconds=5, failureThreshold=6),
    "readinessProbe": _probe("/readyz", periodSeconds=10, timeoutSeconds=5, failureThreshold=3),
}
_LIMITS_DIR: Final = "/etc/longshore/limits"
_LIMITS: Final[dict[str, Any]] = {
    # Not arguments: they would restart every agent, and with it the jobs that run, whenever a limit is changed.
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": metadata(f"{AGENT}-limits", component=AGENT),
    "data": {
        "upload": Value("agent.limitUpload"),
        "download": Value("agent.limitDownload"),
        "requests": Text("%v", (Value("agent.limitRequests"),)),
    },
}
_AGENT: Final[dict[str, Any]] = {
    "apiVersion": "apps/v1",
    "kind": "DaemonSet",
    "metadata": metadata(AGENT, component=AGENT),
    "spec": {
        "selector": {"matchLabels": AGENT_PODS},
        "updateStrategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxUnavailable": Value("agent.maxUnavailable")},
        },
        "template": {
            "metadata": {
                "labels": {
                    **AGENT_PODS,
                    "app.kubernetes.io/name": "longshore",
                    "app.kubernetes.io/component": AGENT,
                    SPLICE: Value("agent.podLabels"),
                },
                "annotations": {
                    "kubectl.kubernetes.io/default-container": AGENT,
                    SPLICE: Value("agent.podAnnotations"),
                },
            },
            "spec": {
                "serviceAccountName": AGENT,
                "enableServiceLinks": False,
                "terminationGracePeriodSeconds": Value("agent.terminationGracePeriodSeconds"),
                "priorityClassName": _given("agent.priorityClassName"),
                "imagePullSecrets": _given("imagePullSecrets"),
                "nodeSelector": _given("agent.nodeSelector"),
                "tolerations": _given("agent.tolerations"),
                "affinity": _given("agent.affinity"),
                "securityContext": {
                    "runAsUser": 0,
                    "runAsGroup": 0,
                    "seccompProfile": {
                        "type": Value(f"{_SECCOMP}.type"),
                        "localhostProfile": _given(f"{_SECCOMP}.localhostProfile"),
                    },
                    "seLinuxOptions": _given("agent.seLinuxOptions"),
                },
                "containers": [
                    {
                        "name": AGENT,
                        "image": IMAGE,
                        "imagePullPolicy": Value("image.pullPolicy"),
                        "command": ["/velero"],
                        "args": [
                            "node-agent",
                            "server",
                            "--log-format=json",
                            Text("--log-level=%v", (Value("agent.logLevel"),)),
                            Text("--concurrency=%v", (Value("agent.concurrency"),)),
                            Text("--memory-limit=%v", (Value("agent.bufferMemory"),)),
                            f"--limits-dir={_LIMITS_DIR}",
                            Text("--nice=%v", (Value("agent.nice"),)),
                            Text("--ionice=%v", (Value("agent.ionice"),)),
                            When(Not(Value("agent.restores")), "--backup-only"),
                            When(_ALLOW, Text("--restore-allow=%v", (_ALLOW,))),
                        ],
                        "env": [
                            {"name": "NODE_NAME", "valueFrom": _from_pod("spec.nodeName")},
                            {"name": "VELERO_NAMESPACE", "valueFrom": _from_pod("metadata.namespace")},
                            {"name": "VELERO_SCRATCH_DIR", "value": "/scratch"},
                            {"name": "LONGSHORE_CACHE_DIR", "value": "/scratch/longshore"},
                            {"name": "LONGSHORE_CACHE_LIMIT", "value": Value("agent.cacheLimit")},
                            {"name": "HOME", "value": "/scratch"},
                            Splice(Value("agent.extraEnv")),
                        ],
                        "ports": _PORTS,
                        **_PROBES,
                        # What a process says that cannot even start stands in the pod's status, where longshore status finds it.
                        "terminationMessagePolicy": "FallbackToLogsOnError",
                        "resources": Value("agent.resources"),
                        "securityContext": {
                            "allowPrivilegeEscalation": False,
                            "privileged": False,
                            "readOnlyRootFilesystem": True,
                            "capabilities": {
                                "drop": ["ALL"],
                                "add": [
                                    "DAC_READ_SEARCH",
                                    "FOWNER",
                                    When(Value("agent.restores"), "CHOWN"),
                                    When(Value("agent.restores"), "DAC_OVERRIDE"),
                                    When(Value("agent.restores"), "FSETID"),
                                    *_LENDING,
                                    Splice(Value("agent.extraCapabilities")),
                                ],
                            },
                            "appArmorProfile": _given("agent.appArmorProfile"),
                        },
                        "volumeMounts": [
                            {
                                "name": "host-pods",
                                "mountPath": "/host_pods",
                                "mountPropagation": "HostToContainer",
                                "readOnly": Choose(Value("agent.restores"), then=False, otherwise=True),
                            },
                            {"name": "scratch", "mountPath": "/scratch"},
                            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the container's own
                            {"name": "limits", "mountPath": _LIMITS_DIR, "readOnly": True},
                            Splice(Value("agent.extraVolumeMounts")),
                        ],
                    }
                ],
                "volumes": [
                    {
                        "name": "host-pods",
                        "hostPath": {"path": Text("%v/pods", (Value("agent.kubeletRootDir"),)), "type": "Directory"},
                    },
                    {
                        "name": "scratch",
                        "hostPath": When(
                            Value("agent.cacheHostPath"),
                            # Of each installation its own: an agent is not to read what another knows of volumes.
                            {
                                "path": Text("%v/%v", (Value("agent.cacheHostPath"), NAMESPACE)),
                                "type": "DirectoryOrCreate",
                            },
                        ),
                        "emptyDir": When(
                            Not(Value("agent.cacheHostPath")), {"sizeLimit": Value("agent.cacheSizeLimit")}
                        ),
                    },
                    {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
                    {"name": "limits", "configMap": {"name": f"{AGENT}-limits", "optional": True}},
                    Splice(Value("agent.extraVolumes")),
                ],
            },
        },
    },
}
_SERVER: Final[dict[str, Any]] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": metadata(SERVER, component=SERVER),
    "spec": {
        "replicas": Value("server.replicas"),
        "selector": {"matchLabels": SERVER_PODS},
        "template": {
            "metadata": {
                "labels": {
                    **SERVER_PODS,
                    "app.kubernetes.io/name": "longshore",
                    "app.kubernetes.io/component": SERVER,
                    SPLICE: Value("server.podLabels"),
                },
                "annotations": {
                    "kubectl.kubernetes.io/default-container": SERVER,
                    SPLICE: Value("server.podAnnotations"),
                },
            },
            "spec": {
                "serviceAccountName": SERVER,
                "enableServiceLinks": False,
                "terminationGracePeriodSeconds": 30,
                "priorityClassName": _given("server.priorityClassName"),
                "imagePullSecrets": _given("imagePullSecrets"),
                "nodeSelector": _given("server.nodeSelector"),
                "tolerations": _given("server.tolerations"),
                "affinity": _given("server.affinity"),
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": NOBODY,
                    "runAsGroup": NOBODY,
                    "fsGroup": NOBODY,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [
                    {
                        "name": SERVER,
                        "image": IMAGE,
                        "imagePullPolicy": Value("image.pullPolicy"),
                        "command": ["/velero"],
                        "args": [
                            "server",
                            "--log-format=json",
                            Text("--log-level=%v", (Value("server.logLevel"),)),
                            Text("--maintenance=%v", (Value("server.maintenance"),)),
                            Text("--default-verify-frequency=%v", (Value("server.verifyFrequency"),)),
                            Text("--default-verify-sample=%v", (Value("server.verifySample"),)),
                            When(
                                Value("server.maintenanceConfigMap"),
                                Text("--repo-maintenance-job-configmap=%v", (Value("server.maintenanceConfigMap"),)),
                            ),
                        ],
                        "env": [
                            {"name": "VELERO_NAMESPACE", "valueFrom": _from_pod("metadata.namespace")},
                            {"name": "LONGSHORE_DEPLOYMENT", "value": SERVER},
                            {"name": "LONGSHORE_CACHE_DIR", "value": "/scratch/longshore"},
                            {"name": "HOME", "value": "/scratch"},
                            Splice(Value("server.extraEnv")),
                        ],
                        "ports": _PORTS,
                        **_PROBES,
                        "resources": Value("server.resources"),
                        "securityContext": {
                            "allowPrivilegeEscalation": False,
                            "privileged": False,
                            "readOnlyRootFilesystem": True,
                            "capabilities": {"drop": ["ALL"]},
                        },
                        "volumeMounts": [
                            {"name": "scratch", "mountPath": "/scratch"},
                            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the container's own
                            Splice(Value("server.extraVolumeMounts")),
                        ],
                    }
                ],
                "volumes": [
                    {"name": "scratch", "emptyDir": {"sizeLimit": "6Gi"}},
                    {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
                    Splice(Value("server.extraVolumes")),
                ],
            },
        },
    },
}
PARTS: Final = (
    Part(
        "agent", "The node agent: one pod on each node, and what its jobs may take.", ((None, _LIMITS), (None, _AGENT))
    ),
    Part("server", "The server.", ((Value("server.enabled"), _SERVER),)),
)
