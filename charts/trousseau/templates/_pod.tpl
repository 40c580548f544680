{{- /* SPDX-License-Identifier: Apache-2.0 */ -}}
{{- /* the pod, for the DaemonSet and for the static pod */ -}}
{{- define "trousseau.pod" -}}
{{- $static := ne .Values.mode "daemonSet" -}}
{{- $source := .Values.config.source -}}
{{- $health := fromYaml (include "trousseau.health" .) -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- if not $static }}
serviceAccountName: {{ include "trousseau.serviceAccount" . }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{ include "trousseau.placement" . | trim }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- if and $static (eq . "system-node-critical") }}
priority: 2000001000
{{- end }}
{{- end }}
{{ include "trousseau.network" . | trim }}
terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
{{ include "trousseau.user" . | trim }}
{{- if eq $source "agent" }}
initContainers:
# A sidecar, because it must keep running to render new tokens. Trousseau does not
# wait for it.
- name: vault-agent
  image: {{ include "trousseau.image" (list . .Values.config.agent.image "latest") }}
  imagePullPolicy: {{ .Values.config.agent.image.pullPolicy }}
  restartPolicy: Always
  # Not the image's entry point, which would change owners and users.
  command: ["vault"]
  args: ["agent", "-config=/etc/vault-agent/agent.hcl"]
  {{- include "trousseau.container" . | nindent 2 }}
  {{- with .Values.config.agent.resources }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
  - name: config
    mountPath: /etc/trousseau
  - name: agent-config
    mountPath: /etc/vault-agent
    readOnly: true
  {{- with include "trousseau.mounts" (list . true) }}
  {{- . | nindent 2 }}
  {{- end }}
{{- end }}
containers:
- name: trousseau
  image: {{ include "trousseau.image" (list . .Values.image .Chart.AppVersion) }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args:
  - --listen-addr=unix://{{ .Values.socket.directory }}/kms.sock
  - --socket-mode={{ .Values.socket.mode }}
  {{- if .Values.socket.group }}
  - --socket-group={{ .Values.socket.group }}
  {{- end }}
  {{- with .Values.socket.allowUIDs }}
  - --socket-allow-uids={{ range $i, $uid := . }}{{ if $i }},{{ end }}{{ int64 $uid }}{{ end }}
  {{- end }}
  {{- if .Values.takeover }}
  - --takeover
  {{- end }}
  {{- if .Values.requireTLS }}
  - --require-tls
  {{- end }}
  - --ops-addr={{ include "trousseau.opsAddress" . }}:{{ .Values.ops.port }}
  - --health-addr=unix://{{ $health.socket }}
  - --log-level={{ .Values.log.level }}
  - --log-format={{ .Values.log.format }}
  {{- range .Values.extraArgs }}
  - {{ . | quote }}
  {{- end }}
  {{- include "trousseau.container" . | nindent 2 }}
  {{- with .Values.resources }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  # Both ask this process, whoever holds the socket and the port, and neither depends
  # on Vault after the start: a restart does not end Vault's outage.
  livenessProbe:
    exec:
      command: ["/trousseau", "health", "--addr=unix://{{ $health.socket }}", "livez"]
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: 6
  # Good once this process has proven the key. If it followed Vault's health, an
  # outage during an upgrade would let the controller replace every node's pod at once.
  readinessProbe:
    exec:
      command: ["/trousseau", "health", "--addr=unix://{{ $health.socket }}", "startupz"]
    periodSeconds: 5
    timeoutSeconds: 5
    failureThreshold: 3
  volumeMounts:
  - name: config
    mountPath: /etc/trousseau
    readOnly: true
  - name: socket
    mountPath: {{ .Values.socket.directory }}
  {{- with $health.directory }}
  - name: health
    mountPath: {{ . }}
  {{- end }}
  {{- with include "trousseau.mounts" (list . (ne $source "agent")) }}
  {{- . | nindent 2 }}
  {{- end }}
volumes:
- name: socket
  hostPath:
    path: {{ .Values.socket.directory }}
    type: {{ ternary "Directory" "DirectoryOrCreate" (ne (int64 .Values.runAsUser) 0) }}
{{- if $health.directory }}
- name: health
  emptyDir:
    medium: Memory
    sizeLimit: 1Mi
{{- end }}
{{ include "trousseau.inputs" . | trim }}
{{- end -}}

{{- /* the volumes with the configuration and what it names */ -}}
{{- define "trousseau.inputs" -}}
{{- if eq .Values.config.source "agent" }}
# In memory, because config.yaml contains a token.
- name: config
  emptyDir:
    medium: Memory
    sizeLimit: 1Mi
- name: agent-config
  {{- include "trousseau.volume" (list . "agent" (list "agent.hcl" "config.yaml.ctmpl")) | nindent 2 }}
{{- else if eq .Values.config.source "login" }}
- name: config
  {{- include "trousseau.volume" (list . "config" (list "config.yaml")) | nindent 2 }}
{{- else }}
- name: config
  secret:
    secretName: {{ .Values.config.secret.name }}
    defaultMode: 0440
{{- end }}
{{- with include "trousseau.caVolume" . }}
- name: vault-ca
  {{- . | nindent 2 }}
{{- end }}
{{- if include "trousseau.usesToken" . }}
- name: token
  projected:
    sources:
    - serviceAccountToken:
        path: token
        expirationSeconds: {{ int64 .Values.serviceAccount.token.expirationSeconds }}
        {{- with .Values.serviceAccount.token.audience }}
        audience: {{ . | quote }}
        {{- end }}
{{- end }}
{{- with include "trousseau.nodeCredentials" . }}
- name: node-credentials
  hostPath:
    path: {{ . }}
    type: Directory
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* the fields that all containers share */ -}}
{{- define "trousseau.container" -}}
{{- with .Values.extraEnv -}}
env:
  {{- toYaml . | nindent 2 }}
{{ end -}}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
{{- end -}}

{{- /* (root, login): mounts of a container that calls Vault and, if login is set, logs in */ -}}
{{- define "trousseau.mounts" -}}
{{- $root := index . 0 -}}
{{- $mounts := list -}}
{{- if include "trousseau.caVolume" $root -}}
{{- $mounts = append $mounts (dict "name" "vault-ca" "mountPath" "/etc/vault-ca" "readOnly" true) -}}
{{- end -}}
{{- if and (index . 1) (include "trousseau.usesToken" $root) -}}
{{- $mounts = append $mounts (dict "name" "token" "mountPath" "/var/run/secrets/trousseau" "readOnly" true) -}}
{{- end -}}
{{- if and (index . 1) (include "trousseau.nodeCredentials" $root) -}}
{{- $mounts = append $mounts (dict "name" "node-credentials" "mountPath" "/etc/trousseau-credentials" "readOnly" true) -}}
{{- end -}}
{{- with concat $mounts $root.Values.extraVolumeMounts -}}
{{- toYaml . -}}
{{- end -}}
{{- end -}}

{{- /* (root, name, files): a ConfigMap's files or, for a static pod, which cannot
refer to an object, the same files from its own annotations. */ -}}
{{- define "trousseau.volume" -}}
{{- $root := index . 0 -}}
{{- if ne $root.Values.mode "daemonSet" -}}
downwardAPI:
  items:
  {{- range index . 2 }}
  - path: {{ . }}
    fieldRef:
      fieldPath: metadata.annotations['trousseau.io/{{ . }}']
  {{- end }}
{{- else -}}
configMap:
  name: {{ include "trousseau.name" $root }}-{{ index . 1 }}
{{- end -}}
{{- end -}}

{{- /* the volume with Vault's CA; empty if there is none */ -}}
{{- define "trousseau.caVolume" -}}
{{- $vault := .Values.vault -}}
{{- if $vault.caCert -}}
{{- include "trousseau.volume" (list . "vault-ca" (list "vault-ca.pem")) -}}
{{- else if $vault.caConfigMap.name -}}
configMap:
  name: {{ $vault.caConfigMap.name }}
  items:
  - key: {{ $vault.caConfigMap.key }}
    path: vault-ca.pem
{{- else if $vault.caSecret.name -}}
secret:
  secretName: {{ $vault.caSecret.name }}
  items:
  - key: {{ $vault.caSecret.key }}
    path: vault-ca.pem
{{- end -}}
{{- end -}}

{{- /* the nodes that the pod is for */ -}}
{{- define "trousseau.placement" -}}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* the network of the pod */ -}}
{{- define "trousseau.network" -}}
hostNetwork: {{ .Values.hostNetwork }}
dnsPolicy: {{ .Values.dnsPolicy }}
{{- with .Values.dnsConfig }}
dnsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.hostAliases }}
hostAliases:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* the security context of the pod */ -}}
{{- define "trousseau.user" -}}
securityContext:
  runAsUser: {{ int64 .Values.runAsUser }}
  runAsGroup: {{ int64 .Values.runAsGroup }}
  {{- if .Values.runAsUser }}
  runAsNonRoot: true
  fsGroup: {{ int64 .Values.runAsGroup }}
  {{- end }}
  {{- with .Values.podSecurityContext }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}
