// worker/engine/backend.h: what a rank computes with, CPU or GPU, kept between epochs: weights, KV
// blocks and whatever runs the steps. Thread: the engine thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

#include "cluster/plan.h"
#include "common/status.h"
#include "common/types.h"
#include "worker/comm/epoch_comm.h"
#include "worker/engine/epoch.h"
#include "worker/engine/step_channel.h"

namespace fathom::worker {

// When a step's parts happened, and where its time outside of the computation went, by the engine's
// clock.
struct StepStream {
  TimeUs read_at_us = 0;       // The plan was read.
  TimeUs submit_from_us = 0;   // There was room for it.
  TimeUs submit_end_us = 0;    // All of it is queued; on the CPU: its computing begins.
  TimeUs collected_at_us = 0;  // Its computing was seen to be over.
  TimeUs ready_at_us = 0;      // Its result could be written.
  int64_t read_us = 0;   // Waiting for the plan and reading it: idle time when plans come late.
  int64_t write_us = 0;  // Handing the result to the stream.
  // On a device of its own, by its events: computing, and between the step before and this one.
  int64_t device_us = 0;
  int64_t device_idle_us = 0;
  bool graph = false;  // The device replayed a graph.
};

// Called after each result was written, by one thread at a time.
using StepObserver =
    std::function<void(const StepPlan& plan, const StepResult& result, const StepStream& stream)>;

class Backend {
 public:
  virtual ~Backend() = default;

  // What the ranks of a group meet in; its target is set before RunEpoch.
  virtual EpochComm* comm() = 0;

  // Reads, executes and writes from an empty state until the stream or the epoch ends, or `stop` is
  // set (then after the steps in flight; OK). A result is written only if the epoch was not aborted
  // after the step's last op. Nothing of the epoch is under way when it returns.
  virtual absl::Status RunEpoch(const Epoch& epoch, StepChannel& channel,
                                const std::atomic<bool>& stop, const StepObserver& observer) = 0;
};

// The backend of `rank`, made by the model's owner, who keeps it between epochs. Errors are the
// model folder's: the process exits.
using BackendForRank = std::function<absl::StatusOr<Backend*>(int rank)>;

}  // namespace fathom::worker
