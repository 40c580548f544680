{{- /* SPDX-License-Identifier: Apache-2.0 */ -}}
{{- /* The static pod. For the installer it is a revision: a pod of its own, with a
placeholder where its name and its health socket hold the digest of this text. */ -}}
{{- define "trousseau.staticPod" -}}
{{- $installer := eq .Values.mode "installer" -}}
# For kubelet's directory, such as /etc/kubernetes/manifests.
apiVersion: v1
kind: Pod
metadata:
  name: {{ include "trousseau.name" . }}{{ if $installer }}-{{ include "trousseau.placeholder" . }}{{ end }}
  namespace: {{ .Release.Namespace }}
  labels:
    {{- include "trousseau.podLabels" . | nindent 4 }}
  annotations:
    kubectl.kubernetes.io/default-container: trousseau
    {{- if $installer }}
    trousseau.io/revision: "{{ include "trousseau.placeholder" . }}"
    {{- end }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- $files := fromYaml (include (printf "trousseau.files.%s" .Values.config.source) .) }}
    {{- if .Values.vault.caCert }}
    {{- $files = merge $files (fromYaml (include "trousseau.files.ca" .)) }}
    {{- end }}
    {{- range $name, $text := $files }}
    trousseau.io/{{ $name }}: |
      {{- $text | trim | nindent 6 }}
    {{- end }}
spec:
  {{- include "trousseau.pod" . | nindent 2 }}
{{- end -}}

{{- /* what trousseauctl keep-static-pod expects */ -}}
{{- define "trousseau.placeholder" -}}
REVISION-OF-THIS-MANIFEST
{{- end -}}
