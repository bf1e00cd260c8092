{{/* The pod of a group, or, with a LeaderWorkerSet, of a group's ranks on one node. */}}
{{- define "fathom.workerPod" -}}
{{- $w := .Values.worker -}}
{{- $local := int (include "fathom.localRanks" .) -}}
metadata:
  labels:
    {{- include "fathom.labels" (list . "worker") | nindent 4 }}
  {{- with .Values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- include "fathom.podSpec" . | nindent 2 }}
  terminationGracePeriodSeconds: {{ $w.stopSeconds }}
  {{- with $w.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  {{- with include "fathom.placement" $w | trim }}{{ . | nindent 2 }}{{- end }}
  {{- if eq .Values.model.volume.type "copy" }}
  initContainers:
    - name: copy-model
      {{- include "fathom.container" . | nindent 6 }}
      command: [cp]
      args: [-RL, /model-source/., {{ .Values.model.path }}]
      resources:
        requests:
          cpu: 500m
          memory: 256Mi
        limits:
          memory: 1Gi
      volumeMounts:
        - name: model-source
          mountPath: /model-source
          readOnly: true
          {{- with .Values.model.volume.subPath }}
          subPath: {{ . }}
          {{- end }}
        - name: model
          mountPath: {{ .Values.model.path }}
  {{- end }}
  containers:
    - name: worker
      {{- include "fathom.container" . | nindent 6 }}
      command: [fathom]
      args:
        {{- include "fathom.workerArgs" . | nindent 8 }}
      env:
        - name: POD_NAME
          valueFrom:
            fieldRef:
              fieldPath: metadata.name
        {{- if $w.leaderWorkerSet.enabled }}
        - name: GROUP_INDEX
          valueFrom:
            fieldRef:
              fieldPath: metadata.labels['leaderworkerset.sigs.k8s.io/group-index']
        {{- end }}
        {{- with $w.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        {{- range $i := until $local }}
        - name: metrics-{{ $i }}
          containerPort: {{ add $w.ports.metrics $i }}
        {{- end }}
        {{- range $i := until $local }}
        - name: health-{{ $i }}
          containerPort: {{ add $w.ports.health $i }}
        {{- end }}
      # The kubelet asks the first rank of the pod; `fathom workers` asks all of them and starts one that stands still again
      # (docs/OPERATIONS.md, "Workers of one group"), so the limit of the kubelet is longer.
      # The start is over when the group is up: weights are loaded and all ranks are connected.
      startupProbe:
        {{- include "fathom.probe" (list "/health/ready" "metrics-0" 5 $w.startSeconds) | nindent 8 }}
      # Fails if a step does not move. A rank that waits for work, for a scheduler or for a peer passes.
      livenessProbe:
        {{- include "fathom.probe" (list "/health/progress" "metrics-0" 10 (add $w.stallSeconds 30)) | nindent 8 }}
      # The group is up.
      readinessProbe:
        {{- include "fathom.probe" (list "/health/ready" "metrics-0" 5 10) | nindent 8 }}
      resources:
        {{- include "fathom.workerResources" . | nindent 8 }}
      volumeMounts:
        - name: run
          mountPath: /run/fathom
        - name: shm
          mountPath: /dev/shm
        - name: tmp
          mountPath: /tmp
        {{- with include "fathom.modelMount" (list . "worker") | trim }}{{ . | nindent 8 }}{{- end }}
        {{- with include "fathom.secretMount" (list "cluster-tls" .Values.tls.cluster.worker "/etc/fathom-cluster") | trim }}{{ . | nindent 8 }}{{- end }}
        {{- with $w.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    # Two logs of 16 MiB for each rank, and two of NCCL.
    - name: run
      emptyDir:
        sizeLimit: {{ add 16 (mul 64 $local) }}Mi
    - name: shm
      emptyDir:
        medium: Memory
        sizeLimit: {{ include "fathom.shmSize" . }}
    - name: tmp
      emptyDir:
        sizeLimit: 64Mi
    {{- with include "fathom.modelVolumes" (list . "worker") | trim }}{{ . | nindent 4 }}{{- end }}
    {{- with include "fathom.secretVolume" (list "cluster-tls" .Values.tls.cluster.worker) | trim }}{{ . | nindent 4 }}{{- end }}
    {{- with $w.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{- define "fathom.workerArgs" -}}
{{- $w := .Values.worker -}}
- workers
{{ include "fathom.modelArgs" . }}
- --device={{ $w.device }}
- --tensor-parallel-size={{ $w.tensorParallel }}
- --pipeline-parallel-size={{ $w.pipelineParallel }}
- --scheduler={{ include "fathom.schedulers" . }}
{{- if $w.leaderWorkerSet.enabled }}
- --group=$(GROUP_INDEX)
- --nnodes={{ $w.leaderWorkerSet.size }}
- --node-rank=$(LWS_WORKER_INDEX)
{{- else }}
- --group=$(POD_NAME)
{{- end }}
# Pods on one node share nothing, so each of them is a host for the scheduler.
- --host-id=$(POD_NAME)
- --host=0.0.0.0
- --worker-port={{ $w.ports.health }}
- --worker-metrics-port={{ $w.ports.metrics }}
- --restart-after-s={{ int $w.stallSeconds }}
- --drain-timeout-s={{ max 0 (sub (int $w.stopSeconds) 10) }}
- --run-dir=/run/fathom
- --verbose
{{- with include "fathom.clusterTlsArgs" (list . "worker") }}
{{ . }}
{{- end }}
{{- with $w.dtype }}
- --dtype={{ . }}
{{- end }}
{{- with $w.maxModelLen }}
- --max-model-len={{ include "fathom.number" . }}
{{- end }}
{{- with $w.maxNumSeqs }}
- --max-num-seqs={{ include "fathom.number" . }}
{{- end }}
{{- with $w.maxNumBatchedTokens }}
- --max-num-batched-tokens={{ include "fathom.number" . }}
{{- end }}
{{- with $w.gpuMemoryUtilization }}
- --gpu-memory-utilization={{ . }}
{{- end }}
{{- with $w.kvCacheMemory }}
- --kv-cache-memory={{ . }}
{{- end }}
{{- with $w.ncclInterface }}
- --nccl-interface={{ . }}
{{- end }}
{{- with $w.extraArgs }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "fathom.workerResources" -}}
{{- $w := .Values.worker -}}
{{- $limits := default dict $w.resources.limits -}}
{{- if eq $w.device "cuda" -}}
{{- $limits = merge (dict $w.gpuResource (include "fathom.localRanks" . | int)) $limits -}}
{{- end -}}
{{- with $w.resources.requests -}}
requests:
  {{- toYaml . | nindent 2 }}
{{ end -}}
{{- with $limits -}}
limits:
  {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end -}}
