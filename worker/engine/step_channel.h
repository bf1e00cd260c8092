// worker/engine/step_channel.h: the stream between the engine and the leader for one epoch: plans
// in, results out. Thread: the engine thread calls Read; the thread that collects
// (worker/engine/step_loop.h) calls Write, perhaps while Read waits. When the epoch ends
// (worker/engine/epoch.h), a waiting Read returns. Tests use a channel in the same process; the
// real one is worker/cluster/grpc_step_channel.h.
#pragma once

#include "cluster/plan.h"
#include "common/status.h"

namespace fathom::worker {

class StepChannel {
 public:
  virtual ~StepChannel() = default;

  // Waits for the next plan and returns it. INVALID_ARGUMENT: the message was no valid plan.
  // CANCELLED, UNAVAILABLE and others: the stream ended, and the epoch with it.
  virtual absl::StatusOr<StepPlan> Read() = 0;

  // An error means that the stream ended, and the epoch with it; the result is lost.
  virtual absl::Status Write(const StepResult& result) = 0;
};

}  // namespace fathom::worker
