"""The Job of one run, made from the server's own Deployment: same image, service account, environment, volumes and security settings, so that a run can do what
the server can, and nothing more.

Taken over from the Deployment's pods are the container of the server and what it needs of the pod. Left out: other containers, probes, ports, rules about
which pods may stand beside one another (they speak of servers). The config map's node selection, resources, priority, labels and annotations come on top.

Promises: no secret stands in the Job that does not stand in the Deployment. A pod that is evicted, from a drained node say, counts as no failure: the Job
makes another.

It does not know when a run is due.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Final

from longshore.api.model import JsonObject
from longshore.api.values import valid_label_value
from longshore.controllers.maintenance.ledger import Operation
from longshore.controllers.maintenance.settings import JobSettings
from longshore.controllers.maintenance.shown import mark_of, repository_of
from longshore.errors import UsageError

__all__ = [
    "ANNOTATION_RUN",
    "ANNOTATION_SHARE",
    "LABEL_OPERATION",
    "LABEL_REPOSITORY",
    "LABEL_REPOSITORY_NAME",
    "LABEL_REPOSITORY_UID",
    "job_name",
    "make_job",
]

LABEL_REPOSITORY_NAME: Final = "velero.io/repo-name"
"""As Velero labels its maintenance Jobs."""
LABEL_REPOSITORY: Final = "longshore.io/repository"
"""The repository itself, whichever of its objects the run was begun for."""
LABEL_REPOSITORY_UID: Final = "longshore.io/repository-uid"
"""The object; versions before knew their runs by this alone."""
LABEL_OPERATION: Final = "longshore.io/operation"
ANNOTATION_RUN: Final = "longshore.io/run"
"""The run's number."""
ANNOTATION_SHARE: Final = "longshore.io/share"
"""Which part of the packs it reads, as `3/20`; none for all."""

_CONTAINER: Final = "maintenance"
_STEM_CHARS_MAX: Final = 30
_MARK_CHARS: Final = 6
_DEADLINES: Final = {Operation.MAINTENANCE: 24 * 3600, Operation.VERIFICATION: 7 * 24 * 3600}
"""Seconds. As long as the usual span from one to the next: what takes longer never keeps up. A run at work ends by itself when the store is silent for a
quarter of an hour, so only what hangs for another reason comes to it: a node that died with its pod, say."""
_POD_FIELDS: Final = (
    "serviceAccountName",
    "automountServiceAccountToken",
    "enableServiceLinks",
    "imagePullSecrets",
    "nodeSelector",
    "tolerations",
    "priorityClassName",
    "runtimeClassName",
    "schedulerName",
    "securityContext",
    "dnsPolicy",
    "dnsConfig",
    "hostAliases",
    "volumes",
    "os",
)
_CONTAINER_FIELDS: Final = (
    "image",
    "imagePullPolicy",
    "command",
    "env",
    "envFrom",
    "volumeMounts",
    "securityContext",
    "resources",
)
_OWN_LABELS: Final = ("name", "role", "component", "deploy", "pod-template-hash")
_OWN_PREFIXES: Final = ("app.kubernetes.io/", "kubectl.kubernetes.io/", "deployment.kubernetes.io/", "prometheus.io/")


def job_name(obj: JsonObject, number: int) -> str:
    """Name the Job of a run: the same for all who want to begin it, for whichever of the repository's objects, so that only one of them can."""
    stem = "-".join(repository_of(obj) or (str(obj["metadata"]["name"]),))
    stem = stem[:_STEM_CHARS_MAX].rstrip("-.").replace(".", "-")
    return f"{stem}-{mark_of(obj)[:_MARK_CHARS]}-maintain-job-{number}"


