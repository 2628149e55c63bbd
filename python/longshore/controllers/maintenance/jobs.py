"""Runs as Kubernetes Jobs: found by their labels, whoever made them and whenever, so that a server that starts adopts what runs.

What came of a run is the JSON that its process leaves as the pod's termination message. Where there is none, because the process was killed or never came
to its end, the pod's and the Job's own words stand in for it.

Promises: nothing is remembered here; two servers that begin the same run make one Job, because both give it the same name.

It does not know when a run is due, nor what is recorded where.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from longshore.api.model import JsonObject
from longshore.api.values import Timestamp
from longshore.controllers.maintenance.ledger import Operation, Outcome
from longshore.controllers.maintenance.runs import Run, RunState
from longshore.controllers.maintenance.settings import JobSettings
from longshore.controllers.maintenance.shown import mark_of
from longshore.controllers.maintenance.template import (
    ANNOTATION_RUN,
    ANNOTATION_SHARE,
    LABEL_OPERATION,
    LABEL_REPOSITORY,
    LABEL_REPOSITORY_UID,
    make_job,
)
from longshore.errors import AlreadyExistsError, LongshoreError, NotFoundError, UsageError
from longshore.kube.client import KubeClient
from longshore.kube.resource import DEPLOYMENTS, JOBS, PODS, Resource
from longshore.logs import get_logger

__all__ = ["JobRunner"]

_log = get_logger(__name__)

_TEXT_CHARS_MAX: Final = 500


class JobRunner:
    """Fits :class:`longshore.controllers.maintenance.runs.Runner`."""

    def __init__(self, client: KubeClient, *, namespace: str, deployment: str) -> None:
        """Keep what is needed.

        Args:
            namespace: Velero's; Jobs run there.
            deployment: the server's, from which Jobs are made.
        """
        self._client = client
        self._namespace = namespace
        self._deployment = deployment

    def runs(self, obj: JsonObject, *, recorded: int) -> Sequence[Run]:
        """See :class:`longshore.controllers.maintenance.runs.Runner`."""
        jobs = self._labelled(JOBS, obj)
        known = sorted(
            ((number, job) for job in jobs if (number := _number_of(job)) is not None), key=lambda one: one[0]
        )
        pods: list[JsonObject] = []
        if any(number > recorded for number, _ in known):
            pods = self._labelled(PODS, obj)
        return [_run_of(job, number, _pod_of(job, pods)) for number, job in known]

    def _labelled(self, resource: Resource, obj: JsonObject) -> list[JsonObject]:
        """List what belongs to a repository, and what a version before made for this object."""
        found = {}
        for selector in (f"{LABEL_REPOSITORY}={mark_of(obj)}", f"{LABEL_REPOSITORY_UID}={obj['metadata']['uid']}"):
            for one in self._client.list(resource, namespace=self._namespace, label_selector=selector).items:
                found[one["metadata"]["name"]] = one
        return list(found.values())

    def begin(self, obj: JsonObject, *, operation: Operation, number: int, settings: JobSettings) -> str:
        """See :class:`longshore.controllers.maintenance.runs.Runner`."""
        try:
            deployment = self._client.get(DEPLOYMENTS, self._deployment, namespace=self._namespace)
        except NotFoundError as err:
            raise UsageError(
                f"the server's Deployment, from which Jobs are made, is not there: namespace={self._namespace}, "
                f"deployment={self._deployment}",
                "name it with --deployment, or have runs in the server with --maintenance=server",
            ) from err
        job = make_job(
            obj,
            operation=operation,
            number=number,
            deployment=deployment,
            settings=settings,
            namespace=self._namespace,
        )
        try:
            self._client.create(JOBS, job, namespace=self._namespace)
        except AlreadyExistsError:
            _log.info("Job was made already", job=job["metadata"]["name"])
        return str(job["metadata"]["name"])

    def remove(self, obj: JsonObject, run: Run) -> None:  # noqa: ARG002 - the protocol's shape
        """See :class:`longshore.controllers.maintenance.runs.Runner`."""
        try:
            self._client.delete(JOBS, run.name, namespace=self._namespace)
        except NotFoundError:
            return


def _number_of(job: JsonObject) -> int | None:
    metadata = job["metadata"]
    text = str((metadata.get("annotations") or {}).get(ANNOTATION_RUN) or "")
    operation = (metadata.get("labels") or {}).get(LABEL_OPERATION)
    if metadata.get("deletionTimestamp") or operation not in set(Operation):
        return None
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _pod_of(job: JsonObject, pods: Sequence[JsonObject]) -> JsonObject | None:
    """The newest pod of a Job."""
    uid = job["metadata"]["uid"]
    own = [
        pod
        for pod in pods
        if any(owner.get("uid") == uid for owner in pod["metadata"].get("ownerReferences") or [])
        or (pod["metadata"].get("labels") or {}).get("job-name") == job["metadata"]["name"]
    ]
    return max(own, key=lambda pod: str(pod["metadata"].get("creationTimestamp") or ""), default=None)


def _run_of(job: JsonObject, number: int, pod: JsonObject | None) -> Run:
    name = str(job["metadata"]["name"])
    operation = Operation(job["metadata"]["labels"][LABEL_OPERATION])
    run = Run(
        name=name,
        number=number,
        operation=operation,
        state=RunState.WAITING,
        deadline_seconds=(job.get("spec") or {}).get("activeDeadlineSeconds"),
        share=_share_of(job),
    )
    status = job.get("status") or {}
    held = {str(one.get("type")): one for one in status.get("conditions") or [] if one.get("status") == "True"}
    if "Complete" in held or "Failed" in held:
        outcome = _outcome(job, pod, failed=held.get("Failed"))
        return replace(run, state=RunState.ENDED, outcome=outcome)
    phase = str(((pod or {}).get("status") or {}).get("phase") or "")
    if phase in {"Running", "Succeeded", "Failed"}:
        return replace(run, state=RunState.WORKING)
    return replace(run, reason=_why_waiting(pod, name))


def _share_of(job: JsonObject) -> tuple[int, int] | None:
    part, _, parts = str((job["metadata"].get("annotations") or {}).get(ANNOTATION_SHARE) or "").partition("/")
    if not all(one.isascii() and one.isdigit() and len(one) < 6 for one in (part, parts)):
        return None
    return (int(part), int(parts)) if int(part) < int(parts) else None


def _outcome(job: JsonObject, pod: JsonObject | None, *, failed: JsonObject | None) -> Outcome:
    status = job.get("status") or {}
    ended = _terminated(pod)
    started_at = (
        _time(ended.get("startedAt"))
        or _time(status.get("startTime"))
        or _time(job["metadata"].get("creationTimestamp"))
    )
    ended_at = (
        _time(ended.get("finishedAt"))
        or _time(status.get("completionTime"))
        or _time((failed or {}).get("lastTransitionTime"))
    )
    said = Outcome.parse(str(ended.get("message") or ""))
    if (failed or {}).get("reason") == "DeadlineExceeded":
        # What its process says is that it was told to stop.
        return Outcome(succeeded=False, message=_why_late(job), started=started_at, ended=ended_at)
    if said is not None and said.succeeded == (failed is None):
        return Outcome(
            succeeded=said.succeeded,
            message=said.message,
            started=said.started or started_at,
            ended=said.ended or ended_at,
            figures=said.figures,
            reported=said.reported,
            nothing=said.nothing,
        )
    if failed is None:
        return Outcome(succeeded=True, message="the Job left no report", started=started_at, ended=ended_at)
    return Outcome(succeeded=False, message=_why_failed(job, ended, failed), started=started_at, ended=ended_at)


def _why_late(job: JsonObject) -> str:
    seconds = (job.get("spec") or {}).get("activeDeadlineSeconds")
    return (
        f"the run took longer than its deadline and was ended: job={job['metadata']['name']}, seconds={seconds}; see in its log how far it came; "
        "raise runDeadline in the config map for maintenance Jobs, or give it less to do with verifySample or maxRepack"
    )


def _why_failed(job: JsonObject, ended: JsonObject, failed: JsonObject) -> str:
    name = job["metadata"]["name"]
    if ended.get("reason") == "OOMKilled":
        return (
            f"the run needed more memory than its limit: job={name}; raise podResources.memoryLimit in the config map for "
            "maintenance Jobs, or the server's own limit"
        )
    last = str(ended.get("message") or "").strip()[-_TEXT_CHARS_MAX:]
    cause = str(failed.get("message") or failed.get("reason") or "it does not say why")[:_TEXT_CHARS_MAX]
    code = f", exit_code={ended['exitCode']}" if isinstance(ended.get("exitCode"), int) else ""
    words = f", last_words={last!r}" if last else ""
    # The words stand in the midst: what blots secrets out of them takes what follows, up to a comma, for a part of the secret.
    return f"the Job failed without a report: job={name}{words}, cause={cause}{code}; see its log with kubectl logs job/{name}"


def _why_waiting(pod: JsonObject | None, name: str) -> str:
    if pod is None:
        return f"no pod was made for it; see why with kubectl describe job {name}"
    status = pod.get("status") or {}
    for one in status.get("conditions") or []:
        if one.get("type") == "PodScheduled" and one.get("status") == "False":
            return _said(one, "it waits for a node")
    for one in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        waiting = (one.get("state") or {}).get("waiting")
        if waiting:
            return _said(waiting, "its container waits")
    return "its pod is pending"


def _said(found: JsonObject, otherwise: str) -> str:
    text = ": ".join(str(found[part]) for part in ("reason", "message") if found.get(part))
    return text[:_TEXT_CHARS_MAX] or otherwise


def _terminated(pod: JsonObject | None) -> JsonObject:
    for one in ((pod or {}).get("status") or {}).get("containerStatuses") or []:
        found = (one.get("state") or {}).get("terminated")
        if isinstance(found, dict):
            return found
    return {}


def _time(text: Any) -> datetime | None:
    try:
        return Timestamp(text).time if isinstance(text, str) and text else None
    except LongshoreError:
        return None
