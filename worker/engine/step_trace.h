// worker/engine/step_trace.h: records the next steps on demand, for `fathom profile`. While no
// Capture waits it is off and costs one atomic load for each step. Bounded: one Capture at a time,
// kTraceStepsMax steps. Thread: any thread may call any method.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <vector>

#include "cluster/plan.h"
#include "cluster/step_trace.h"
#include "common/status.h"
#include "worker/engine/step_stream.h"

namespace fathom::worker {

class StepRecorder {
 public:
  // Is a StepObserver.
  void OnStep(const StepPlan& plan, const StepResult& result, const StepStream& stream);

  // Waits until `steps` more steps were written, and returns them in order. Returns fewer if
  // `timeout` passes, if `given_up` (called a few times a second) returns true, or if the recorder
  // is closed. INVALID_ARGUMENT: `steps` is not in 1..kTraceStepsMax. RESOURCE_EXHAUSTED: another
  // Capture runs. UNAVAILABLE: the recorder is closed and has no steps.
  absl::StatusOr<std::vector<StepTrace>> Capture(int32_t steps, std::chrono::milliseconds timeout,
                                                 const std::function<bool()>& given_up);
  // Ends the running Capture, and all later ones at once.
  void Close();

 private:
  std::atomic<bool> on_{false};  // Written under the mutex, read without it.
  std::mutex mutex_;             // Guards what follows.
  std::condition_variable changed_;
  std::vector<StepTrace> steps_;
  size_t wanted_ = 0;  // 0: no Capture runs.
  bool closed_ = false;
};

}  // namespace fathom::worker
