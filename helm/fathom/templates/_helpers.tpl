{{/* Names, labels and addresses, which all templates share. */}}

{{/* Prefix of the names of objects. 40 characters leave room for "-scheduler" and for what a StatefulSet adds. */}}
{{- define "fathom.fullname" -}}
{{- $chart := default .Chart.Name .Values.nameOverride -}}
{{- $name := ternary .Release.Name (printf "%s-%s" .Release.Name $chart) (contains $chart .Release.Name) -}}
{{- default $name .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Labels that select the pods of a component: (list $ "router"). */}}
{{- define "fathom.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ default $root.Chart.Name $root.Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
{{- if index . 1 }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}
{{- end -}}

{{/* Labels of an object: (list $ "router"). */}}
{{- define "fathom.labels" -}}
{{- $root := index . 0 -}}
{{ include "fathom.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/part-of: fathom
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* metadata of an object: (list $ "router" "-suffix of the name"). */}}
{{- define "fathom.metadata" -}}
{{- $root := index . 0 -}}
name: {{ include "fathom.fullname" $root }}{{ index . 2 }}
namespace: {{ $root.Release.Namespace }}
labels:
  {{- include "fathom.labels" . | nindent 2 }}
{{- end -}}

{{- define "fathom.image" -}}
{{- $i := .Values.image -}}
{{- $name := ternary $i.repository (printf "%s/%s" $i.registry $i.repository) (empty $i.registry) -}}
{{- if $i.digest -}}
{{ $name }}@{{ $i.digest }}
{{- else -}}
{{ $name }}:{{ default (printf "%s-%s" .Chart.AppVersion .Values.worker.device) $i.tag }}
{{- end -}}
{{- end -}}

{{- define "fathom.serviceAccount" -}}
{{- ternary (include "fathom.fullname" .) "default" .Values.serviceAccount.create | default .Values.serviceAccount.name -}}
{{- end -}}

{{/* host:port of every scheduler. Each pod has a Service with an address that outlives it. */}}
{{- define "fathom.schedulers" -}}
{{- $addresses := list -}}
{{- range $i := until (int .Values.scheduler.replicas) -}}
{{- $addresses = append $addresses (printf "%s-scheduler-%d.%s.svc:%d" (include "fathom.fullname" $) $i $.Release.Namespace
    (int $.Values.scheduler.ports.cluster)) -}}
{{- end -}}
{{- join "," $addresses -}}
{{- end -}}

{{/* The name of the model that clients see. */}}
{{- define "fathom.servedName" -}}
{{- default (base .Values.model.path) .Values.model.servedName -}}
{{- end -}}

{{/* HTTP addresses of the processes, with commas: the routers by their Service, and each scheduler and rank by its pod.
     Pod I of group G of a LeaderWorkerSet has I behind its name, except the first one. */}}
{{- define "fathom.processes" -}}
{{- $name := include "fathom.fullname" . -}}
{{- $w := .Values.worker -}}
{{- $of := printf "%s.svc" .Release.Namespace -}}
{{- $all := list (printf "%s-router.%s:%d" $name $of (int .Values.router.service.httpPort)) -}}
{{- range $i := until (int .Values.scheduler.replicas) -}}
{{- $port := int $.Values.scheduler.ports.metrics -}}
{{- $all = append $all (printf "%s-scheduler-%d.%s-scheduler.%s:%d" $name $i $name $of $port) -}}
{{- end -}}
{{- range $group := until (int $w.groups) -}}
{{- range $node := until (ternary $w.leaderWorkerSet.size 1 $w.leaderWorkerSet.enabled | int) -}}
{{- $pod := printf "%s-worker-%d%s" $name $group (ternary (printf "-%d" $node) "" (gt $node 0)) -}}
{{- range $rank := until (include "fathom.localRanks" $ | int) -}}
{{- $all = append $all (printf "%s.%s-worker.%s:%d" $pod $name $of (add $w.ports.metrics $rank | int)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- join "," $all -}}
{{- end -}}

{{/* Ranks of a group, and those in one pod. */}}
{{- define "fathom.ranks" -}}
{{- mul .Values.worker.tensorParallel .Values.worker.pipelineParallel -}}
{{- end -}}
{{- define "fathom.localRanks" -}}
{{- $lws := .Values.worker.leaderWorkerSet -}}
{{- div (int (include "fathom.ranks" .)) (ternary $lws.size 1 $lws.enabled | int) -}}
{{- end -}}

{{/* Size of /dev/shm in a worker's pod (docs/OPERATIONS.md, "Limits of the system"). */}}
{{- define "fathom.shmSize" -}}
{{- $ranks := int (include "fathom.localRanks" .) -}}
{{- $size := ternary (mul 512 $ranks) (add 64 (mul 16 $ranks)) (eq .Values.worker.device "cuda") -}}
{{- default (printf "%dMi" (int $size)) .Values.worker.shmSize -}}
{{- end -}}

{{/* Fields of a pod's spec that all pods share. */}}
{{- define "fathom.podSpec" -}}
enableServiceLinks: false
automountServiceAccountToken: false
serviceAccountName: {{ include "fathom.serviceAccount" . }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Where a pod may run: the values of a component. */}}
{{- define "fathom.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* Fields of a container that all containers share. */}}
{{- define "fathom.container" -}}
image: {{ include "fathom.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- toYaml .Values.containerSecurityContext | nindent 2 }}
{{- end -}}

{{/* Variables of a container without a GPU. The CUDA image asks for all GPUs, and where NVIDIA's runtime is the default of
     the node, a pod that requests none would see them. */}}
{{- define "fathom.noGpuEnv" -}}
{{- if eq .Values.worker.device "cuda" -}}
- name: NVIDIA_VISIBLE_DEVICES
  value: void
{{- end -}}
{{- end -}}

{{/* A number without an exponent: YAML's numbers are floating point, and a million would be 1e+06. A string stays. */}}
{{- define "fathom.number" -}}
{{- if kindIs "string" . }}{{ . }}{{ else }}{{ int64 . }}{{ end -}}
{{- end -}}

{{/* Flags of mutual TLS in the cluster, whose Secret is mounted at the folder: (list $ "router"). */}}
{{- define "fathom.clusterTlsArgs" -}}
{{- if index (index . 0).Values.tls.cluster (index . 1) -}}
- --cluster-cert=/etc/fathom-cluster/tls.crt
- --cluster-key=/etc/fathom-cluster/tls.key
- --cluster-ca=/etc/fathom-cluster/ca.crt
{{- end -}}
{{- end -}}

{{/* The mount and the volume of a Secret: (list "name of the volume" "name of the Secret" "/folder"). Without a Secret nothing.
     Whole Secrets are mounted, since a file of a subPath would never change. */}}
{{- define "fathom.secretMount" -}}
{{- if index . 1 }}
- name: {{ index . 0 }}
  mountPath: {{ index . 2 }}
  readOnly: true
{{- end }}
{{- end -}}
{{- define "fathom.secretVolume" -}}
{{- if index . 1 }}
- name: {{ index . 0 }}
  secret:
    secretName: {{ index . 1 }}
    defaultMode: 0440
{{- end }}
{{- end -}}

{{/* A probe of a path and a port, every so many seconds, which fails after so many: (list "/health/live" "http" 10 30). A
     fifth one is the scheme. */}}
{{- define "fathom.probe" -}}
{{- $every := int (index . 2) -}}
httpGet:
  path: {{ index . 0 }}
  port: {{ index . 1 }}
  {{- if gt (len .) 4 }}
  {{- with index . 4 }}
  scheme: {{ . }}
  {{- end }}
  {{- end }}
periodSeconds: {{ $every }}
timeoutSeconds: 5
failureThreshold: {{ div (add (int (index . 3)) (sub $every 1)) $every }}
{{- end -}}

{{/* Flags about the model that routers and workers share. */}}
{{- define "fathom.modelArgs" -}}
- --model={{ .Values.model.path }}
{{- with .Values.model.hfOverrides }}
- {{ printf "--hf-overrides=%s" . | quote }}
{{- end }}
{{- end -}}

{{/* Volumes of the model: (list $ "router"). Routers read from the claim what workers copy. */}}
{{- define "fathom.modelVolumes" -}}
{{- $root := index . 0 -}}
{{- $v := $root.Values.model.volume -}}
{{- $copies := and (eq $v.type "copy") (eq (index . 1) "worker") -}}
{{- if has $v.type (list "claim" "copy") }}
- name: {{ ternary "model-source" "model" $copies }}
  persistentVolumeClaim:
    claimName: {{ $v.claimName }}
    readOnly: true
{{- else if eq $v.type "volume" }}
- name: model
  {{- toYaml $v.source | nindent 2 }}
{{- end }}
{{- if $copies }}
- name: model
  {{- toYaml $v.copyTo | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The mount of the model: (list $ "router"). */}}
{{- define "fathom.modelMount" -}}
{{- $root := index . 0 -}}
{{- $v := $root.Values.model.volume -}}
{{- if ne $v.type "image" }}
- name: model
  mountPath: {{ $root.Values.model.path }}
  readOnly: true
  {{- if and $v.subPath (not (and (eq $v.type "copy") (eq (index . 1) "worker"))) }}
  subPath: {{ $v.subPath }}
  {{- end }}
{{- end }}
{{- end -}}
