// worker/engine/step_loop.h: runs an epoch from its first plan to its end: it reads plans, submits
// them to the engine, collects the steps and writes the results.
// Thread: the engine thread calls RunEpoch, which reads and submits. If the device takes several
// steps, RunEpoch starts and joins a second thread, the collector, which collects and writes, so
// that plan k + 1 is read and queued while step k runs. Otherwise the engine thread collects and
// writes, too.
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

// What an epoch needs; all of it outlives the call.
struct StepLoopParts {
  Device* device = nullptr;
  StepChannel* channel = nullptr;
  const Clock* clock = nullptr;
  Progress* progress = nullptr;
  const std::atomic<bool>* stop = nullptr;
  StepObserver observer;  // May be null.
};

// Reads, executes and writes, starting with empty slots, until the stream or the epoch ends or
// `stop` is set. After `stop` it waits for the steps in flight and returns OK. It writes a result
// only if the epoch was not aborted after the last op of the step. When it returns, the device does
// nothing more for the epoch. Errors: the reason if the epoch was aborted, else the error of the
// plan, of the device or of the stream.
absl::Status RunEpoch(const Epoch& epoch, const StepLoopParts& parts);

}  // namespace fathom::worker
