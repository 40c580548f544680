{{- /* SPDX-License-Identifier: Apache-2.0 */ -}}
{{- define "trousseau.name" -}}
{{- $short := .Values.nameOverride | default .Chart.Name -}}
{{- $name := ternary .Release.Name (printf "%s-%s" .Release.Name $short) (contains $short .Release.Name) -}}
{{- .Values.fullnameOverride | default $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "trousseau.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "trousseau.name" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{- define "trousseau.selector" -}}
app.kubernetes.io/name: {{ .Values.nameOverride | default .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "trousseau.labels" -}}
{{- $own := dict "app.kubernetes.io/version" .Chart.AppVersion "app.kubernetes.io/managed-by" .Release.Service "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_") -}}
{{- merge (fromYaml (include "trousseau.selector" .)) $own .Values.commonLabels | toYaml -}}
{{- end -}}

{{- /* The labels of a pod. They do not change with the chart's version: that alone
must not replace pods. */ -}}
{{- define "trousseau.podLabels" -}}
{{- merge (fromYaml (include "trousseau.selector" .)) .Values.podLabels .Values.commonLabels | toYaml -}}
{{- end -}}

{{- /* (root, suffix of the name) */ -}}
{{- define "trousseau.metadata" -}}
{{- $root := index . 0 -}}
name: {{ include "trousseau.name" $root }}{{ index . 1 }}
namespace: {{ $root.Release.Namespace }}
labels:
  {{- include "trousseau.labels" $root | nindent 2 }}
{{- end -}}

{{- /* (root, {repository, tag, digest}, the tag to fall back on) */ -}}
{{- define "trousseau.image" -}}
{{- $image := index . 1 -}}
{{- $repository := $image.repository -}}
{{- with (index . 0).Values.global.imageRegistry -}}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) (regexReplaceAll "^([^/]*[.:][^/]*|localhost)/" $repository "") -}}
{{- end -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository ($image.tag | default (index . 2)) -}}
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
{{- $all := and (ne .Values.mode "staticPod") .Values.podMonitor.enabled -}}
{{- .Values.ops.address | default (ternary "" "127.0.0.1" $all) -}}
{{- end -}}

{{- /* The socket of one process for its pod's probes, and the emptyDir that holds it. The
installer asks there too, so it is on the node then. */ -}}
{{- define "trousseau.health" -}}
{{- if eq .Values.mode "installer" -}}
socket: {{ .Values.socket.directory }}/health-{{ include "trousseau.placeholder" . }}.sock
{{- else -}}
directory: /run/trousseau-health
socket: /run/trousseau-health/health.sock
{{- end -}}
{{- end -}}

{{- /* The directory on the node that is mounted at /etc/trousseau-credentials. The
installer's is where trousseauctl keep-static-pod copies the Secret's files to. */ -}}
{{- define "trousseau.nodeCredentials" -}}
{{- if and (eq .Values.mode "installer") .Values.installer.credentials.secretName -}}
{{- printf "%s/trousseau.d/%s.%s/credentials" (dir .Values.installer.manifestDirectory) .Release.Namespace (include "trousseau.name" .) -}}
{{- else -}}
{{- .Values.nodeCredentials -}}
{{- end -}}
{{- end -}}

{{- /* the ports of Vault's URLs, as a JSON array */ -}}
{{- define "trousseau.vaultPorts" -}}
{{- $ports := list -}}
{{- if ne .Values.config.source "secret" -}}
{{- range prepend .Values.vault.addresses .Values.vault.address -}}
{{- $port := regexFind ":[0-9]+/?$" . | trimPrefix ":" | trimSuffix "/" -}}
{{- $ports = append $ports (int ($port | default (ternary 80 443 (hasPrefix "http://" .)))) -}}
{{- end -}}
{{- end -}}
{{- $ports | default (list 8200) | uniq | toJson -}}
{{- end -}}
