{{- define "episodes.fullname" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{/* What a process is selected by. Called with a dict: root, component. */}}
{{- define "episodes.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{- define "episodes.labels" -}}
{{ include "episodes.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "episodes.name" -}}
{{ include "episodes.fullname" .root }}-{{ .component }}
{{- end }}

{{- define "episodes.image" -}}
{{- $image := .Values.image }}
{{- $repository := required "set image.repository" $image.repository }}
{{- if $image.digest }}{{ $repository }}@{{ $image.digest }}
{{- else }}{{ $repository }}:{{ $image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{/* Which DSNs each process needs, by its name in values.existingSecrets: ARCHITECTURE.md. */}}
{{- define "episodes.needs" -}}
codeLocation: [dagster, input, queue, results]
daemon: [dagster]
webserver: [dagster, dashboard, queue, resultsReader, consumer]
worker: [worker]
scaler: [scaler]
# And `db finish`, which is the same work's end.
dbInit: [dagster, dashboard, input, inputWriter, queue, worker, scaler, queueReader, results, resultsReader, consumer, admin]
{{- end }}

{{- define "episodes.secretName" -}}
{{- index .root.Values.existingSecrets .process | default (include "episodes.name" .) }}
{{- end }}

{{/* The Secret of a process. Called with a dict: root, component, process, and perhaps annotations. */}}
{{- define "episodes.secret" -}}
{{- $root := .root }}
apiVersion: v1
kind: Secret
metadata:
  name: {{ include "episodes.name" . }}
  labels: {{- include "episodes.labels" . | nindent 4 }}
  {{- with .annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
type: Opaque
stringData:
  {{- range index (include "episodes.needs" . | fromYaml) .process }}
  {{- $dsn := index $root.Values.dsns . }}
  {{- if not (or $dsn (has . (list "inputWriter" "queueReader")) (and (eq . "scaler") (not $root.Values.worker.autoscaling.enabled))) }}
  {{- fail (printf "set dsns.%s, or existingSecrets.%s" . $.process) }}
  {{- end }}
  {{- if $dsn }}
  EPISODES_{{ . | snakecase | upper }}_DSN: {{ $dsn | quote }}
  {{- end }}
  {{- end }}
  {{- if and (eq .process "webserver") .root.Values.webserver.openidClientSecret }}
  EPISODES_OPENID_CLIENT_SECRET: {{ .root.Values.webserver.openidClientSecret | quote }}
  {{- end }}
{{- end }}

{{/* The variables by which alerts reach people: of the code location and the web server. */}}
{{- define "episodes.alertSettings" -}}
{{- $names := dict
  "emailTo" "EPISODES_ALERT_EMAIL_TO"
  "emailFrom" "EPISODES_ALERT_EMAIL_FROM"
  "smtpUrl" "EPISODES_ALERT_SMTP_URL"
  "slackUrl" "EPISODES_ALERT_SLACK_URL"
  "webhookUrl" "EPISODES_ALERT_WEBHOOK_URL"
  "webhookToken" "EPISODES_ALERT_WEBHOOK_TOKEN"
  "reminderHours" "EPISODES_ALERT_REMINDER_HOURS"
  "dashboardUrl" "EPISODES_DASHBOARD_URL"
  "daemonSilentSeconds" "EPISODES_DAEMON_SILENT_SECONDS"
  "deadManUrl" "EPISODES_DEAD_MAN_URL" }}
{{- range $name, $value := omit .Values.alerts "existingSecret" }}
{{- if $value }}
{{ index $names $name }}: {{ $value | toString | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* The Secret that has them; nothing where nobody is told. */}}
{{- define "episodes.alertSecret" -}}
{{- $alerts := .Values.alerts }}
{{- if and $alerts.existingSecret (include "episodes.alertSettings" . | trim) }}
{{- fail "put the EPISODES_ALERT_… of alerts into the Secret that alerts.existingSecret names, and leave the values beside it empty: they would reach nobody" }}
{{- end }}
{{- if $alerts.existingSecret }}{{ $alerts.existingSecret }}
{{- else if include "episodes.alertSettings" . | trim }}{{ include "episodes.fullname" . }}-alerts{{ end }}
{{- end }}

{{/* Variables that are no secrets, of every process. */}}
{{- define "episodes.settings" -}}
- name: EPISODES_ENVIRONMENT
  value: {{ .Values.environment | quote }}
{{- range $name, $value := .Values.settings }}
- name: {{ $name }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- end }}

{{/* An argument of Dagster's own programs, which do not know EPISODES_LOG_FORMAT. */}}
{{- define "episodes.logFormat" -}}
--log-format={{ eq (get .Values.settings "EPISODES_LOG_FORMAT" | toString) "json" | ternary "json" "colored" }}
{{- end }}

{{- define "episodes.lakeUrl" -}}
{{- $lake := .Values.lake }}
{{- if and (hasPrefix "/" $lake.url) (not $lake.existingClaim) }}
{{- fail "set lake.existingClaim: lake.url is a folder" }}
{{- end }}
{{- if and $lake.existingClaim $lake.url (not (hasPrefix "/" $lake.url)) }}
{{- fail "set lake.url to a folder: lake.existingClaim is mounted there" }}
{{- end }}
- name: EPISODES_LAKE_URL
  value: {{ required "set lake.url" .Values.lake.url | quote }}
{{- end }}

{{/* The Secrets whose variables a process gets. Called with a dict: root, component, process, lake (a Secret). */}}
{{- define "episodes.envFrom" -}}
- secretRef:
    name: {{ include "episodes.secretName" . }}
{{- with .lake }}
- secretRef:
    name: {{ . }}
{{- end }}
{{- if has .process (list "codeLocation" "webserver") }}
{{- with include "episodes.alertSecret" .root }}
- secretRef:
    name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{- define "episodes.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "episodes.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* What a pod of any process begins with. Called with a dict: root, component, process, values. */}}
{{- define "episodes.pod" -}}
{{- /* The hook runs before the release's own account is there. No process asks the cluster for anything. */}}
serviceAccountName: {{ hasPrefix "db-" .component | ternary "default" (include "episodes.fullname" .root) }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext: {{- include "episodes.podSecurity" . | nindent 2 }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Annotations by which a pod is replaced when its Secret has changed; one that exists is another's to look after. */}}
{{- define "episodes.checksums" -}}
{{- $existing := index .root.Values.existingSecrets .process }}
{{- if $existing }}
checksum/secret: {{ sha256sum $existing }}
{{- else }}
checksum/secret: {{ include "episodes.secret" . | sha256sum }}
{{- end }}
{{- if and (has .process (list "codeLocation" "webserver")) (include "episodes.alertSecret" .root) }}
checksum/alerts: {{ print (include "episodes.alertSecret" .root) (include "episodes.alertSettings" .root) | sha256sum }}
{{- end }}
{{- end }}

{{- define "episodes.mounts" -}}
- name: home
  mountPath: /var/lib/episodes
- name: tmp
  mountPath: /tmp
{{- if and .lakeMode .root.Values.lake.existingClaim }}
- name: lake
  mountPath: {{ .root.Values.lake.url }}
  readOnly: {{ eq .lakeMode "read" }}
{{- end }}
{{- if .workspace }}
- name: workspace
  mountPath: /etc/episodes
  readOnly: true
{{- end }}
{{- end }}

{{- define "episodes.volumes" -}}
- name: home
  emptyDir: {sizeLimit: {{ .root.Values.emptyDirs.home }}}
- name: tmp
  emptyDir: {sizeLimit: {{ .root.Values.emptyDirs.tmp }}}
{{- if and .lakeMode .root.Values.lake.existingClaim }}
- name: lake
  persistentVolumeClaim:
    claimName: {{ .root.Values.lake.existingClaim }}
{{- end }}
{{- if .workspace }}
- name: workspace
  configMap:
    name: {{ include "episodes.fullname" .root }}-workspace
{{- end }}
{{- end }}

{{/* The longest that a worker's batch may take, in seconds. */}}
{{- define "episodes.longestBatch" -}}
{{- $timeouts := .Values.worker.timeouts }}
{{- $longest := max $timeouts.batchSeconds $timeouts.jobSeconds }}
{{- range $timeouts.algorithmSeconds }}{{ $longest = max $longest (ceil .) }}{{ end }}
{{- $longest }}
{{- end }}
