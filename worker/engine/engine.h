// worker/engine/engine.h: one rank's execution of an epoch's plans, strictly in order, on any
// device (worker/engine/device.h): checks a plan, moves the slots on, gives the device a batch, and
// makes the result of the device's outputs. An Engine lives for one epoch and starts empty. Every
// rank runs the same plans on the same logits and so samples alike; rank 0 alone answers with rows.
// Errors: a Status means that the epoch must end (a wrong plan, a collective that was aborted).
// What harms one sequence only is its row's fault. Thread: Submit by the engine thread; Collect by
// the thread that collects (device.h), in the order of the Submits. Between them go the caller's
// SubmittedStep and `faulted_`, nothing else.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include "cluster/plan.h"
#include "common/status.h"
#include "worker/engine/device.h"
#include "worker/engine/epoch.h"
#include "worker/engine/slots.h"
#include "worker/engine/step_stream.h"

namespace fathom::worker {

// What Collect needs to know of a step; the caller keeps it for its memory.
struct SubmittedStep {
  TermId term;
  EpochId epoch;
  StepId step;
  std::vector<ChunkWork> chunks;  // In the plan's order.
  int32_t outputs = 0;            // Of all chunks.
};

class Engine {
 public:
  // `device` outlives the engine and is idle. REQUIRES: it has the seat's rank and tp, and at least
  // the seat's limits.
  Engine(Device* device, const GroupSeat& seat);

  // Executes the next plan, up to the outputs. REQUIRES: fewer steps than the device's
  // steps_in_flight() are not collected.
  absl::Status Submit(const StepPlan& plan, SubmittedStep* step);

  // The result of the oldest step that was not collected, which is `step`; waits for it. Sets what
  // the device says about its time in `stream`.
  StepResult Collect(const SubmittedStep& step, StepStream* stream);

  const Slots& slots() const { return slots_; }

 private:
  absl::Status ApplyDeltas(const StepPlan& plan);
  absl::Status BeginChunks(const StepPlan& plan, SubmittedStep* step);
  void ZeroBlocksOf(const Slot& slot);

  Device& device_;
  const GroupSeat seat_;
  Slots slots_;
  StepId next_step_{0};
  StepBatch batch_;  // Of the step in work; kept for its memory.
  // [slots + 1]: set by Collect for a slot of which a row has faulted, taken by Submit when the
  // slot is released: the blocks are zeroed before another sequence gets them.
  std::vector<std::atomic<bool>> faulted_;
};

}  // namespace fathom::worker
