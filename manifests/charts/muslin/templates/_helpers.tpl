{{- /* muslin.namespace is fixed: agents, controller and muslinctl look for it. */ -}}
{{- define "muslin.namespace" -}}muslin-system{{- end -}}

{{- define "muslin.image" -}}
{{- $repository := .Values.image.repository -}}
{{- with .Values.global.imageRegistry -}}
{{- $repository = printf "%s/%s" . (regexReplaceAll "^[^/]+/" $repository "") -}}
{{- end -}}
{{- if .Values.image.digest -}}
{{ printf "%s@%s" $repository .Values.image.digest }}
{{- else -}}
{{ printf "%s:%s" $repository .Values.image.tag }}
{{- end -}}
{{- end -}}

{{- define "muslin.labels" -}}
{{- $version := .Chart.AppVersion | replace "+" "_" | trunc 63 -}}
{{- merge (dict "app.kubernetes.io/name" "muslin" "app.kubernetes.io/part-of" "muslin" "app.kubernetes.io/instance" .Release.Name "app.kubernetes.io/version" $version "app.kubernetes.io/managed-by" .Release.Service "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63)) .Values.commonLabels | toYaml -}}
{{- end -}}

{{- /* muslin.object prints an object with the chart's labels beside its own. */ -}}
{{- define "muslin.object" -}}
{{- $labels := include "muslin.labels" .root | fromYaml -}}
{{- $_ := set .object.metadata "labels" (merge $labels (.object.metadata.labels | default dict)) }}
---
{{ toYaml .object }}
{{- end -}}

{{- /* muslin.workload puts the values of one of both workloads into its object; it prints
nothing. env is what is added to that of each container. */ -}}
{{- define "muslin.workload" -}}
{{- $template := .object.spec.template -}}
{{- $spec := $template.spec -}}
{{- $env := .env -}}
{{- if ne .values.logLevel "info" -}}
{{- $env = append $env (dict "name" "MUSLIN_LOG_LEVEL" "value" .values.logLevel) -}}
{{- end -}}
{{- range concat ($spec.initContainers | default list) $spec.containers -}}
{{- $_ := set . "image" (include "muslin.image" $.root) -}}
{{- $_ := set . "imagePullPolicy" $.root.Values.image.pullPolicy -}}
{{- $_ := set . "env" (concat .env $env $.values.extraEnv) -}}
{{- end -}}
{{- $_ := set (first $spec.containers) "resources" .values.resources -}}
{{- $_ := set $spec "tolerations" .values.tolerations -}}
{{- $_ := set $spec "priorityClassName" .values.priorityClassName -}}
{{- with .values.affinity }}{{ $_ := set $spec "affinity" . }}{{ end -}}
{{- with .root.Values.imagePullSecrets }}{{ $_ := set $spec "imagePullSecrets" . }}{{ end -}}
{{- with .values.podAnnotations -}}
{{- $_ := set $template.metadata "annotations" (merge (deepCopy .) ($template.metadata.annotations | default dict)) -}}
{{- end -}}
{{- $_ := set $template.metadata "labels" (merge $template.metadata.labels .values.podLabels .root.Values.commonLabels) -}}
{{- end -}}

{{- /* muslin.metrics puts the listener of files/monitoring into a workload's containers. */ -}}
{{- define "muslin.metrics" -}}
{{- $v := .root.Values.metrics -}}
{{- if and $v.authorization (not $v.tls) }}{{ fail "metrics.authorization needs metrics.tls: anybody on the way could read the tokens" }}{{ end -}}
{{- $port := .port -}}
{{- range $patch := (.root.Files.Get .file | fromYaml).spec.template.spec.containers -}}
{{- range $c := $.object.spec.template.spec.containers -}}
{{- if eq $c.name $patch.name -}}
{{- range $patch.env -}}
{{- if eq .name "MUSLIN_METRICS_ADDR" }}{{ $_ := set . "value" (printf ":%v" $port) }}{{ end -}}
{{- if not (or (and (eq .name "MUSLIN_METRICS_TLS") (not $v.tls)) (and (eq .name "MUSLIN_METRICS_AUTHORIZATION") (not $v.authorization))) -}}
{{- $_ := set $c "env" (append $c.env .) -}}
{{- end -}}
{{- end -}}
{{- range $patch.ports -}}
{{- $_ := set $c "ports" (append ($c.ports | default list) (set . "containerPort" $port)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* muslin.agent puts the agent's values into the DaemonSet. */ -}}
{{- define "muslin.agent" -}}
{{- $v := .root.Values.agent -}}
{{- $spec := .object.spec.template.spec -}}
{{- $env := list -}}
{{- if not $v.cni.install }}{{ $env = append $env (dict "name" "MUSLIN_CNI_CONF" "value" "none") }}{{ end -}}
{{- if $v.cni.exclusive }}{{ $env = append $env (dict "name" "MUSLIN_CNI_EXCLUSIVE" "value" "true") }}{{ end -}}
{{- with $v.withoutCapabilities -}}
{{- $env = append $env (dict "name" "MUSLIN_WITHOUT_CAPABILITIES" "value" (join "," .)) -}}
{{- $capabilities := (first $spec.containers).securityContext.capabilities -}}
{{- range . }}{{ $_ := set $capabilities "add" (without $capabilities.add .) }}{{ end -}}
{{- end -}}
{{- range $spec.volumes -}}
{{- if eq .name "cni-bin" }}{{ $_ := set .hostPath "path" $v.cni.binDir }}{{ end -}}
{{- if eq .name "cni-conf" }}{{ $_ := set .hostPath "path" $v.cni.confDir }}{{ end -}}
{{- if eq .name "state" -}}
{{- if ne .hostPath.path $v.stateDir }}{{ $env = append $env (dict "name" "MUSLIN_STATE" "value" $v.stateDir) }}{{ end -}}
{{- $_ := set .hostPath "path" $v.stateDir -}}
{{- end -}}
{{- end -}}
{{- range concat ($spec.initContainers | default list) $spec.containers -}}
{{- range .volumeMounts -}}
{{- if eq .name "state" }}{{ $_ := set . "mountPath" $v.stateDir }}{{ end -}}
{{- end -}}
{{- end -}}
{{- with $v.seccompProfile -}}
{{- $_ := set (first $spec.containers).securityContext "seccompProfile" (dict "type" "Localhost" "localhostProfile" .) -}}
{{- end -}}
{{- $_ := set .object.spec "updateStrategy" $v.updateStrategy -}}
{{- if .root.Values.metrics.enabled -}}
{{- include "muslin.metrics" (dict "root" .root "object" .object "file" "files/monitoring/agent.yaml" "port" .root.Values.metrics.agentPort) -}}
{{- end -}}
{{- include "muslin.workload" (dict "root" .root "object" .object "values" $v "env" $env) -}}
{{- end -}}

{{- /* muslin.controller puts the controller's values into the Deployment. */ -}}
{{- define "muslin.controller" -}}
{{- $pools := .root.Values.defaultPools -}}
{{- range .object.spec.template.spec.containers -}}
{{- $env := list -}}
{{- range .env }}{{ if ne .name "MUSLIN_IPV4POOL_CIDR" }}{{ $env = append $env . }}{{ end }}{{ end -}}
{{- with $pools.ipv4 }}{{ $env = append $env (dict "name" "MUSLIN_IPV4POOL_CIDR" "value" .) }}{{ end -}}
{{- with $pools.ipv6 }}{{ $env = append $env (dict "name" "MUSLIN_IPV6POOL_CIDR" "value" .) }}{{ end -}}
{{- $_ := set . "env" $env -}}
{{- end -}}
{{- if .root.Values.metrics.enabled -}}
{{- include "muslin.metrics" (dict "root" .root "object" .object "file" "files/monitoring/controller.yaml" "port" .root.Values.metrics.controllerPort) -}}
{{- end -}}
{{- include "muslin.workload" (dict "root" .root "object" .object "values" .root.Values.controller "env" list) -}}
{{- end -}}
