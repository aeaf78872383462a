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
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
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
{{- with .Values.connections.allowedHosts }}
- name: MILLRACE_ALLOWED_HOSTS
  value: {{ join "," . | quote }}
{{- end }}
{{- with .Values.connections.deniedHosts }}
- name: MILLRACE_DENIED_HOSTS
  value: {{ join "," . | quote }}
{{- end }}
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
{{ toYaml .Values.podSecurityContext }}
{{- end -}}

{{- define "millrace.containerSecurity" -}}
{{ toYaml .Values.securityContext }}
{{- end -}}

{{- /* Where a component's pods go: its settings, and over nodes where possible if nothing else is said. */ -}}
{{- define "millrace.placement" -}}
{{- with .values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- if .values.topologySpreadConstraints }}
topologySpreadConstraints: {{ toYaml .values.topologySpreadConstraints | nindent 2 }}
{{- else if .component }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{ include "millrace.selector" .root | nindent 8 }}
        app.kubernetes.io/component: {{ .component }}
{{- end }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* Labels and annotations of a component's pods. */ -}}
{{- define "millrace.podMetadata" -}}
labels: {{ include "millrace.labels" .root | nindent 2 }}
  app.kubernetes.io/component: {{ .component }}
  {{- with .values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- $annotations := merge (dict) (default dict .annotations) (default dict .values.podAnnotations) }}
{{- with $annotations }}
annotations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* Who may reach a component: probes and scraping, and what else is said as ingress rules; where it may dial, if that is limited. */ -}}
{{- define "millrace.networkPolicy" -}}
{{- if .root.Values.networkPolicy.enabled }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "millrace.name" .root }}-{{ .component }}
  labels: {{ include "millrace.labels" .root | nindent 4 }}
spec:
  podSelector:
    matchLabels: {{ include "millrace.selector" .root | nindent 6 }}
      app.kubernetes.io/component: {{ .component }}
  policyTypes: {{ ternary (list "Ingress" "Egress") (list "Ingress") (not (empty .egress)) | toJson }}
  ingress:
    - ports: [{port: 8081, protocol: TCP}]
    {{- with .ingress }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .egress }}
  egress:
    - ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end -}}

{{- /* Settings of the ingress controller that keep event streams and WebSockets open; people's own win. */ -}}
{{- define "millrace.ingressAnnotations" -}}
{{- $known := dict
  "nginx" (dict
    "nginx.ingress.kubernetes.io/proxy-read-timeout" "3600"
    "nginx.ingress.kubernetes.io/proxy-send-timeout" "3600"
    "nginx.ingress.kubernetes.io/proxy-buffering" "off"
    "nginx.ingress.kubernetes.io/proxy-http-version" "1.1")
  "haproxy" (dict
    "haproxy.org/timeout-server" "3600s"
    "haproxy.org/timeout-tunnel" "3600s"
    "haproxy-ingress.github.io/timeout-server" "3600s"
    "haproxy-ingress.github.io/timeout-tunnel" "3600s")
  "alb" (dict
    "alb.ingress.kubernetes.io/target-type" "ip"
    "alb.ingress.kubernetes.io/load-balancer-attributes" "idle_timeout.timeout_seconds=3600")
  "none" (dict)
-}}
{{- /* How the controller reaches pods that speak HTTPS. */ -}}
{{- $protected := dict
  "nginx" (dict "nginx.ingress.kubernetes.io/backend-protocol" "HTTPS")
  "haproxy" (dict "haproxy.org/server-ssl" "true" "haproxy-ingress.github.io/secure-backends" "true")
  "alb" (dict "alb.ingress.kubernetes.io/backend-protocol" "HTTPS")
  "none" (dict)
-}}
{{- $flavour := index $known .Values.ingress.flavour -}}
{{- if .Values.apiserver.tls.existingSecret }}{{ $flavour = merge (dict) $flavour (index $protected .Values.ingress.flavour) }}{{ end -}}
{{- $annotations := merge (dict) .Values.ingress.annotations $flavour -}}
{{- with $annotations }}{{ toYaml . }}{{ end }}
{{- end -}}
