{{- /* SPDX-License-Identifier: Apache-2.0 */ -}}
{{- /* root, name, and of the command: values, args, env, mounts, volumes, account, token */ -}}
{{- define "trousseau.cronJob" -}}
{{- $v := .root.Values -}}
{{- /* Not the DaemonSet's labels: its controller would adopt the pods, and trousseauctl
take them for the plugin's. */ -}}
{{- $labels := merge (dict "app.kubernetes.io/name" (printf "%s-%s" ($v.nameOverride | default .root.Chart.Name) .name)) (fromYaml (include "trousseau.podLabels" .root)) -}}
apiVersion: batch/v1
kind: CronJob
metadata:
  {{- include "trousseau.metadata" (list .root (printf "-%s" .name)) | nindent 2 }}
spec:
  schedule: {{ .values.schedule | quote }}
  concurrencyPolicy: Forbid
  successfulJobsHistoryLimit: {{ $v.cronJobs.successfulJobsHistoryLimit }}
  failedJobsHistoryLimit: {{ $v.cronJobs.failedJobsHistoryLimit }}
  jobTemplate:
    spec:
      # Exit code 3, findings, fails the Job: another run would find the same.
      backoffLimit: 0
      template:
        metadata:
          labels:
            {{- toYaml $labels | nindent 12 }}
        spec:
          restartPolicy: Never
          {{- with .account }}
          serviceAccountName: {{ . }}
          {{- end }}
          automountServiceAccountToken: {{ .token }}
          enableServiceLinks: false
          {{- with $v.imagePullSecrets }}
          imagePullSecrets:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          {{- include "trousseau.placement" .root | trim | nindent 10 }}
          {{- include "trousseau.network" .root | trim | nindent 10 }}
          {{- include "trousseau.user" .root | trim | nindent 10 }}
          containers:
          - name: {{ .name }}
            image: {{ include "trousseau.image" (list .root $v.image .root.Chart.AppVersion) }}
            imagePullPolicy: {{ $v.image.pullPolicy }}
            command: ["/trousseauctl", {{ .name | quote }}]
            args:
            {{- range concat .args .values.extraArgs }}
            - {{ . | quote }}
            {{- end }}
            {{- with concat .env $v.extraEnv }}
            env:
              {{- toYaml . | nindent 14 }}
            {{- end }}
            securityContext:
              {{- toYaml $v.securityContext | nindent 14 }}
            {{- with $v.cronJobs.resources }}
            resources:
              {{- toYaml . | nindent 14 }}
            {{- end }}
            {{- with .mounts }}
            volumeMounts:
            {{- toYaml . | nindent 12 }}
            {{- end }}
          {{- with .volumes }}
          volumes:
          {{- toYaml . | nindent 10 }}
          {{- end }}
{{- end -}}

{{- /* args, mounts and volumes of a command that reads etcd */ -}}
{{- define "trousseau.etcd" -}}
{{- $etcd := .Values.cronJobs.etcd -}}
{{- $args := list (printf "--endpoints=%s" (join "," $etcd.endpoints)) -}}
{{- $mounts := list -}}
{{- $volumes := list -}}
{{- range $flag, $file := dict "cacert" $etcd.caFile "cert" $etcd.certFile "key" $etcd.keyFile -}}
{{- if $file -}}
{{- $name := printf "etcd-%s" $flag -}}
{{- $path := printf "/etc/etcd/%s.pem" $flag -}}
{{- $args = append $args (printf "--%s=%s" $flag $path) -}}
{{- $mounts = append $mounts (dict "name" $name "mountPath" $path "readOnly" true) -}}
{{- $volumes = append $volumes (dict "name" $name "hostPath" (dict "path" $file "type" "File")) -}}
{{- end -}}
{{- end -}}
{{- dict "args" $args "mounts" $mounts "volumes" $volumes | toYaml -}}
{{- end -}}

{{- /* root and values: the flags of a command that rewrites objects */ -}}
{{- define "trousseau.rewrite" -}}
{{- $root := index . 0 -}}
{{- $values := index . 1 -}}
{{- $args := list (printf "--resources=%s" (join "," $values.encryptedResources)) -}}
{{- if $values.ops -}}
{{- $args = append $args (printf "--ops=%s" (join "," $values.ops)) -}}
{{- else -}}
{{- $selector := list -}}
{{- range $label, $value := fromYaml (include "trousseau.selector" $root) -}}
{{- $selector = append $selector (printf "%s=%s" $label $value) -}}
{{- end -}}
{{- $args = concat $args (list (printf "--namespace=%s" $root.Release.Namespace) (printf "--selector=%s" (join "," $selector))) -}}
{{- end -}}
{{- toYaml $args -}}
{{- end -}}

{{- /* root, name, values, migrates: the ServiceAccount of such a command, with its rights */ -}}
{{- define "trousseau.rewriteRights" -}}
{{- $values := .values -}}
{{- $account := printf "%s-%s" (include "trousseau.name" .root) .name }}
---
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "trousseau.metadata" (list .root (printf "-%s" .name)) | nindent 2 }}
automountServiceAccountToken: false
---
# No get and no list: objects that need a new version are found in etcd. But the answer to
# a patch contains the object, so who has this account's token can read those it can name.
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: {{ $account }}
  labels:
    {{- include "trousseau.labels" .root | nindent 4 }}
rules:
# Which key_id each API server has.
- nonResourceURLs: ["/metrics", "/readyz/*"]
  verbs: [get]
{{- if .migrates }}
- apiGroups: [storagemigration.k8s.io]
  resources: [storageversionmigrations]
  verbs: [create, get, delete]
{{- end }}
{{- if not $values.ops }}
# Only asked if an API server's address is not that of a pod.
- apiGroups: [""]
  resources: [nodes]
  verbs: [get]
{{- end }}
{{- range $values.encryptedResources }}
- apiGroups: [{{ regexReplaceAll "^[^.]*[.]?" . "" | quote }}]
  resources: [{{ regexReplaceAll "[.].*$" . "" | quote }}]
  verbs: [patch]
{{- end }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ $account }}
  labels:
    {{- include "trousseau.labels" .root | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: {{ $account }}
subjects:
- kind: ServiceAccount
  name: {{ $account }}
  namespace: {{ .root.Release.Namespace }}
---
# The addresses of all API servers are in the EndpointSlices of the Service kubernetes.
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ $account }}
  namespace: default
  labels:
    {{- include "trousseau.labels" .root | nindent 4 }}
rules:
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ $account }}
  namespace: default
  labels:
    {{- include "trousseau.labels" .root | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ $account }}
subjects:
- kind: ServiceAccount
  name: {{ $account }}
  namespace: {{ .root.Release.Namespace }}
{{- if not $values.ops }}
---
# To find the plugin's pods, and ask their ops endpoints.
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ $account }}-nodes
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "trousseau.labels" .root | nindent 4 }}
rules:
- apiGroups: [""]
  resources: [pods]
  verbs: [list]
- apiGroups: [""]
  resources: [pods/portforward]
  verbs: [get, create]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ $account }}-nodes
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "trousseau.labels" .root | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ $account }}-nodes
subjects:
- kind: ServiceAccount
  name: {{ $account }}
  namespace: {{ .root.Release.Namespace }}
{{- end }}
{{- end -}}
