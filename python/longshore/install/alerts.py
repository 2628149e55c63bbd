"""The alerts: what must wake somebody, each with the first thing to do. Each has a test that makes it fire and one that keeps it silent.

Volumes without a claim are left out of *stale*: their pods come and go by design, and a gone pod is no fault.
"""

from __future__ import annotations

from typing import Any, Final

from longshore.install.template import Text, Value

__all__ = ["RULES"]

_STALE: Final = Value("monitoring.rules.staleHours")
_SLOW: Final = Value("monitoring.rules.slowHours")
_OVERDUE: Final = Value("monitoring.rules.overdueHours")
_WHICH: Final = "{{ $labels.namespace }}/{{ $labels.claim }}{{ $labels.pod }} {{ $labels.volume }}"
_BY: Final = "max by (namespace, claim, pod, volume)"


def _alert(name: str, expr: Any, wait: str, severity: str, summary: str, step: str) -> dict[str, Any]:
    return {
        "alert": name,
        "expr": expr,
        "for": wait,
        "labels": {"severity": severity},
        "annotations": {"summary": summary, "description": step},
    }


RULES: Final[list[dict[str, Any]]] = [
    _alert(
        "LongshoreBackupFailed",
        f"{_BY} (longshore_volume_last_backup_failed) == 1",
        "5m",
        "warning",
        f"The last backup of volume {_WHICH} failed",
        "longshore status names the reason and the next step; the last good snapshot is kept.",
    ),
    _alert(
        "LongshoreBackupStale",
        Text(
            # A date in the future, of an agent whose clock is ahead, is no young one.
            'abs(time() - max by (namespace, claim) (longshore_volume_last_success_timestamp_seconds{claim!=""})) > %v * 3600',
            (_STALE,),
        ),
        "10m",
        "critical",
        "Claim {{ $labels.namespace }}/{{ $labels.claim }} has had no good backup for {{ $value | humanizeDuration }}",
        "See whether backups are asked for (velero schedule get) and how they end (longshore status), and whether the node's clock is right.",
    ),
    _alert(
        "LongshoreBackupStuck",
        f"time() - {_BY} (longshore_volume_waiting_since_timestamp_seconds) > 1800",
        "5m",
        "warning",
        f"A backup of volume {_WHICH} has waited for {{{{ $value | humanizeDuration }}}}",
        "No agent has taken it: see whether the node's agent runs and holds its Lease (kubectl get pods,leases), or is busy (longshore_jobs_running).",
    ),
    _alert(
        "LongshoreBackupSlow",
        Text(f"time() - {_BY} (longshore_volume_working_since_timestamp_seconds) > %v * 3600", (_SLOW,)),
        "5m",
        "warning",
        f"A backup of volume {_WHICH} has worked for {{{{ $value | humanizeDuration }}}}",
        "Its status says how far it is and whether it waits for the store: kubectl describe podvolumebackup.",
    ),
    _alert(
        "LongshoreRepositoryNotReady",
        "min by (kind, name) (longshore_repository_ready) == 0",
        "15m",
        "critical",
        "Repository {{ $labels.name }} is not ready",
        "Its status says why: kubectl describe backuprepository.",
    ),
    _alert(
        "LongshoreLocationUnavailable",
        "min by (backup_location_name) (velero_backup_location_status_gauge) == 0",
        "15m",
        "critical",
        "Storage location {{ $labels.backup_location_name }} cannot be reached",
        "Its status says why: kubectl describe backupstoragelocation.",
    ),
    _alert(
        "LongshoreMaintenanceFailed",
        "max by (kind, name) (longshore_repository_last_maintenance_failed) == 1",
        "2h",
        "warning",
        "Maintenance of repository {{ $labels.name }} fails, so space is not freed",
        "Its condition MaintenanceFailed says why: kubectl describe backuprepository. Backups go on meanwhile.",
    ),
    _alert(
        "LongshoreMaintenanceOverdue",
        Text(
            "time() - max by (kind, name) (longshore_repository_maintenance_due_timestamp_seconds) > %v * 3600",
            (_OVERDUE,),
        ),
        "15m",
        "warning",
        "Maintenance of repository {{ $labels.name }} is overdue by {{ $value | humanizeDuration }}",
        "See whether the repository is Ready and its Job runs: kubectl get backuprepositories,jobs -n velero.",
    ),
    _alert(
        "LongshoreVerificationFailed",
        "max by (kind, name) (longshore_repository_last_verification_failed) == 1",
        "15m",
        "critical",
        "Snapshots of repository {{ $labels.name }} could not be read back",
        "Condition VerificationFailed names the snapshots: kubectl describe backuprepository. Look with longshore repo check.",
    ),
    _alert(
        "LongshoreVerificationOverdue",
        Text(
            "time() - max by (kind, name) (longshore_repository_verification_due_timestamp_seconds) > %v * 3600",
            (_OVERDUE,),
        ),
        "15m",
        "warning",
        "Verification of repository {{ $labels.name }} is overdue by {{ $value | humanizeDuration }}",
        "See whether the repository is Ready and its Job runs: kubectl get backuprepositories,jobs -n velero.",
    ),
    _alert(
        "LongshoreKeyAtRisk",
        "max by (kind, name) (longshore_repository_recovery_key_missing) == 1",
        "1h",
        "warning",
        "The key of repository {{ $labels.name }} lives in this cluster only, and its backups are lost with it",
        "Give it a recovery key, or export its key and keep it elsewhere.",
    ),
]
