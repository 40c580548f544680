{{- /* SPDX-License-Identifier: Apache-2.0 */ -}}
{{- /* Checks that the schema cannot express, or not with a clear message. */ -}}
{{- define "trousseau.checks" -}}
{{- $v := .Values -}}
{{- $static := ne $v.mode "daemonSet" -}}
{{- if and (eq $v.mode "staticPod") (lookup "v1" "Namespace" "" "kube-system") -}}
{{- fail "mode: staticPod is for `helm template`, because it creates nothing that Helm could keep; with `helm install`, use mode=installer, see docs/install.md" -}}
{{- end -}}
{{- if eq $v.mode "installer" -}}
{{- if lookup "apps/v1" "DaemonSet" .Release.Namespace (include "trousseau.name" .) -}}
{{- fail "mode: Helm would remove this release's DaemonSet from all nodes before the static pods serve; install another release with mode=installer beside it, then uninstall this one" -}}
{{- end -}}
{{- if $v.runAsUser -}}
{{- fail "runAsUser: must be 0 with mode=installer, because the installer cannot ask or serve another user; use mode=staticPod for another one" -}}
{{- end -}}
{{- if not $v.takeover -}}
{{- fail "takeover: must be true with mode=installer, because each revision takes over from the one before" -}}
{{- end -}}
{{- if gt (len (fromYaml (include "trousseau.health" .)).socket) 122 -}}
{{- fail "socket.directory: too long for mode=installer, which has a further socket there; use at most 84 characters" -}}
{{- end -}}
{{- if and $v.nodeCredentials $v.installer.credentials.secretName -}}
{{- fail "nodeCredentials, installer.credentials.secretName: exclude each other; the credentials are either on the nodes already or copied from the Secret" -}}
{{- end -}}
{{- end -}}
{{- if not $v.image.repository -}}
{{- fail "image.repository: required in a checkout; name the image that you built with `make image`, or install a chart that names its own, which `make publish` packs, see docs/install.md#the-image" -}}
{{- end -}}
{{- if and (ne $v.config.source "secret") (not $v.vault.address) -}}
{{- fail "vault.address: required unless config.source=secret; set the URL of Vault, such as https://vault.example:8200" -}}
{{- end -}}
{{- if and $v.requireTLS (ne $v.config.source "secret") -}}
{{- range $field, $urls := dict "vault.address" (list $v.vault.address) "vault.addresses" $v.vault.addresses -}}
{{- range $urls -}}
{{- if hasPrefix "http://" . -}}
{{- fail (printf "%s: %s would send the token unencrypted; use https://, or set requireTLS=false if the connection never leaves the node" $field .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $v.vault.requireAssociatedData (not $v.vault.associatedData) (ne $v.config.source "secret") -}}
{{- fail "vault.requireAssociatedData: needs vault.associatedData; set both" -}}
{{- end -}}
{{- if and $v.vault.acceptBareKeyIDs $v.vault.associatedData (ne $v.config.source "secret") -}}
{{- fail "vault.acceptBareKeyIDs: excludes vault.associatedData, which the plugin that you come from cannot read; set associatedData later" -}}
{{- end -}}
{{- if and (eq $v.config.source "secret") (not $v.config.secret.name) -}}
{{- fail "config.secret.name: required with config.source=secret; name the Secret that contains config.yaml" -}}
{{- end -}}
{{- if and $static (eq $v.config.source "secret") -}}
{{- fail (printf "config.source: secret does not work with mode=%s, because a static pod can use no Secret; use agent or login" $v.mode) -}}
{{- end -}}
{{- range $secret, $file := dict "token" "tokenFile" "secretID" "secretIDFile" -}}
{{- if hasKey $v.config.login $secret -}}
{{- fail (printf "config.login.%s: do not put secrets into values; write it to a file and name the file in config.login.%s" $secret $file) -}}
{{- end -}}
{{- end -}}
{{- $credentials := list -}}
{{- range list "tokenFile" "roleID" "kubernetes" "jwt" "apiProxy" -}}
{{- if not (kindIs "invalid" (get $v.config.login .)) -}}
{{- if hasKey $v.config.login . -}}
{{- $credentials = append $credentials . -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if gt (len $credentials) 1 -}}
{{- fail (printf "config.login: %s exclude each other, only one is allowed" (join " and " $credentials)) -}}
{{- end -}}
{{- if and $v.config.login.roleID (not $v.config.login.secretIDFile) -}}
{{- fail "config.login: roleID needs secretIDFile, such as /etc/trousseau-credentials/secret-id (and nodeCredentials)" -}}
{{- end -}}
{{- if and $v.config.login.clientCert (not $v.config.login.clientKey) -}}
{{- fail "config.login: clientCert needs clientKey; name the file with its private key" -}}
{{- end -}}
{{- if gt (len (compact (list $v.vault.caCert $v.vault.caConfigMap.name $v.vault.caSecret.name))) 1 -}}
{{- fail "vault: caCert, caConfigMap and caSecret exclude each other; set only one" -}}
{{- end -}}
{{- if and $static (or $v.vault.caConfigMap.name $v.vault.caSecret.name) -}}
{{- fail "vault: a static pod can use no ConfigMap and no Secret; set vault.caCert instead" -}}
{{- end -}}
{{- range list "runAsUser" "runAsGroup" "runAsNonRoot" "fsGroup" -}}
{{- if or (hasKey $v.podSecurityContext .) (hasKey $v.securityContext .) -}}
{{- fail (printf "podSecurityContext, securityContext: %s follows from the values runAsUser and runAsGroup; set those instead" .) -}}
{{- end -}}
{{- end -}}
{{- with $v.updateStrategy.rollingUpdate -}}
{{- if and .maxSurge (ne (toString .maxSurge) "0") -}}
{{- if and .maxUnavailable (ne (toString .maxUnavailable) "0") -}}
{{- fail "updateStrategy.rollingUpdate: a DaemonSet accepts either maxSurge or maxUnavailable; set the other one to 0" -}}
{{- end -}}
{{- if and (not $v.takeover) (ne $v.updateStrategy.type "OnDelete") -}}
{{- fail "updateStrategy.rollingUpdate.maxSurge: needs takeover=true, or the new pod never gets the socket; set maxSurge to 0 and maxUnavailable to 1" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $auth := $v.config.agent.autoAuth -}}
{{- if and $static (eq $v.config.source "agent") (eq $auth.method "kubernetes") (not $auth.config.token_path) -}}
{{- fail "config.agent.autoAuth: a static pod has no ServiceAccount; set config.token_path to a token below /etc/trousseau-credentials (and nodeCredentials), or use another method such as cert or approle" -}}
{{- end -}}
{{- if and $static (eq $v.config.source "login") (contains "/var/run/secrets/" (include "trousseau.login" .)) -}}
{{- fail "config.login: a static pod has no ServiceAccount; name files below /etc/trousseau-credentials (and set nodeCredentials)" -}}
{{- end -}}
{{- $logins := ternary (include "trousseau.config.agent" .) (include "trousseau.login" .) (eq $v.config.source "agent") -}}
{{- if and (ne $v.config.source "secret") (contains "/etc/trousseau-credentials" $logins) (not (include "trousseau.nodeCredentials" .)) -}}
{{- fail "nodeCredentials: required for files below /etc/trousseau-credentials; set the directory on the node to mount there, or installer.credentials.secretName with mode=installer" -}}
{{- end -}}
{{- if and (not $static) (not $v.serviceAccount.create) (not $v.serviceAccount.name) (include "trousseau.usesToken" .) -}}
{{- fail "serviceAccount.name: required with serviceAccount.create=false, because the namespace's default account is shared" -}}
{{- end -}}
{{- if and (eq $v.config.source "agent") (contains "{{" (include "trousseau.config.fields" . | cat (join " " $v.vault.keys))) -}}
{{- fail "vault: the agent would read {{ as the start of a template; remove it from the fields" -}}
{{- end -}}
{{- if and $v.podMonitor.enabled (ne $v.mode "staticPod") (has $v.ops.address (list "127.0.0.1" "localhost" "[::1]")) -}}
{{- fail "ops.address: Prometheus cannot reach a loopback address; leave it empty, or set podMonitor.enabled=false" -}}
{{- end -}}
{{- range $v.extraArgs -}}
{{- $flag := regexReplaceAll "^-+([^=]*).*$" . "${1}" -}}
{{- if has $flag (list "listen-addr" "socket-mode" "socket-group" "socket-allow-uids" "takeover" "require-tls" "ops-addr" "health-addr" "log-level" "log-format" "config-file-path") -}}
{{- fail (printf "extraArgs: --%s has its own value in this chart; set that instead" $flag) -}}
{{- end -}}
{{- end -}}
{{- $jobs := $v.cronJobs -}}
{{- if and $jobs.audit.enabled (eq $v.mode "staticPod") -}}
{{- fail "cronJobs.audit: mode=staticPod renders the pod only; use mode=daemonSet or mode=installer, or run `trousseauctl audit` yourself" -}}
{{- end -}}
{{- if and $jobs.doctor.enabled (or (ne $v.mode "daemonSet") (eq $v.config.source "agent")) -}}
{{- fail (printf "cronJobs.doctor: with mode=%s and config.source=%s, config.yaml is only in Trousseau's own pod; run `/trousseauctl doctor` in that pod with kubectl exec" $v.mode $v.config.source) -}}
{{- end -}}
{{- if and $jobs.reencrypt.enabled (ne $v.mode "daemonSet") -}}
{{- fail (printf "cronJobs.reencrypt: does not work with mode=%s; use the timer in charts/systemd, see docs/operations.md" $v.mode) -}}
{{- end -}}
{{- if $jobs.rotateKey.enabled -}}
{{- if ne $v.mode "daemonSet" -}}
{{- fail (printf "cronJobs.rotateKey: does not work with mode=%s; run `trousseauctl rotate-key` yourself" $v.mode) -}}
{{- end -}}
{{- if not $v.vault.address -}}
{{- fail "cronJobs.rotateKey: needs vault.address, the URL of the Vault with the key" -}}
{{- end -}}
{{- if $v.vault.tlsServerName -}}
{{- fail "cronJobs.rotateKey: does not work with vault.tlsServerName; run `trousseauctl rotate-key` yourself" -}}
{{- end -}}
{{- if not $jobs.rotateKey.vaultToken.secretName -}}
{{- fail "cronJobs.rotateKey.vaultToken.secretName: required; name a Secret with a Vault token that may rotate the key" -}}
{{- end -}}
{{- end -}}
{{- end -}}
