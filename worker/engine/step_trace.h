// worker/engine/step_trace.h: records the next steps when somebody asks for them. Off (and then one
// atomic load a step) unless a Capture waits. Bounded: one Capture at a time, kTraceStepsMax steps.
// Thread: every method from any thread.
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
  // A StepObserver.
  void OnStep(const StepPlan& plan, const StepResult& result, const StepStream& stream);

  // Waits until `steps` more steps were written and returns them in that order; the ones there are
  // when `timeout` passes, `given_up` (asked a few times a second) says true, or the recorder is
  // closed. INVALID_ARGUMENT: steps not in 1..kTraceStepsMax. RESOURCE_EXHAUSTED: another Capture
  // is under way. UNAVAILABLE: closed, and there are none.
  absl::StatusOr<std::vector<StepTrace>> Capture(int32_t steps, std::chrono::milliseconds timeout,
                                                 const std::function<bool()>& given_up);
  // Ends the Capture under way and all later ones at once.
  void Close();

 private:
  std::atomic<bool> on_{false};  // Changed under the mutex; read without it.
  std::mutex mutex_;             // Guards what follows.
  std::condition_variable changed_;
  std::vector<StepTrace> steps_;
  size_t wanted_ = 0;  // 0: no Capture is under way.
  bool closed_ = false;
};

}  // namespace fathom::worker
