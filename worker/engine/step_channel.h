// worker/engine/step_channel.h: the engine's way to the leader for one life of its group: plans in,
// results out. Thread: Read by the engine thread; Write by the thread that collects
// (worker/engine/step_loop.h), maybe while Read waits. Whoever ends the epoch
// (worker/engine/epoch.h) makes a waiting Read return; nobody else touches the channel. Tests use
// an in-process fake, production worker/cluster/grpc_step_channel.h.
#pragma once

#include "cluster/plan.h"
#include "common/status.h"

namespace fathom::worker {

class StepChannel {
 public:
  virtual ~StepChannel() = default;

  // The next plan; waits for it. Errors: INVALID_ARGUMENT: the message was no plan. CANCELLED,
  // UNAVAILABLE and others: the stream ended; the epoch is over.
  virtual absl::StatusOr<StepPlan> Read() = 0;

  // Errors: the stream ended; the epoch is over and the result is lost.
  virtual absl::Status Write(const StepResult& result) = 0;
};

}  // namespace fathom::worker
