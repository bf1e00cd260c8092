// worker/engine/step_loop.h: an epoch from its first plan to its end: reads plans, gives them to
// the engine, collects the steps and writes the results. Thread: RunEpoch is the engine thread. It
// reads and submits. Where the device takes several steps at once, a collector thread, which
// RunEpoch starts and joins, collects and writes, so that plan k + 1 is read and queued while step
// k runs; else the engine thread does that too.
#pragma once

#include <atomic>

#include "common/clock.h"
#include "common/status.h"
#include "worker/engine/device.h"
#include "worker/engine/epoch.h"
#include "worker/engine/step_channel.h"
#include "worker/engine/step_stream.h"
#include "worker/progress.h"

namespace fathom::worker {

// What an epoch runs with; all of it outlives the call.
struct StepLoopParts {
  Device* device = nullptr;
  StepChannel* channel = nullptr;
  const Clock* clock = nullptr;
  Progress* progress = nullptr;
  const std::atomic<bool>* stop = nullptr;
  StepObserver observer;  // May be null.
};

// Reads, executes and writes from an empty state until the stream or the epoch ends, or `stop` is
// set (then after the steps in flight; OK). A result is written only if the epoch was not aborted
// after the step's last op. Nothing of the epoch is under way when it returns. Errors: why the
// epoch was aborted, else a wrong plan's, the device's or the stream's.
absl::Status RunEpoch(const Epoch& epoch, const StepLoopParts& parts);

}  // namespace fathom::worker
