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
