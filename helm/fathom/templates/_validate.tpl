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
{{- $said := "worker.tensorParallel=%v, worker.pipelineParallel=%v with worker.device=cuda: each is at most 8; " -}}
{{- fail (printf (print $said "use worker.groups for more copies") $w.tensorParallel $w.pipelineParallel) -}}
{{- end -}}
{{- if gt $ranks 64 -}}
{{- $said := "worker.tensorParallel=%v times worker.pipelineParallel=%v: a group has at most 64 ranks; use worker.groups" -}}
{{- fail (printf $said $w.tensorParallel $w.pipelineParallel) -}}
{{- end -}}
{{- if gt (mul $ranks $w.groups) 4096 -}}
{{- $said := "worker.groups=%v of %d ranks: a cluster has at most 4096 ranks; install a second release" -}}
{{- fail (printf $said $w.groups $ranks) -}}
{{- end -}}
{{- if hasKey (default dict $w.resources.limits) $w.gpuResource -}}
{{- fail (printf "worker.resources.limits has %s: the chart sets it to the ranks of a pod; leave it out" $w.gpuResource) -}}
{{- end -}}
{{- if $w.leaderWorkerSet.enabled -}}
{{- if not $cuda -}}
{{- $said := "worker.leaderWorkerSet.enabled with worker.device=cpu: ranks on the CPU share memory, " -}}
{{- fail (print $said "so a group is in one pod; set worker.groups") -}}
{{- end -}}
{{- if mod $ranks $w.leaderWorkerSet.size -}}
{{- $said := "worker.leaderWorkerSet.size=%v: the %d ranks of a group cannot be divided equally; give a divisor" -}}
{{- fail (printf $said $w.leaderWorkerSet.size $ranks) -}}
{{- end -}}
{{- end -}}
{{- include "fathom.validateReplicas" . -}}
{{- include "fathom.validateAccess" . -}}
{{- end -}}

{{- define "fathom.validateAccess" -}}
{{- $c := .Values.tls.cluster -}}
{{- $given := compact (list $c.scheduler $c.router $c.worker) -}}
{{- if and $given (ne (len $given) 3) -}}
{{- fail "tls.cluster: name the Secrets of scheduler, router and worker, or none of them" -}}
{{- end -}}
{{- $type := .Values.router.service.type -}}
{{- if and (ne $type "ClusterIP") (not (and .Values.auth.existingSecret .Values.tls.client.existingSecret)) -}}
{{- $said := "router.service.type=%s lets others than this cluster in; " -}}
{{- fail (printf (print $said "set auth.existingSecret and tls.client.existingSecret, or use ClusterIP") $type) -}}
{{- end -}}
{{- end -}}

{{- define "fathom.validateModel" -}}
{{- $v := .Values.model.volume -}}
{{- if and (has $v.type (list "claim" "copy")) (empty $v.claimName) -}}
{{- fail (printf "model.volume.claimName is missing: model.volume.type=%s reads a PersistentVolumeClaim" $v.type) -}}
{{- end -}}
{{- if and (eq $v.type "volume") (empty $v.source) -}}
{{- $said := "model.volume.source is missing: model.volume.type=volume needs the source of a volume, " -}}
{{- fail (print $said "for example {nfs: {...}}") -}}
{{- end -}}
{{- if and (ne $v.type "image") (hasPrefix "/usr/local/share/fathom/" .Values.model.path) -}}
{{- $said := "model.path=%s is in the image, and model.volume.type=%s mounts a volume there; set model.path, " -}}
{{- fail (printf (print $said "for example /models/deepseek-llm-7b-chat") .Values.model.path $v.type) -}}
{{- end -}}
{{- if and (eq $v.type "image") $v.claimName -}}
{{- fail (printf "model.volume.claimName=%s with model.volume.type=image: set the type to claim or copy" $v.claimName) -}}
{{- end -}}
{{- end -}}

{{- define "fathom.validateReplicas" -}}
{{- $s := .Values.scheduler -}}
{{- if and (gt (int $s.replicas) 1) (not $s.lease.enabled) -}}
{{- $said := "scheduler.replicas=%v: several schedulers take their terms from scheduler.lease.enabled; use 1" -}}
{{- fail (printf $said $s.replicas) -}}
{{- end -}}
{{- if and $s.lease.enabled (semverCompare "<0.3.0-0" .Chart.AppVersion) -}}
{{- $said := "scheduler.lease.enabled: the scheduler of %s has no Lease; leave it off and use scheduler.replicas=1" -}}
{{- fail (printf $said .Chart.AppVersion) -}}
{{- end -}}
{{- $a := .Values.router.autoscaling -}}
{{- if gt (int $a.minReplicas) (int $a.maxReplicas) -}}
{{- fail (printf "router.autoscaling.minReplicas=%v is more than maxReplicas=%v" $a.minReplicas $a.maxReplicas) -}}
{{- end -}}
{{- end -}}
