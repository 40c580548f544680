{{- /* SPDX-License-Identifier: Apache-2.0 */ -}}
{{- define "trousseau.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "trousseau.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "trousseau.name" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{- define "trousseau.selector" -}}
app.kubernetes.io/name: trousseau
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "trousseau.labels" -}}
{{ include "trousseau.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- /* (root, suffix of the name) */ -}}
{{- define "trousseau.metadata" -}}
{{- $root := index . 0 -}}
name: {{ include "trousseau.name" $root }}{{ index . 1 }}
namespace: {{ $root.Release.Namespace }}
labels:
  {{- include "trousseau.labels" $root | nindent 2 }}
{{- end -}}

{{- /* image takes {repository, tag, digest}, and the tag to fall back on. */ -}}
{{- define "trousseau.image" -}}
{{- $image := index . 0 -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository ($image.tag | default (index . 1)) -}}
{{- end -}}
{{- end -}}

{{- /* usesToken: does anything log in with the ServiceAccount's token? */ -}}
{{- define "trousseau.usesToken" -}}
{{- if eq .Values.mode "daemonSet" -}}
{{- $config := ternary (include "trousseau.config.agent" .) "" (eq .Values.config.source "agent") -}}
{{- if eq .Values.config.source "login" -}}
{{- $config = include "trousseau.login" . -}}
{{- end -}}
{{- if contains "/var/run/secrets/trousseau/token" $config -}}
true
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "trousseau.opsAddress" -}}
{{- $all := or (not .Values.hostNetwork) (and (eq .Values.mode "daemonSet") .Values.podMonitor.enabled) -}}
{{- .Values.ops.address | default (ternary "" "127.0.0.1" $all) -}}
{{- end -}}
