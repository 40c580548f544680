{{- /* SPDX-License-Identifier: Apache-2.0 */ -}}
{{- /* the fields of config.yaml that agent and login share */ -}}
{{- define "trousseau.config.fields" -}}
{{- with .Values.vault }}
{{- with .addresses }}
addresses:
{{- range . }}
- {{ . | quote }}
{{- end }}
{{- end }}
{{- with .namespace }}
namespace: {{ . | quote }}
{{- end }}
{{- with .authNamespace }}
authNamespace: {{ . | quote }}
{{- end }}
{{- with .transitPath }}
transitPath: {{ . | quote }}
{{- end }}
{{- if or .caCert .caConfigMap.name .caSecret.name }}
vaultCACert: /etc/vault-ca/vault-ca.pem
{{- end }}
{{- with .tlsServerName }}
tlsServerName: {{ . | quote }}
{{- end }}
{{- with .associatedData }}
associatedData: {{ . | quote }}
{{- end }}
{{- if .requireAssociatedData }}
requireAssociatedData: true
{{- end }}
{{- if .acceptBareKeyIDs }}
acceptBareKeyIDs: true
{{- end }}
{{- end }}
{{- end -}}

{{- /* the credential fields of config.yaml */ -}}
{{- define "trousseau.login" -}}
{{- $login := .Values.config.login | default (dict "kubernetes" dict) -}}
{{- if hasKey $login "kubernetes" -}}
{{- $defaults := dict "role" "trousseau" "tokenFile" "/var/run/secrets/trousseau/token" -}}
{{- $login = merge (dict "kubernetes" (merge (dict) ($login.kubernetes | default dict) $defaults)) $login -}}
{{- end -}}
{{- toYaml $login -}}
{{- end -}}

{{- /* config.yaml for config.source=login */ -}}
{{- define "trousseau.config.login" -}}
provider: vault
vault:
  keynames:
  {{- range .Values.vault.keys | default (list "trousseau-kms-vault") }}
  - {{ . | quote }}
  {{- end }}
  address: {{ .Values.vault.address | quote }}
  {{- with include "trousseau.config.fields" . | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- include "trousseau.login" . | nindent 2 }}
{{- end -}}

{{- /* the template from which the agent renders config.yaml */ -}}
{{- define "trousseau.config.template" -}}
{{ "{{" }} with secret {{ .Values.config.agent.kvPath | quote }} {{ "}}" }}
---
provider: vault
vault:
  keynames:
  {{- range .Values.vault.keys | default (list "{{ .Data.data.transitkeyname }}") }}
  - {{ . }}
  {{- end }}
  address: {{ "{{ .Data.data.vaultaddress }}" }}
  token: {{ "{{ .Data.data.vaulttoken }}" }}
  {{- with include "trousseau.config.fields" . | trim }}
  {{- . | nindent 2 }}
  {{- end }}
{{ "{{ end -}}" }}
{{- end -}}

{{- define "trousseau.config.agent" -}}
{{- $agent := .Values.config.agent -}}
vault {
  address = {{ .Values.vault.address | toRawJson }}
  {{- if include "trousseau.caVolume" . }}
  ca_cert = "/etc/vault-ca/vault-ca.pem"
  {{- end }}
  {{- with .Values.vault.tlsServerName }}
  tls_server_name = {{ . | toRawJson }}
  {{- end }}
  {{- with .Values.vault.authNamespace | default .Values.vault.namespace }}
  namespace = {{ . | toRawJson }}
  {{- end }}
}

auto_auth {
  method {{ $agent.autoAuth.method | toRawJson }} {
    mount_path = {{ $agent.autoAuth.mountPath | default (printf "auth/%s" $agent.autoAuth.method) | toRawJson }}
    config = {
      {{- range $name, $value := $agent.autoAuth.config }}
      {{ $name }} = {{ $value | toRawJson }}
      {{- end }}
      {{- if eq $agent.autoAuth.method "kubernetes" }}
      {{- if not $agent.autoAuth.config.role }}
      role = "trousseau"
      {{- end }}
      {{- if not $agent.autoAuth.config.token_path }}
      token_path = "/var/run/secrets/trousseau/token"
      {{- end }}
      {{- end }}
    }
  }
}

template_config {
  static_secret_render_interval = {{ $agent.renderInterval | quote }}
}

template {
  source               = "/etc/vault-agent/config.yaml.ctmpl"
  destination          = "/etc/trousseau/config.yaml"
  perms                = "0600"
  error_on_missing_key = true
}

log_level = {{ $agent.logLevel | quote }}
{{- end -}}

{{- /* the files of the containers, by name */ -}}
{{- define "trousseau.files.agent" -}}
agent.hcl: |
  {{- include "trousseau.config.agent" . | nindent 2 }}
config.yaml.ctmpl: |
  {{- include "trousseau.config.template" . | nindent 2 }}
{{- end -}}

{{- define "trousseau.files.login" -}}
config.yaml: |
  {{- include "trousseau.config.login" . | nindent 2 }}
{{- end -}}

{{- define "trousseau.files.ca" -}}
vault-ca.pem: |
  {{- .Values.vault.caCert | trim | nindent 2 }}
{{- end -}}
