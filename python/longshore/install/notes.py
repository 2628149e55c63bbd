"""What Helm prints after an install or an upgrade: the next commands, each on a line of its own, indented.

`helm test` stands there from the moment that backups have a place to go, for without one it fails. The recovery key is made once: after an upgrade the same
commands would write another key over the file that opens the repositories.
"""

from __future__ import annotations

from typing import Final

__all__ = ["NOTES"]

NOTES: Final = """\
Longshore {{ .Chart.AppVersion }} is installed in namespace {{ .Release.Namespace }}.

Is everything there?
{{- if .Values.location.enabled }}
  helm -n {{ .Release.Namespace }} test {{ .Release.Name }}
{{- end }}
  longshore status -n {{ .Release.Namespace }}
{{- if not .Values.namespace.create }}

The agent mounts folders of its node; where pod security is enforced the namespace has to say so:
  kubectl label namespace {{ .Release.Namespace }} pod-security.kubernetes.io/enforce=privileged
{{- end }}
{{- if .Release.IsInstall }}

Before the first backup, a key that outlives this cluster (keep recovery.key elsewhere):
  umask 077; printf 'longshore-key-1:%s\\n' "$(openssl rand -hex 32)" > recovery.key
  kubectl -n {{ .Release.Namespace }} create secret generic longshore-recovery --from-file=recovery-key=recovery.key
{{- end }}
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
{{- if .Values.agent.cacheHostPath }}
On each node it leaves the agent's cache, {{ .Values.agent.cacheHostPath }}/{{ .Release.Namespace }}; nothing is lost with that.
{{- end }}
"""
