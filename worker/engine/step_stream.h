// worker/engine/step_stream.h: what metrics and traces learn of each step. Thread: one thread at a
// time calls an observer, after the result of the step was written.
#pragma once

#include <cstdint>
#include <functional>

#include "cluster/plan.h"
#include "common/clock.h"

namespace fathom::worker {

// When the parts of a step happened, by the clock of the engine, and how much time was spent
// outside of the computation.
struct StepStream {
  TimeUs read_at_us = 0;       // The plan was read.
  TimeUs submit_from_us = 0;   // The device had room for the step.
  TimeUs submit_end_us = 0;    // The whole step is queued. On the CPU: the computation begins.
  TimeUs collected_at_us = 0;  // The end of the computation was seen.
  TimeUs ready_at_us = 0;      // The result was ready to be written.
  int64_t read_us = 0;         // Waiting for the plan and reading it: idle time if plans come late.
  int64_t write_us = 0;        // Writing the result to the stream.
  // From the events of a GPU: the time of the computation, and the time between the end of the
  // previous step and the begin of this one.
  int64_t device_us = 0;
  int64_t device_idle_us = 0;
  bool graph = false;  // Whether the device replayed a graph.
};

using StepObserver =
    std::function<void(const StepPlan& plan, const StepResult& result, const StepStream& stream)>;

}  // namespace fathom::worker
