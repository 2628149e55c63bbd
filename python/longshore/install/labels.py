"""Names and labels that several objects share, and the shape of a part of the installation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from longshore.install.template import NAMESPACE, Condition, Text

__all__ = [
    "AGENT",
    "AGENT_PODS",
    "CLUSTER_NAME",
    "SERVER",
    "SERVER_CLUSTER_NAME",
    "SERVER_PODS",
    "Part",
    "metadata",
]

AGENT: Final = "node-agent"
"""Velero's server looks for a DaemonSet of this name, and for pods by the labels below."""
SERVER: Final = "longshore-server"
AGENT_PODS: Final = {"name": AGENT, "role": AGENT}
SERVER_PODS: Final = {"component": SERVER}
CLUSTER_NAME: Final = Text("longshore-node-agent-%v", (NAMESPACE,))
"""Of objects outside namespaces: two installations in one cluster share nothing."""
SERVER_CLUSTER_NAME: Final = Text("longshore-server-%v", (NAMESPACE,))
_NAME: Final = {"app.kubernetes.io/name": "longshore", "app.kubernetes.io/part-of": "longshore"}


@dataclass(frozen=True, slots=True)
class Part:
    """Objects that go into one file."""

    name: str
    """Of the file, without its ending."""
    purpose: str
    """Its first line."""
    objects: tuple[tuple[Condition | None, dict[str, Any]], ...]
    """Each with the condition on which it is there."""
    keeps: bool = False
    """Whether an uninstall leaves them: they hold data, or are what data are described by."""


def metadata(name: Any, *, component: str, namespaced: bool = True, **more: Any) -> dict[str, Any]:
    """Make an object's metadata.

    Args:
        component: what it belongs to.
        more: `annotations`; further labels as `labels`.
    """
    labels = {**_NAME, "app.kubernetes.io/component": component, **more.pop("labels", {})}
    place = {"namespace": NAMESPACE} if namespaced else {}
    return {"name": name, **place, "labels": labels, **more}
