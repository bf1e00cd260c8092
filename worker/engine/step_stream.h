// worker/engine/step_stream.h: what is observed of each step that an epoch's engine did. Thread: an
// observer is called by one thread at a time, after the step's result was written.
#pragma once

#include <cstdint>
#include <functional>

#include "cluster/plan.h"
#include "common/clock.h"

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

using StepObserver =
    std::function<void(const StepPlan& plan, const StepResult& result, const StepStream& stream)>;

}  // namespace fathom::worker
