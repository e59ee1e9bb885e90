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
