"""Settings that each are legal and do not go together: what JSON schema cannot say.

Each rule stands here twice, side by side: for the command, and as a piece of the chart's template that ends in `fail`. Both give the same words and figures.

Promises: what passes leaves the agent below the limits by which the kubelet would kill or evict it, and is accepted by the API server.

It does not know the objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

__all__ = ["AGENT_ENV", "CHECKS", "HELPERS", "PREFIX", "PROCESS_MEMORY_MIB", "SERVER_ENV", "amount", "conflict"]

PREFIX: Final = "settings do not go together"
PROCESS_MEMORY_MIB: Final = 128
"""What the agent's process needs beside its buffers; measured in docs/guide/sizing.md."""
AGENT_ENV: Final = (
    "NODE_NAME",
    "VELERO_NAMESPACE",
    "VELERO_SCRATCH_DIR",
    "LONGSHORE_CACHE_DIR",
    "LONGSHORE_CACHE_LIMIT",
    "HOME",
)
SERVER_ENV: Final = ("VELERO_NAMESPACE", "LONGSHORE_DEPLOYMENT", "LONGSHORE_CACHE_DIR", "HOME")
"""Environment that the containers have from us; a name twice is refused by the API server."""

_UNITS: Final = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    "k": Decimal(1000),
    **{unit: Decimal(1000) ** power for power, unit in enumerate("MGT", 2)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGT", 1)},
    **{f"{unit}iB": Decimal(1024) ** power for power, unit in enumerate("KMG", 1)},
}
_RESOURCES: Final = ("cpu", "memory", "ephemeral-storage")

_CACHE: Final = "the caches may outgrow their volume, and the kubelet would evict the agent for them"
_FOLDER: Final = "the caches would lie among the pods' folders, which the kubelet takes away"
_BUFFERS: Final = f"the buffers leave less than {PROCESS_MEMORY_MIB} MiB of the memory limit to the rest of the agent"
_REQUEST: Final = "a request is above its limit"
_ENV: Final = "a variable is given twice or is ours"
_SECCOMP: Final = "type Localhost needs a profile, and only it has one"


def amount(given: str | float) -> Decimal:
    """Read a quantity of Kubernetes, or one of ours in KiB, MiB, GiB."""
    if not isinstance(given, str):
        return Decimal(str(given))
    digits = given.rstrip("".join({letter for unit in _UNITS for letter in unit}))
    return Decimal(digits) * _UNITS[given[len(digits) :]]


def conflict(values: Mapping[str, Any]) -> str | None:
    """Say what does not go together, with both figures, or None.

    Args:
        values: all settings, each legal, as values.yaml lays them out.
    """
    return next(_conflicts(values), None)


def _conflicts(values: Mapping[str, Any]) -> Iterator[str]:
    agent, server = values["agent"], values["server"]
    limit, size = agent["cacheLimit"], agent["cacheSizeLimit"]
    if not agent["cacheHostPath"] and amount(limit) >= amount(size):
        yield f"{_CACHE}: agent.cacheLimit={limit}, agent.cacheSizeLimit={size}"
    folder, root = agent["cacheHostPath"], agent["kubeletRootDir"]
    if f"{folder}/".startswith(f"{root}/pods/"):
        yield f"{_FOLDER}: agent.cacheHostPath={folder}, agent.kubeletRootDir={root}"
    buffers, memory = agent["bufferMemory"], agent["resources"].get("limits", {}).get("memory")
    if memory is not None and amount(buffers) + amount(f"{PROCESS_MEMORY_MIB}MiB") > amount(memory):
        yield f"{_BUFFERS}: agent.bufferMemory={buffers}, agent.resources.limits.memory={memory}"
    for name, part in (("agent", agent), ("server", server)):
        requests, limits = part["resources"].get("requests", {}), part["resources"].get("limits", {})
        for one in _RESOURCES:
            if one in requests and one in limits and amount(requests[one]) > amount(limits[one]):
                yield f"{_REQUEST}: {name}.resources.requests.{one}={requests[one]}, limits.{one}={limits[one]}"
    for name, part, ours in (("agent", agent, AGENT_ENV), ("server", server, SERVER_ENV)):
        seen = set(ours)
        for variable in (one["name"] for one in part["extraEnv"]):
            if variable in seen:
                yield f"{_ENV}: {name}.extraEnv={variable}"
            seen.add(variable)
    kind, profile = agent["seccompProfile"]["type"], agent["seccompProfile"]["localhostProfile"]
    if (kind == "Localhost") is not bool(profile):
        yield f'{_SECCOMP}: agent.seccompProfile.type={kind}, localhostProfile="{profile}"'


