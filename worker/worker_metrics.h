// worker/worker_metrics.h: the metrics fathom_worker_*. Thread: the thread that collects calls
// OnStep (worker/engine/step_loop.h); main calls the others, unless a comment says otherwise.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "cluster/messages.h"
#include "cluster/plan.h"
#include "common/metrics.h"
#include "worker/engine/step_stream.h"
#include "worker/progress.h"

namespace fathom::worker {

class WorkerMetrics {
 public:
  // `metrics` outlives the WorkerMetrics.
  explicit WorkerMetrics(Metrics* metrics);

  void OnStep(const StepPlan& plan, const StepResult& result, const StepStream& stream);
  void SetMemory(int64_t weights_bytes, int64_t kv_cache_bytes);
  // One part of the memory: memory_bytes{arena}, and on a GPU gpu_memory_usage_bytes{arena}.
  void SetArena(const std::string& name, int64_t bytes, bool on_gpu);
  // The memory of captured graphs. Any thread.
  void SetGraphs(int64_t bytes) { graphs_bytes_.Set(static_cast<double>(bytes)); }
  // What the rank does now, as its heartbeats tell.
  void SetWork(const Progress& progress);
  void SetRegistered(int schedulers) { registered_.Set(schedulers); }

 private:
  Counter steps_, rows_, prompt_tokens_, generation_tokens_, faults_, draft_rows_, draft_tokens_,
      accepted_draft_tokens_, collectives_, collective_seconds_, read_seconds_, write_seconds_,
      device_busy_seconds_, device_idle_seconds_;
  Histogram step_seconds_, compute_seconds_;
  static constexpr size_t kWindow = 128;  // The number of steps of a median.

  void AddToMedian(int64_t step_us);

  Gauge step_median_;
  std::array<int64_t, kWindow> window_us_{};
  size_t window_next_ = 0;
  Metrics* const metrics_;
  Gauge step_, layer_, step_collectives_;
  Gauge group_, rank_, epoch_, registered_, weights_bytes_, kv_cache_bytes_, graphs_bytes_;
  uint64_t epoch_seen_ = 0;  // The epoch of `collectives_seen_`.
  uint64_t collectives_seen_ = 0;
};

}  // namespace fathom::worker
