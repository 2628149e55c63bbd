"""Who may work on an object: the claim that an agent writes, and what a later instance makes of one that was left behind.

An agent holds its node's Lease before it writes any of this, and each write carries the version at which the object was read: of two agents that both believe
to hold the lease, one gets a conflict and looks again.

- *Claim*: New (or Accepted, Prepared: left by another agent) becomes InProgress with node, instance and start.
- *Takeover*: InProgress with another instance: that one is gone, for we hold the lease. The instance is exchanged and the attempt counted, so that an
  object which brings the agent down is given up in the end.

It does not know what the work is.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Final

from longshore.api.model import JsonObject
from longshore.api.pod_volume import PodVolumePhase
from longshore.kube.clock import format_time

__all__ = [
    "ANNOTATION_ATTEMPTS",
    "ANNOTATION_INSTANCE",
    "ANNOTATION_NODE",
    "ATTEMPTS_MAX",
    "attempts_of",
    "claim_patch",
    "instance_of",
    "lease_name",
    "node_of",
    "takeover_patch",
]

ANNOTATION_ATTEMPTS: Final = "longshore.io/attempts"
"""On a PVB or PVR: how many instances of the agent have begun work on it; absent for one."""
ANNOTATION_INSTANCE: Final = "longshore.io/instance"
"""On a PVB or PVR: the instance that claimed it. An annotation, for Velero's own definitions prune every field of the status that they do not
know; `status.instance` says the same to people where our definitions are installed."""
ANNOTATION_NODE: Final = "longshore.io/node"
"""On a PVB or PVR: the node of that instance, for the same reason; without it a restore whose pod is gone would be nobody's under Velero 1.9."""
ATTEMPTS_MAX: Final = 20
"""More mean that the object itself ends the agent, as one that needs more memory than there is."""


def instance_of(obj: JsonObject) -> str:
    """Which instance claimed it; empty for none, or for another kind of agent."""
    annotations = (obj.get("metadata") or {}).get("annotations")
    found = annotations.get(ANNOTATION_INSTANCE) if isinstance(annotations, dict) else None
    return found if isinstance(found, str) else ""


def node_of(obj: JsonObject) -> str:
    """Whose node has claimed it; empty for none."""
    status = obj.get("status")
    found = status.get("node") if isinstance(status, dict) else None
    if isinstance(found, str) and found:
        return found
    annotations = (obj.get("metadata") or {}).get("annotations")
    found = annotations.get(ANNOTATION_NODE) if isinstance(annotations, dict) else None
    return found if isinstance(found, str) else ""


def attempts_of(obj: JsonObject) -> int:
    """How many instances have begun work on it, nonsense counting as one."""
    annotations = (obj.get("metadata") or {}).get("annotations") or {}
    text = str(annotations.get(ANNOTATION_ATTEMPTS, "1"))
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 1


def claim_patch(*, node: str, instance: str, now: datetime) -> JsonObject:
    """Take an object that nobody works on."""
    return {
        "metadata": {"annotations": {ANNOTATION_INSTANCE: instance, ANNOTATION_NODE: node}},
        "status": {
            "phase": str(PodVolumePhase.IN_PROGRESS),
            "startTimestamp": format_time(now),
            "node": node,
            "instance": instance,
            "message": "",
        },
    }


def takeover_patch(obj: JsonObject, *, node: str, instance: str, now: datetime) -> JsonObject:
    """Take an object from an instance that is gone."""
    status: JsonObject = {"node": node, "instance": instance, "message": ""}
    if not (obj.get("status") or {}).get("startTimestamp"):
        status["startTimestamp"] = format_time(now)
    annotations = {
        ANNOTATION_ATTEMPTS: str(attempts_of(obj) + 1),
        ANNOTATION_INSTANCE: instance,
        ANNOTATION_NODE: node,
    }
    return {"metadata": {"annotations": annotations}, "status": status}


def lease_name(node: str) -> str:
    """Name the Lease of a node; a name that would be too long ends in a hash instead."""
    name = f"longshore-node-agent-{node}"
    if len(name) <= 253:
        return name
    return f"{name[:220].rstrip('.-')}-{hashlib.sha256(node.encode()).hexdigest()[:24]}"
