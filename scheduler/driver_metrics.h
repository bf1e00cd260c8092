// scheduler/driver_metrics.h: the scheduler's metrics on /metrics. docs/OPERATIONS.md lists the
// names. Thread: the driver's.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "common/metrics.h"
#include "scheduler/core/scheduler_core.h"
#include "scheduler/membership/worker_group.h"
#include "scheduler/transport/transport.h"

namespace fathom::scheduler {

class DriverMetrics {
 public:
  // Registers all metrics. `metrics` must outlive this object.
  explicit DriverMetrics(Metrics* metrics);

  // A plan is sent to a group.
  void ObservePlan(const StepPlan& plan);
  // The result of a step came `step_us` after its plan was sent.
  void ObserveStep(int64_t step_us);

  void Update(const CoreStats& core, const WorkerGroupStats& groups,
              const TransportStats& transport, TermId term, size_t routers);
  void UpdateRanks(std::vector<RankLoad> loads);
  // This scheduler no longer leads.
  void Resigned() { leads_.Set(0); }
  // Numbers of tokens of the steps planned so far, for routers (ClusterStats).
  const StepTokens& step_tokens() const { return step_tokens_; }
  // The counters of an EventRecorder.
  void UpdateRecording(uint64_t recorded, uint64_t unrecorded);

 private:
  // A counter that follows a total which other code counts.
  struct Total {
    Counter counter;
    uint64_t shown = 0;
    void Follow(uint64_t total);
  };

  // The loads as of the last UpdateRanks. The thread that reads /metrics takes them.
  struct Ranks {
    std::mutex mutex;
    std::vector<RankLoad> loads;  // Guarded by mutex.
  };
  void AddLimitMetrics(Metrics* metrics);
  void AddSwap(Metrics* metrics);
  void AddPrefixCache(Metrics* metrics);
  void AddRankFamilies(Metrics* metrics);

  const std::shared_ptr<Ranks> ranks_ = std::make_shared<Ranks>();
  StepTokens step_tokens_;
  std::array<Gauge, kWaitLimits> waiting_by_reason_;
  std::array<Total, kRefusedBy> refused_by_;
  Total overtakes_, retries_kept_, retries_broken_;
  Gauge leads_, kv_usage_;
  Histogram batch_tokens_;
  Total failovers_, replayed_, prefix_queries_, prefix_hits_, prefix_evictions_;
  Gauge blocks_used_, blocks_, blocks_cached_, requests_running_, requests_waiting_, sessions_,
      session_bytes_;
  Gauge swap_blocks_, swap_blocks_used_;
  Total swaps_, swapped_out_, swapped_in_;
  Gauge groups_, workers_, rank_still_, routers_, term_;
  Total steps_, step_rows_, prompt_tokens_, generation_tokens_, suspensions_, preemptions_,
      dropped_, draft_rows_, drafted_, accepted_drafts_;
  Total kind_changes_, model_changes_, poisoned_, finished_, failed_, refused_, groups_formed_,
      groups_lost_, stale_, overflows_, unreadable_, recorded_, unrecorded_;
  Histogram batch_size_, step_seconds_;
};

}  // namespace fathom::scheduler
