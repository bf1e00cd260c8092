{{/* Refuses values that exclude each other, with the value, the limit and the way out. values.schema.json has checked the
     type and the range of each single value. */}}
{{- define "fathom.validate" -}}
{{- $w := .Values.worker -}}
{{- $ranks := int (include "fathom.ranks" .) -}}
{{- $cuda := eq $w.device "cuda" -}}
{{- if eq .Values.image.tag "latest" -}}
{{- fail "image.tag=latest: it names another image every day; set image.digest, or a version in image.tag" -}}
{{- end -}}
{{- include "fathom.validateModel" . -}}
{{- if and $cuda (or (gt (int $w.tensorParallel) 8) (gt (int $w.pipelineParallel) 8)) -}}
{{- fail (printf "worker.tensorParallel=%v, worker.pipelineParallel=%v with worker.device=cuda: each is at most 8; use worker.groups for more copies"
    $w.tensorParallel $w.pipelineParallel) -}}
{{- end -}}
{{- if gt $ranks 64 -}}
{{- fail (printf "worker.tensorParallel=%v times worker.pipelineParallel=%v: a group has at most 64 ranks" $w.tensorParallel $w.pipelineParallel) -}}
{{- end -}}
{{- if gt (mul $ranks $w.groups) 4096 -}}
{{- fail (printf "worker.groups=%v of %d ranks: a cluster has at most 4096 ranks; install a second release" $w.groups $ranks) -}}
{{- end -}}
{{- if hasKey (default dict $w.resources.limits) $w.gpuResource -}}
{{- fail (printf "worker.resources.limits has %s: the chart sets it to the ranks of a pod; leave it out" $w.gpuResource) -}}
{{- end -}}
{{- if $w.leaderWorkerSet.enabled -}}
{{- if not $cuda -}}
{{- fail "worker.leaderWorkerSet.enabled with worker.device=cpu: ranks on the CPU share memory, so a group is in one pod; set worker.groups" -}}
{{- end -}}
{{- if mod $ranks $w.leaderWorkerSet.size -}}
{{- fail (printf "worker.leaderWorkerSet.size=%v: the %d ranks of a group cannot be divided equally; give a divisor" $w.leaderWorkerSet.size $ranks) -}}
{{- end -}}
{{- end -}}
{{- include "fathom.validateReplicas" . -}}
{{- end -}}

{{- define "fathom.validateModel" -}}
{{- $v := .Values.model.volume -}}
{{- if and (has $v.type (list "claim" "copy")) (empty $v.claimName) -}}
{{- fail (printf "model.volume.claimName is missing: model.volume.type=%s reads a PersistentVolumeClaim" $v.type) -}}
{{- end -}}
{{- if and (eq $v.type "volume") (empty $v.source) -}}
{{- fail "model.volume.source is missing: model.volume.type=volume needs the source of a volume, for example {nfs: {...}}" -}}
{{- end -}}
{{- if and (ne $v.type "image") (hasPrefix "/usr/local/share/fathom/" .Values.model.path) -}}
{{- fail (printf "model.path=%s is in the image, and model.volume.type=%s mounts a volume there; set model.path, for example /models/deepseek-llm-7b-chat"
    .Values.model.path $v.type) -}}
{{- end -}}
{{- if and (eq $v.type "image") $v.claimName -}}
{{- fail (printf "model.volume.claimName=%s with model.volume.type=image: set the type to claim or copy" $v.claimName) -}}
{{- end -}}
{{- end -}}

{{- define "fathom.validateReplicas" -}}
{{- $s := .Values.scheduler -}}
{{- if and (gt (int $s.replicas) 1) (not $s.lease.enabled) -}}
{{- fail (printf "scheduler.replicas=%v: several schedulers need scheduler.lease.enabled, from which they take their terms; use 1" $s.replicas) -}}
{{- end -}}
{{- if and $s.lease.enabled (semverCompare "<0.3.0-0" .Chart.AppVersion) -}}
{{- fail (printf "scheduler.lease.enabled: the scheduler of %s has no Lease; leave it off and use scheduler.replicas=1" .Chart.AppVersion) -}}
{{- end -}}
{{- $a := .Values.router.autoscaling -}}
{{- if gt (int $a.minReplicas) (int $a.maxReplicas) -}}
{{- fail (printf "router.autoscaling.minReplicas=%v is more than maxReplicas=%v" $a.minReplicas $a.maxReplicas) -}}
{{- end -}}
{{- end -}}
