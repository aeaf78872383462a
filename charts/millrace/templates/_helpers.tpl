{{- define "millrace.name" -}}
{{- default .Release.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "millrace.image" -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}

{{- define "millrace.selector" -}}
app.kubernetes.io/name: millrace
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "millrace.labels" -}}
{{ include "millrace.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "millrace.natsUrl" -}}
{{- if .Values.nats.enabled -}}
nats://{{ include "millrace.name" . }}-nats:4222
{{- else -}}
{{ required "nats.url: name a NATS server, or set nats.enabled" .Values.nats.url }}
{{- end -}}
{{- end -}}

{{- define "millrace.natsSecret" -}}
{{- if .Values.nats.existingSecret -}}
{{ .Values.nats.existingSecret }}
{{- else if .Values.nats.enabled -}}
{{ include "millrace.name" . }}-nats
{{- end -}}
{{- end -}}

{{- define "millrace.natsEnv" -}}
- name: MILLRACE_NATS_URL
  value: {{ include "millrace.natsUrl" . | quote }}
{{- if include "millrace.natsSecret" . }}
- name: MILLRACE_NATS_TOKEN_FILE
  value: /etc/millrace/nats/token
{{- end }}
{{ include "millrace.commonEnv" . }}
{{- end -}}

{{- define "millrace.commonEnv" -}}
- name: MILLRACE_LOG
  value: {{ .Values.logFilter | quote }}
{{- include "millrace.telemetryEnv" . }}
{{- end -}}

{{- define "millrace.querySecret" -}}
{{ default (printf "%s-query" (include "millrace.name" .)) .Values.query.existingSecret }}
{{- end -}}

{{- /* A component's HorizontalPodAutoscaler and PodDisruptionBudget. */ -}}
{{- define "millrace.scaling" -}}
{{- $name := printf "%s-%s" (include "millrace.name" .root) .component }}
{{- if and .values.autoscaling .values.autoscaling.enabled }}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ $name }}
  labels: {{ include "millrace.labels" .root | nindent 4 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: {{ $name }}}
  minReplicas: {{ .values.autoscaling.minReplicas }}
  maxReplicas: {{ .values.autoscaling.maxReplicas }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target: {type: Utilization, averageUtilization: {{ .values.autoscaling.targetCPUUtilizationPercentage }}}
{{- end }}
{{- $most := .values.replicas }}
{{- if and .values.autoscaling .values.autoscaling.enabled }}{{ $most = .values.autoscaling.maxReplicas }}{{ end }}
{{- if and .values.podDisruptionBudget.enabled (gt (int $most) 1) }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ $name }}
  labels: {{ include "millrace.labels" .root | nindent 4 }}
spec:
  minAvailable: 1
  selector:
    matchLabels: {{ include "millrace.selector" .root | nindent 6 }}
      app.kubernetes.io/component: {{ .component }}
{{- end }}
{{- end -}}

{{- define "millrace.natsMount" -}}
{{- if include "millrace.natsSecret" . }}
- name: nats-token
  mountPath: /etc/millrace/nats
  readOnly: true
{{- end }}
{{- end -}}

{{- define "millrace.natsVolume" -}}
{{- if include "millrace.natsSecret" . }}
- name: nats-token
  secret:
    secretName: {{ include "millrace.natsSecret" . }}
    items: [{key: token, path: token}]
{{- end }}
{{- end -}}

{{- define "millrace.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "millrace.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "millrace.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .topologySpreadConstraints }}
topologySpreadConstraints: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
