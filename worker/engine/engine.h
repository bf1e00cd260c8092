// worker/engine/engine.h: one rank's execution of an epoch's plans, strictly in order: copies,
// releases, admits, extends, then the chunks' forward pass and the sampler, then the result.
// Thread: the engine thread owns it and all it points to. An Engine lives for one epoch and starts
// empty. Every rank runs the same plans on the same logits and so samples alike; rank 0 alone
// answers with rows. Errors: a Status means that the epoch must end (a wrong plan, a collective
// that was aborted). What harms one sequence only is its row's fault.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "cluster/plan.h"
#include "common/clock.h"
#include "common/status.h"
#include "worker/comm/epoch_comm.h"
#include "worker/cpu/decoder.h"
#include "worker/cpu/kv_cache.h"
#include "worker/engine/backend.h"
#include "worker/engine/epoch.h"
#include "worker/engine/slots.h"
#include "worker/engine/step_channel.h"
#include "worker/progress.h"

namespace fathom::worker {

// What an engine works with; all of it outlives the engine.
struct EngineParts {
  Decoder* decoder = nullptr;
  KvCache* kv = nullptr;
  EpochComm* comm = nullptr;
  const Clock* clock = nullptr;
  Progress* progress = nullptr;
  int32_t logits_rows =
      0;  // Rows with logits in one Forward; a step that needs more makes several.
};

class Engine {
 public:
  // REQUIRES: the parts were made for the seat's rank, tp and limits.
  Engine(const EngineParts& parts, const Seat& seat);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Executes the next plan.
  absl::StatusOr<StepResult> Execute(const StepPlan& plan);

  const Slots& slots() const { return slots_; }

 private:
  struct PlannedRow;
  struct Scratch;

  absl::Status ApplyDeltas(const StepPlan& plan);
  absl::Status BeginChunks(const StepPlan& plan, std::vector<ResultRow>* results);
  void PlanRows(const ChunkWork& work, int32_t chunk);
  absl::Status Compute(StepId step, std::vector<ResultRow>* results);
  absl::Status Forward(size_t begin, size_t end, StepId step, std::vector<ResultRow>* results);
  void UseLogits(const PlannedRow& row, std::span<const float> logits, StepId step,
                 ResultRow* result);
  void ScorePrompt(const PlannedRow& row, std::span<const float> logits, ResultRow* result);
  void SampleToken(const ChunkWork& work, std::span<const float> logits, StepId step,
                   ResultRow* result);

  const EngineParts parts_;
  const Seat seat_;
  Slots slots_;
  StepId next_step_{0};
  // Of the step in work; kept for their memory.
  std::vector<ChunkWork> works_;
  std::vector<PlannedRow> rows_;
  std::vector<ForwardRow> forward_rows_;
  std::vector<std::span<const BlockId>> block_tables_;
  const std::unique_ptr<Scratch> scratch_;
};

// Steps one after the other on the thread that calls it.
class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(const EngineParts& parts) : parts_(parts) {}
  EpochComm* comm() override { return parts_.comm; }
  absl::Status RunEpoch(const Epoch& epoch, StepChannel& channel, const std::atomic<bool>& stop,
                        const StepObserver& observer) override;

 private:
  const EngineParts parts_;
};

}  // namespace fathom::worker
