{{- /* Quantities as numbers. Written by `make manifests` from python/longshore/install. Edit those instead. */ -}}
{{- define "longshore.amount" -}}
{{- if kindIs "string" . -}}
{{- $unit := regexFind "[A-Za-z]*$" . -}}
{{- $scale := get (dict "" "1" "m" "0.001" "k" "1000" "M" "1000000" "G" "1000000000" "T" "1000000000000" "Ki" "1024" "Mi" "1048576" "Gi" "1073741824" "Ti" "1099511627776" "KiB" "1024" "MiB" "1048576" "GiB" "1073741824") $unit | float64 -}}
{{- printf "%f" (mulf (trimSuffix $unit . | float64) $scale) -}}
{{- else -}}
{{- printf "%f" (float64 .) -}}
{{- end -}}
{{- end -}}
