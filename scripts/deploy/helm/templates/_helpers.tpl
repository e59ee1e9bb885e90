{{- define "reactor.name" -}}
{{- printf "%s" .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "reactor.selector" -}}
app.kubernetes.io/name: reactor
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "reactor.labels" -}}
{{ include "reactor.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- /* A setting as text. Numbers of a file are floats to Helm, which prints a large one as 1.6777216e+07. */ -}}
{{- define "reactor.text" -}}
{{- if kindIs "slice" . -}}
{{- join "," . -}}
{{- else if and (kindIs "float64" .) (eq (floor .) .) -}}
{{- int64 . -}}
{{- else -}}
{{- toString . -}}
{{- end -}}
{{- end -}}