def make_job(
    obj: JsonObject,
    *,
    operation: Operation,
    number: int,
    deployment: JsonObject,
    settings: JobSettings,
    namespace: str,
) -> JsonObject:
    """Make the Job.

    Args:
        obj: the repository's object, which will own the Job.
        deployment: the server's.
        namespace: Velero's.

    Raises:
        UsageError: the Deployment is none from which a run could be started.
    """
    name, metadata = job_name(obj, number), obj["metadata"]
    share = None if settings.share is None else f"{settings.share[0]}/{settings.share[1]}"
    template = ((deployment.get("spec") or {}).get("template")) or {}
    pod, noted = template.get("spec") or {}, template.get("metadata") or {}
    container = _server_of(pod, noted, deployment)
    labels = {
        LABEL_REPOSITORY_NAME: valid_label_value(str(metadata["name"])),
        LABEL_REPOSITORY: mark_of(obj),
        LABEL_REPOSITORY_UID: str(metadata["uid"]),
        LABEL_OPERATION: str(operation),
        "app.kubernetes.io/name": "longshore",
        "app.kubernetes.io/component": "longshore-maintenance",
    }
    made = {field: copy.deepcopy(container[field]) for field in _CONTAINER_FIELDS if container.get(field) is not None}
    command = _command_of(made.get("command"))
    if command is None:
        made.pop("command", None)
    else:
        made["command"] = command
    made |= {
        "name": _CONTAINER,
        "args": [
            "repo",
            "maintain",
            str(metadata["name"]),
            f"--kind={obj['kind']}",
            f"--operation={operation}",
            *([] if share is None else [f"--share={share}"]),
            *([] if settings.limit_upload is None else [f"--limit-upload={settings.limit_upload}"]),
            *([] if settings.limit_download is None else [f"--limit-download={settings.limit_download}"]),
            *([] if settings.max_repack is None else [f"--max-repack={settings.max_repack}"]),
            *([] if settings.fence_after is None else [f"--fence-after={settings.fence_after}s"]),
            f"--namespace={namespace}",
            "--log-format=json",
        ],
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if settings.resources is not None:
        made["resources"] = copy.deepcopy(settings.resources)
    spec = {field: copy.deepcopy(pod[field]) for field in _POD_FIELDS if pod.get(field) is not None}
    spec |= {"restartPolicy": "Never", "terminationGracePeriodSeconds": 30, "containers": [made]}
    affinity = _affinity_of(pod, settings)
    if affinity:
        spec["affinity"] = affinity
    if settings.priority_class_name:
        spec["priorityClassName"] = settings.priority_class_name
    deadline = _DEADLINES[operation] if settings.run_deadline is None else settings.run_deadline
    pod_labels = {**_others(noted.get("labels")), **settings.pod_labels, **labels}
    pod_annotations = {**_others(noted.get("annotations")), **settings.pod_annotations}
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": labels,
            "annotations": {ANNOTATION_RUN: str(number), **({} if share is None else {ANNOTATION_SHARE: share})},
            "ownerReferences": [
                {
                    "apiVersion": str(obj["apiVersion"]),
                    "kind": str(obj["kind"]),
                    "name": str(metadata["name"]),
                    "uid": str(metadata["uid"]),
                }
            ],
        },
        "spec": {
            # A run that failed is recorded, and the server decides when the next one is.
            "backoffLimit": 0,
            "completions": 1,
            **({"activeDeadlineSeconds": deadline} if deadline else {}),
            "parallelism": 1,
            "podFailurePolicy": {
                "rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
            },
            "template": {"metadata": {"labels": pod_labels, "annotations": pod_annotations}, "spec": spec},
        },
    }


def _server_of(pod: JsonObject, noted: JsonObject, deployment: JsonObject) -> JsonObject:
    containers = [one for one in pod.get("containers") or [] if isinstance(one, dict) and one.get("image")]
    wanted = str((noted.get("annotations") or {}).get("kubectl.kubernetes.io/default-container") or "")
    names = [wanted, "longshore-server", "velero"]
    for name in names:
        for one in containers:
            if name and one.get("name") == name:
                return one
    if len(containers) == 1:
        return containers[0]
    raise UsageError(
        f"the server's Deployment has no container from which a run could be started: "
        f"deployment={(deployment.get('metadata') or {}).get('name')}, containers={len(containers)}",
        "name the server's Deployment with --deployment, or have runs in the server with --maintenance=server",
    )


def _command_of(command: Any) -> list[str] | None:
    """Give what stands before the word `server` in a command; None for the image's own."""
    if not isinstance(command, list) or not command:
        return None
    words = [str(word) for word in command]
    return words[: words.index("server")] if "server" in words[1:] else words


def _affinity_of(pod: JsonObject, settings: JobSettings) -> JsonObject:
    if settings.node_terms:
        terms = [copy.deepcopy(term) for term in settings.node_terms]
        return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}
    found = (pod.get("affinity") or {}).get("nodeAffinity")
    return {"nodeAffinity": copy.deepcopy(found)} if found else {}


def _others(found: Mapping[str, str] | None) -> dict[str, str]:
    """Labels and annotations that an operator gave, a cloud role's say: without those that select or describe the server's pods."""
    return {
        name: value
        for name, value in (found or {}).items()
        if name not in _OWN_LABELS and not name.startswith(_OWN_PREFIXES)
    }