# -- the same for Helm ----------------------------------------------------------------------------------------------------------

HELPERS: Final = (
    """{{- define "longshore.amount" -}}
{{- if kindIs "string" . -}}
{{- $unit := regexFind "[A-Za-z]*$" . -}}
{{- $scale := get (dict """
    + " ".join(f'"{unit}" "{scale}"' for unit, scale in _UNITS.items())
    + """) $unit | float64 -}}
{{- printf "%f" (mulf (trimSuffix $unit . | float64) $scale) -}}
{{- else -}}
{{- printf "%f" (float64 .) -}}
{{- end -}}
{{- end -}}
"""
)
"""`include "longshore.amount"` gives a quantity as a plain number."""


def _amount(path: str) -> str:
    return f'(include "longshore.amount" {path} | float64)'


def _fail(message: str, form: str, *paths: str) -> str:
    text = f"{PREFIX}: {message}: {form}"
    return f"{{{{- fail (printf `{text}` {' '.join(paths)}) }}}}"


def _checks() -> Iterator[str]:
    agent = ".Values.agent"
    limit, size = f"{agent}.cacheLimit", f"{agent}.cacheSizeLimit"
    yield f"{{{{- if and (not {agent}.cacheHostPath) (ge {_amount(limit)} {_amount(size)}) }}}}"
    yield _fail(_CACHE, "agent.cacheLimit=%v, agent.cacheSizeLimit=%v", limit, size)
    yield "{{- end }}"
    folder, root = f"{agent}.cacheHostPath", f"{agent}.kubeletRootDir"
    yield f'{{{{- if hasPrefix (printf "%v/pods/" {root}) (printf "%v/" {folder}) }}}}'
    yield _fail(_FOLDER, "agent.cacheHostPath=%v, agent.kubeletRootDir=%v", folder, root)
    yield "{{- end }}"
    buffers = f"{agent}.bufferMemory"
    yield f'{{{{- $memory := (dig "limits" "memory" nil {agent}.resources) }}}}'
    yield "{{- if not (kindIs `invalid` $memory) }}"
    process = PROCESS_MEMORY_MIB << 20
    yield f"{{{{- if gt (addf {_amount(buffers)} {process}.0) {_amount('$memory')} }}}}"
    yield _fail(_BUFFERS, "agent.bufferMemory=%v, agent.resources.limits.memory=%v", buffers, "$memory")
    yield "{{- end }}"
    yield "{{- end }}"
    for name, ours in (("agent", AGENT_ENV), ("server", SERVER_ENV)):
        part = f".Values.{name}"
        for one in _RESOURCES:
            request, bound = (f'(dig "{kind}" "{one}" nil {part}.resources)' for kind in ("requests", "limits"))
            yield f"{{{{- $request := {request} }}}}"
            yield f"{{{{- $limit := {bound} }}}}"
            yield "{{- if not (or (kindIs `invalid` $request) (kindIs `invalid` $limit)) }}"
            yield f"{{{{- if gt {_amount('$request')} {_amount('$limit')} }}}}"
            yield _fail(_REQUEST, f"{name}.resources.requests.{one}=%v, limits.{one}=%v", "$request", "$limit")
            yield "{{- end }}"
            yield "{{- end }}"
        yield f"{{{{- $seen := list {' '.join(f'`{variable}`' for variable in ours)} }}}}"
        yield f"{{{{- range {part}.extraEnv }}}}"
        yield "{{- if has .name $seen }}"
        yield _fail(_ENV, f"{name}.extraEnv=%v", ".name")
        yield "{{- end }}"
        yield "{{- $seen = append $seen .name }}"
        yield "{{- end }}"
    kind, profile = f"{agent}.seccompProfile.type", f"{agent}.seccompProfile.localhostProfile"
    yield f"{{{{- if ne (eq {kind} `Localhost`) (not (empty {profile})) }}}}"
    yield _fail(_SECCOMP, 'agent.seccompProfile.type=%v, localhostProfile="%v"', kind, profile)
    yield "{{- end }}"


CHECKS: Final = "\n".join(_checks()) + "\n"
"""A template that renders nothing, or fails."""
