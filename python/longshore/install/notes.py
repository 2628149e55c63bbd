"""What Helm prints after an install or an upgrade: the next commands."""

from __future__ import annotations

from typing import Final

__all__ = ["NOTES"]

NOTES: Final = """\
Longshore {{ .Chart.AppVersion }} is installed in namespace {{ .Release.Namespace }}.

Is everything there?
  helm -n {{ .Release.Namespace }} test {{ .Release.Name }}
  longshore status -n {{ .Release.Namespace }}
{{- if not .Values.namespace.create }}

The agent mounts a folder of its node; where pod security is enforced the namespace has to say so:
  kubectl label namespace {{ .Release.Namespace }} pod-security.kubernetes.io/enforce=privileged
{{- end }}

Before the first backup, a key that outlives this cluster (keep recovery.key elsewhere):
  umask 077; printf 'longshore-key-1:%s\\n' "$(openssl rand -hex 32)" > recovery.key
  kubectl -n {{ .Release.Namespace }} create secret generic longshore-recovery --from-file=recovery-key=recovery.key
{{- if not .Values.location.enabled }}

Backups have no place to go yet. Make a BackupStorageLocation, or upgrade with location.enabled=true, location.bucket and credentials.
{{- end }}

{{- if .Release.IsUpgrade }}

Helm does not update custom resource definitions. If you have not done so:
  kubectl apply --server-side --force-conflicts -f crds/
{{- end }}

Then:
  kubectl -n {{ .Release.Namespace }} get backupstoragelocations,podvolumebackups

helm uninstall leaves Secrets, locations and custom resource definitions: with them go the keys and the records of your backups.
"""
